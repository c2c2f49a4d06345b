"""Passwords, tokens and queries of addresses: told nowhere, whatever marks they are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorascope.config import Config
from lorascope.errors import LorascopeError
from lorascope.execution import sweep
from lorascope.execution.engine import Failure, Outcome, Slot
from lorascope.execution.pack_run import concluded
from lorascope.files.confidential import HIDDEN, public_address, without_secrets
from lorascope.files.layout import RECORD, Layout
from lorascope.files.provenance import capture
from lorascope.files.store import read_record, write_record
from lorascope.records import BaseRecord, Status, TrialRecord
from lorascope.stages import ui
from lorascope.tracking import TrackingError, publish, try_publish
from lorascope.tracking.content import trial_run
from tests.study_factory import base_record, example_study

PUBLIC = [
    ("http://user:secret@host:5000/path", "http://host:5000/path"),
    ("http://user:p@ss@host", "http://host"),
    ("http://user:pa/ss@host:9/", "http://host:9/"),
    ("http://user:pa?ss@host", f"http://{HIDDEN}"),
    ("http://user:pa#ss@host", f"http://{HIDDEN}"),
    ("http://token@host", "http://host"),
    ("https://host/path?token=secret#part", "https://host/path"),
    ("https://host/?token=se@cret", f"https://{HIDDEN}"),
    ("postgresql+psycopg://u:p@ss@db/name?password=secret", "postgresql+psycopg://db/name"),
    ("http://u:p@[broken", f"http://{HIDDEN}"),
    ("user:secret@host", "host"),
    ("sqlite:////home/me@work/a #1/mlflow.db?mode=ro", "sqlite:////home/me@work/a #1/mlflow.db"),
    ("file:///home/me@work/mlruns", "file:///home/me@work/mlruns"),
    ("databricks://profile", "databricks://profile"),
    ("/home/me@work/mlruns", "/home/me@work/mlruns"),
    ("databricks", "databricks"),
]


@pytest.mark.parametrize(("address", "public"), PUBLIC)
def test_an_address_loses_credentials_and_query(address: str, public: str) -> None:
    assert public_address(address) == public
    assert public_address(public) == public


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_no_password_comes_through(password: str) -> None:
    """The password is between marks that the address itself lacks."""
    told = public_address(f"http://user:<{password}>@host:9/api")
    assert "<" not in told
    assert f"{password}>" not in told
    assert told in ("http://host:9/api", f"http://{HIDDEN}")


def test_texts_lose_addresses_and_secrets_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdef")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret/key")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "parallel")
    text = "see http://u:p@h/x?k=v (hf_abcdef, s3cret/key) in parallel, mail a@b"
    assert without_secrets(text) == f"see http://h/x ({HIDDEN}, {HIDDEN}) in parallel, mail a@b"


ADDRESSES = [
    "http://user:p@ss1word@127.0.0.1:9/",
    "http://user:pa/ss1word@127.0.0.1:9/",
    "http://user:p ss1word@127.0.0.1:9/",
    "http://user:p%40ss1word@127.0.0.1:9/",
    "http://127.0.0.1:9/?token=ss1word",
    "http://127.0.0.1:9/#ss1word",
    "postgresql://user:p@ss1word@127.0.0.1:9/db?password=ss1word",
    "user:ss1word@127.0.0.1:5000",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_store_out_of_reach_is_told_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    address: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    (tmp_path / "user:ss1word@127.0.0.1:5000").touch()
    layout, trial = Layout(tmp_path), example_study().trials[0]
    state = try_publish([trial], [], layout).state
    assert state != "published"
    told = capsys.readouterr()
    with pytest.raises(TrackingError) as caught:
        publish([trial], [], layout)
    for text in (state, told.out, told.err, str(caught.value)):
        assert "ss1word" not in text
    if address.startswith("http"):
        with pytest.raises(TrackingError, match=r"http://127\.0\.0\.1:9/? is a server") as caught:
            ui.command([], layout, {}, [])
        assert "word" not in str(caught.value)


def test_the_trials_record_holds_no_password(
    project: Layout, compose: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:p@ss1word@127.0.0.1:9/")
    config = compose("quant=fp16", "lora.rank=1", "seed=77", "runtime.tracking=true")
    record = sweep.run(config, project)
    assert record.tracking.startswith("http://127.0.0.1:9/: ")
    assert "ss1word" not in (project.trials("fp16") / record.trial / RECORD).read_text()


def test_a_reason_and_last_lines_are_recorded_without_secrets(
    project: Layout, compose: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdef")
    config = compose("quant=fp16", "lora.rank=1", "seed=78")
    outcome = Outcome(
        failure=Failure("RuntimeError: cannot reach https://me:hf_abcdef@hub/x"),
        last_lines=["Authorization: Bearer hf_abcdef"],
    )
    pack = [sweep._trial(config, project)]
    (record,) = concluded(pack, Slot(1, None), outcome, capture(project, "cpu", 1))
    assert record is not None
    assert record.status is Status.failed
    assert record.reason == "RuntimeError: cannot reach https://hub/x"
    assert record.last_lines == [f"Authorization: Bearer {HIDDEN}"]


def test_an_address_in_any_record_is_written_without_credentials(tmp_path: Path) -> None:
    write_record(tmp_path, replace(base_record(), source="from https://me:pass@hub/x?key=1"))
    assert read_record(tmp_path, BaseRecord).source == "from https://hub/x"


def test_an_old_record_with_a_password_is_mirrored_without_it() -> None:
    old: TrialRecord = replace(
        example_study().trials[0],
        status=Status.failed, reason="http://u:pass1@h", tracking="http://u:pass1@h: refused",
    )  # fmt: skip
    run = trial_run(old, parent="p")
    assert "pass1" not in str(run)


def test_errors_reach_the_console_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    from lorascope.cli import _errors_as_sentences

    with pytest.raises(SystemExit), _errors_as_sentences():
        raise LorascopeError("cannot read https://me:pass1@hub/x?token=pass2")
    assert capsys.readouterr().err == "lorascope: error: cannot read https://hub/x\n"
