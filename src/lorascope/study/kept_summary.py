"""The last summary, kept beside a stamp of all files that it was made of: reading a thousand trials
takes ten seconds, and mostly nobody wrote to one of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress

import psutil

from lorascope.errors import LorascopeError
from lorascope.files.kept import PACKAGE, SETTLED_SECONDS, Key, file_state, file_states
from lorascope.files.layout import Layout
from lorascope.files.replacing import write_atomically

NOT_READ = frozenset({"raw", "__pycache__"})
"""Folders that no answer is made of: rows and models as they came."""


def kept_summary(layout: Layout, stamp: str | None) -> str | None:
    """The last summary; None where it was made of other files, or none is kept."""
    try:
        found = json.loads(layout.last_summary.read_text())
        return str(found["text"]) if stamp is not None and found["stamp"] == stamp else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def keep_summary(layout: Layout, stamp: str | None, text: str) -> None:
    """`stamp` is that from before anything was read: what changed meanwhile has another one."""
    if stamp is not None:
        content = json.dumps({"stamp": stamp, "text": text})
        # Where nothing can be kept, it is made again.
        with suppress(OSError, LorascopeError):
            write_atomically(layout.last_summary, content.encode())


def files_stamp(layout: Layout, words: Sequence[str]) -> str | None:
    """A sha256 over names, sizes and times of what is declared, prepared and recorded, and of
    lorascope itself; None where they do not tell everything: something was written so shortly
    before this process began, or since, that it may have been read otherwise, or a file of conf/ or
    a word looks into the environment.

    A checkout gives files other times, and another stamp: the answer is then made again. `words`
    are the command's own.
    """
    digest, youngest = hashlib.sha256(repr(list(words)).encode()), 0
    for name, size, written_ns, changed_ns in _files(layout):
        digest.update(f"{name} {size} {written_ns} {changed_ns}\n".encode())
        youngest = max(youngest, written_ns)
    is_settled = psutil.Process().create_time() - youngest / 1e9 > SETTLED_SECONDS
    return digest.hexdigest() if is_settled and not _asks_environment(layout, words) else None


def _files(layout: Layout) -> Iterator[tuple[str, int, int, int]]:
    """Name, bytes, and nanoseconds at which its content and its name were written."""
    yield file_state(str(layout.params))
    prepared = (layout.root / name for name in ("data", "models", "experiments"))
    for place in (*layout.conf_folders, *prepared, PACKAGE):
        yield from file_states(place, NOT_READ)


def points_key(layout: Layout, words: Sequence[str]) -> Key | None:
    """Names the points that are declared, by all that they are made of; None where that lies
    elsewhere too."""
    if _asks_environment(layout, words):
        return None
    # Choices that come with lorascope are its code.
    digest = hashlib.sha256(layout.params.read_bytes())
    for path in sorted(layout.conf.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        digest.update(f"{path.relative_to(layout.conf)} {len(content)}\n".encode() + content)
    return "points", digest.hexdigest(), *words


def _asks_environment(layout: Layout, words: Sequence[str]) -> bool:
    """Whether a value is made of what only the shell knows (`${oc.env:NAME}`)."""
    files = [layout.params, *layout.conf.rglob("*.yaml")]
    said = [*map(str.encode, words), *(file.read_bytes() for file in files if file.is_file())]
    return any(b"oc." in one for one in said)
