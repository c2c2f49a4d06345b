"""What was read and worked out of records, kept by what it was made of: after one of a thousand
records changed, the others need not be read and compared again.

A key names all that a value depends on, by digests of bytes, so that what is kept is what would be
made. All of it belongs to one state of lorascope's own files. Where the file is damaged, or of
another state, everything is made anew; of two processes that write it, the last one's stays.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import secrets
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import is_dataclass
from enum import Enum
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Value = TypeVar("Value")
Result = TypeVar("Result")
Key = tuple[Hashable, ...]
"""What kind of value it is, and all that it is made of."""

PACKAGE = Path(__file__).parents[1]
SETTLED_SECONDS = 2.0
"""Age from which on a file's times tell it from a later one: some disks count whole seconds."""
COMPUTING = ("numpy", "scipy", "pydantic")
"""Packages that values are read and worked out with."""
MOST_UNUSED = 20_000
"""Values that are kept though the last command had no use for them."""
RECORDS = "lorascope.records."
UNREADABLE = (OSError, ValueError, TypeError, AttributeError, ImportError, EOFError, LookupError)
"""What reading a file raises that somebody else wrote."""
ARRAYS = {("array", "array"), ("array", "_array_reconstructor")}


class Kept:
    """Values by their keys, and those that were asked for."""

    def __init__(self, path: Path, state: str, trusts_times: bool) -> None:
        """`state` is of lorascope's files."""
        self.path, self.state, self.trusts_times = path, state, trusts_times
        self.values = _read(path, state)
        self.used: dict[Key, None] = {}
        self.made: dict[Key, Any] = {}

    def value(self, key: Key, make: Callable[[], T]) -> T:
        self.used[key] = None
        if key not in self.values:
            self.values[key] = self.made[key] = make()
        found: T = self.values[key]
        return found

    def write(self) -> None:
        """What was asked for last comes first, so that the rest goes by age."""
        rest = islice((key for key in self.values if key not in self.used), MOST_UNUSED)
        values = {key: self.values[key] for key in chain(self.used, rest)}
        content = pickle.dumps(values, protocol=pickle.HIGHEST_PROTOCOL)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            with scratch.open("wb") as stream:
                stream.write(f"{self.state} {hashlib.sha256(content).hexdigest()}\n".encode())
                stream.write(content)
            # To wait for the disk costs more than to make it again, and its digest shows damage.
            os.replace(scratch, self.path)
        except OSError:
            scratch.unlink(missing_ok=True)
            raise


_open: ContextVar[Kept | None] = ContextVar("_open", default=None)


@contextmanager
def keeping(path: Path, *, trusts_times: bool) -> Iterator[None]:
    """Inside the block `kept` finds what is in the file `path`, which then has what was new too.

    Args:
        trusts_times: whether a file with the size and the times that it had is the same file.
    """
    state = code_state()
    if state is None:
        yield
        return
    store = Kept(path, state, trusts_times)
    token = _open.set(store)
    try:
        yield
    finally:
        _open.reset(token)
    if store.made:
        # Where nothing can be kept, it is made again.
        with suppress(OSError):
            store.write()


def kept(key: Key | None, make: Callable[[], T]) -> T:
    """What `make` returns, or returned for this key; without a key it is made each time."""
    store = _open.get()
    return make() if store is None or key is None else store.value(key, make)


