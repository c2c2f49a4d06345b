"""A push: what it would send, and, against a hub on this machine's loopback, what it does send."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from lorascope.errors import ConfigError, LorascopeError
from lorascope.files.hub import planned_push, send

COMMIT = "a" * 40


class LoopbackHub(BaseHTTPRequestHandler):
    """The three addresses of the hub's API that a new repository of small files needs."""

    asked: list[tuple[str, Any]]
    existing: set[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        lines = [json.loads(line) for line in body.decode().splitlines() if line]
        self.asked.append((self.path, lines))
        if self.path == "/api/repos/create":
            name = f"{lines[0].get('organization')}/{lines[0]['name']}"
            if name in self.existing:
                self._answer(409, {"error": "You already created this model repo"})
            else:
                address = f"http://{self.headers['Host']}/{name}"
                self._answer(200, {"url": address, "id": name, "name": name})
        elif "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in lines[0]["files"]
            ]
            self._answer(200, {"files": files})
        elif "me/refusing" in self.path:
            self._answer(400, {"error": "the README is no card"})
        else:
            address = f"http://{self.headers['Host']}/me/mine/commit/{COMMIT}"
            self._answer(200, {"commitUrl": address, "commitOid": COMMIT, "success": True})

    def _answer(self, status: int, values: dict[str, Any]) -> None:
        content = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Its address, and what it is asked."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    LoopbackHub.asked, LoopbackHub.existing = [], {"me/taken"}
    server = HTTPServer(("127.0.0.1", 0), LoopbackHub)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", LoopbackHub.asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text("# mine\n")
    (tmp_path / "adapter_config.json").write_text("{}\n")
    # What a file manager and Git leave is no part of an export.
    (tmp_path / ".git").mkdir()
    for hidden in (".DS_Store", ".git/config"):
        (tmp_path / hidden).write_text("mine alone")
    return tmp_path


def test_a_push_makes_a_new_private_repository_and_sends_all_files_as_they_are(
    hub: tuple[str, list[tuple[str, Any]]], folder: Path
) -> None:
    endpoint, asked = hub
    push = planned_push(folder, "me/mine", private=True)
    assert push.files == {"README.md": 7, "adapter_config.json": 3}
    assert send(push, "Export of a trial", endpoint).endswith("/me/mine")
    (made,) = [lines[0] for path, lines in asked if path == "/api/repos/create"]
    assert (made["organization"], made["name"]) == ("me", "mine")
    # What an older huggingface_hub calls private.
    assert made.get("visibility", "private" if made.get("private") else "") == "private"
    (sent,) = [lines for path, lines in asked if "/commit/" in path]
    assert sent[0]["value"]["summary"] == "Export of a trial"
    files = {line["value"]["path"]: line["value"]["content"] for line in sent[1:]}
    found = {name: base64.b64decode(content) for name, content in files.items()}
    assert found == {"README.md": b"# mine\n", "adapter_config.json": b"{}\n"}


def test_a_repository_that_exists_is_left_as_it_is(
    hub: tuple[str, list[tuple[str, Any]]], folder: Path
) -> None:
    endpoint, asked = hub
    with pytest.raises(LorascopeError, match="exists and is left as it is: choose another name"):
        send(planned_push(folder, "me/taken", private=True), "again", endpoint)
    assert [path for path, _ in asked] == ["/api/repos/create"]


def test_an_upload_that_fails_says_what_it_left_at_the_hub(
    hub: tuple[str, list[tuple[str, Any]]], folder: Path
) -> None:
    endpoint, _ = hub
    with pytest.raises(
        LorascopeError, match=r"no card.*/me/refusing was made, and is empty or.*delete"
    ):
        send(planned_push(folder, "me/refusing", private=True), "m", endpoint)


def test_without_a_network_nothing_is_sent_and_the_sentence_says_what_to_do(folder: Path) -> None:
    with pytest.raises(LorascopeError, match=r"was not reached.*hf auth login"):
        send(planned_push(folder, "me/mine", private=True), "m", "http://127.0.0.1:9")


@pytest.mark.parametrize("name", ["mine", "me/mine/more", "me/mi ne", "me/--mine"])
def test_a_name_that_the_hub_does_not_take_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"push=.*owner/name"):
        planned_push(folder, name, private=True)