def map_kept(
    work: Callable[[Value], Result],
    values: Sequence[Value],
    show: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """As `map_forked`, for work that asks for kept values: what forks make is kept too, and none is
    started before enough had to be made."""
    from lorascope.machine.forks import LEAST_VALUES, map_forked

    store = _open.get()
    if store is None:
        return map_forked(work, values, show)
    total, found, before = len(values), [], len(store.made)
    for number, value in enumerate(values, start=1):
        if len(store.made) - before >= LEAST_VALUES:
            break
        found.append(work(value))
        if show:
            show(number, total)
    done = len(found)

    def noted(value: Value) -> tuple[Result, dict[Key, Any], list[Key]]:
        store.made, store.used = {}, {}
        result = work(value)
        return result, store.made, list(store.used)

    def shown(number: int, rest: int) -> None:
        if show:
            show(done + number, done + rest)

    made, used = store.made, store.used
    try:
        for result, new, asked in map_forked(noted, values[done:], shown):
            found.append(result)
            made |= new
            used |= dict.fromkeys(asked)
    finally:
        store.made, store.used = made, used
        store.values |= made
    return found


def kept_sha256(path: Path, read: Callable[[Path], str]) -> str:
    """The digest of a file's bytes, by `read` or, where times are trusted, known by them."""
    store = _open.get()
    if store is None or not store.trusts_times:
        return read(path)
    # Before it is read: what changes it meanwhile gives it other times than these.
    found = path.stat()
    times = found.st_mtime_ns, found.st_ctime_ns
    if time.time() - max(times) / 1e9 < SETTLED_SECONDS:
        return read(path)
    key = ("file", str(path), found.st_dev, found.st_ino, found.st_size, *times)
    return store.value(key, lambda: read(path))


def code_state() -> str | None:
    """A digest over names, sizes and times of lorascope's own files, and of the versions of what
    computes; None where a file is so young that this process may have read another one."""
    # Commands that keep nothing do not wait for these.
    from importlib.metadata import version

    import psutil

    versions = sys.version, *map(version, COMPUTING)
    digest, youngest = hashlib.sha256(repr(versions).encode()), 0
    for name, *numbers in file_states(PACKAGE):
        digest.update(f"{name} {numbers}\n".encode())
        youngest = max(youngest, numbers[1])
    is_settled = psutil.Process().create_time() - youngest / 1e9 > SETTLED_SECONDS
    return digest.hexdigest() if is_settled else None


def file_states(
    place: Path, left_out: frozenset[str] = frozenset({"__pycache__"})
) -> Iterator[tuple[str, int, int, int]]:
    """Of all files below `place`: name, bytes, and nanoseconds at which its content and its name
    were written."""
    for folder, inner, names in os.walk(place, followlinks=True):
        inner[:] = sorted(set(inner) - left_out)
        for name in sorted(names):
            yield file_state(os.path.join(folder, name))


def file_state(path: str) -> tuple[str, int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        # A broken link, or it went while we looked.
        return path, -1, 0, 0
    return path, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(path: Path, state: str) -> dict[Key, Any]:
    """What the file holds; nothing where it is not what this state of lorascope wrote."""
    try:
        with path.open("rb") as stream:
            written, _, digest = stream.readline().decode().strip().partition(" ")
            content = stream.read() if written == state else b""
        if hashlib.sha256(content).hexdigest() != digest:
            return {}
        values: dict[Key, Any] = _OwnTypes(io.BytesIO(content)).load()
    except (*UNREADABLE, pickle.UnpicklingError):
        return {}
    return values


class _OwnTypes(pickle.Unpickler):
    """Makes nothing but our own records, dataclasses and enumerations, and arrays: a study's folder
    may come from anywhere, and other classes do more when they are made."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ARRAYS:
            return super().find_class(module, name)
        if (module, name) == ("builtins", "getattr"):
            return _member
        found = super().find_class(module, name) if module.startswith("lorascope.") else None
        # What a module of ours imports is not ours.
        if not isinstance(found, type) or not found.__module__.startswith("lorascope."):
            raise pickle.UnpicklingError(f"{module}.{name}")
        is_record = found.__module__.startswith(RECORDS)
        if is_record or is_dataclass(found) or issubclass(found, Enum):
            return found
        raise pickle.UnpicklingError(f"{module}.{name}")


def _member(owner: object, name: str) -> Enum:
    """What some releases of Python 3.11 write `getattr` for: a member of an enumeration."""
    if isinstance(owner, type) and issubclass(owner, Enum):
        return owner[name]
    raise pickle.UnpicklingError(f"getattr of {owner!r}")
