"""What is kept is what would be made, and anything else is made anew."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any

import pytest

from lorascope.comparing.results import Estimate, Measure
from lorascope.files import kept as kept_file
from lorascope.files.kept import Kept, code_state, keeping, kept, kept_sha256
from lorascope.records import SplitScore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "private" / "kept"


def _twice(path: Path, value: object, key: tuple[object, ...] = ("one", 1.5)) -> int:
    """How often it is made in two commands."""
    made: list[object] = []

    def make() -> object:
        made.append(value)
        return value

    for _ in range(2):
        with keeping(path, trusts_times=False):
            assert kept(key, make) == value
    return len(made)


def test_a_value_is_made_once_for_its_key(path: Path) -> None:
    assert _twice(path, SplitScore(2, 0.5, None, 1.0)) == 1
    assert _twice(path, None, ("another",)) == 1
    assert _twice(path, array("d", [0.1, float("inf")]), ("numbers",)) == 1
    with keeping(path, trusts_times=False):
        # Without a key it is made each time, and so it is outside.
        assert kept(None, lambda: 7) == 7
    assert kept(("one", 1.5), lambda: 8) == 8


def test_another_state_of_lorascope_reads_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _twice(path, "old")
    monkeypatch.setattr(kept_file, "code_state", lambda: "another")
    assert _twice(path, "new") == 1
    # Where the code may be newer than what runs, nothing is kept at all.
    monkeypatch.setattr(kept_file, "code_state", lambda: None)
    assert _twice(path, "young") == 2


def test_the_state_is_that_of_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_file, "PACKAGE", tmp_path)
    place = tmp_path / "room" / "code.py"
    place.parent.mkdir()
    place.write_text("1")
    assert code_state() is None
    os.utime(place, (1e9, 1e9))
    before = code_state()
    assert before is not None
    assert before == code_state()
    place.write_text("2")
    os.utime(place, (1e9, 1e9))
    assert code_state() not in (None, before)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-1],
        lambda whole: whole[:70],
        lambda whole: b"",
        lambda whole: b"\xff" + whole,
        lambda whole: whole.replace(b"value", b"valve"),
    ],
)
def test_damage_costs_only_time(path: Path, damage: Any) -> None:
    _twice(path, "value")
    path.write_bytes(damage(path.read_bytes()))
    assert _twice(path, "value") == 1


class _Harm:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.mark),)


def test_a_file_from_elsewhere_runs_nothing(path: Path, tmp_path: Path) -> None:
    content = pickle.dumps({("one", 1.5): _Harm(tmp_path / "mark")})
    path.parent.mkdir()
    head = f"{code_state()} {hashlib.sha256(content).hexdigest()}\n".encode()
    path.write_bytes(head + content)
    assert _twice(path, "mine") == 1
    assert not (tmp_path / "mark").exists()
    # Nor what a module of ours has imported, nor a class of ours that is more than its values.
    for content in (
        b"\x80\x04clorascope.files.store\nPath\n(V/tmp\ntR.",
        b"\x80\x04clorascope.files.kept\nKept\n.",
    ):
        digest = hashlib.sha256(content).hexdigest()
        path.write_bytes(f"{code_state()} {digest}\n".encode() + content)
        with keeping(path, trusts_times=False):
            assert kept(("one", 1.5), lambda: 5) == 5


class _Attribute:
    """Pickled as Python 3.11.2 pickles a member of an enumeration."""

    def __init__(self, owner: type, name: str) -> None:
        self.owner, self.name = owner, name

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return getattr, (self.owner, self.name)


@pytest.mark.parametrize(
    ("attribute", "made"),
    [((Measure, "accuracy"), 0), ((Measure, "other"), 1), ((Estimate, "__init__"), 1)],
)
def test_attributes_are_members_of_enumerations_alone(
    path: Path, attribute: tuple[type, str], made: int
) -> None:
    content = pickle.dumps({("one", 1.5): _Attribute(*attribute)})
    path.parent.mkdir()
    head = f"{code_state()} {hashlib.sha256(content).hexdigest()}\n".encode()
    path.write_bytes(head + content)
    asked = []
    with keeping(path, trusts_times=False):
        found = kept(("one", 1.5), lambda: asked.append(1))
    assert len(asked) == made
    assert made or found is Measure.accuracy


def test_of_two_that_write_the_last_one_stays_whole(path: Path) -> None:
    first, second = (Kept(path, "state", False) for _ in range(2))
    for store in (first, second):
        store.value(("shared",), lambda: 1)
        store.value(("own", id(store)), lambda: 2)
    first.write()
    second.write()
    assert Kept(path, "state", False).values == second.values
    assert [one.name for one in path.parent.iterdir()] == ["kept"]


def test_what_is_asked_for_no_more_goes_by_age(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_file, "MOST_UNUSED", 2)
    for number in range(5):
        store = Kept(path, "state", False)
        store.value((number,), lambda: "value")
        store.write()
    assert list(Kept(path, "state", False).values) == [(4,), (3,), (2,)]


# In a process of its own: the one that runs the tests has threads, and forks nothing.
FORKING = """
import os, sys
from pathlib import Path
from lorascope.files.kept import kept, keeping, map_kept
from lorascope.machine import forks

forks._cores = lambda: 1 if forks.multiprocessing.parent_process() else 2
path, numbers = Path(sys.argv[1]), range(4 * forks.LEAST_VALUES)

def work(number):
    return kept(("square", number), lambda: (number**2, os.getpid()))

shown = []
with keeping(path, trusts_times=False):
    found = map_kept(work, numbers, lambda *done: shown.append(done))
assert [square for square, _ in found] == [number**2 for number in numbers]
with keeping(path, trusts_times=False):
    assert map_kept(work, numbers) == found
assert {total for _, total in shown} == {len(numbers)}, shown
processes = [process for _, process in found]
# Those that are made before it is known that there are many.
assert set(processes[: forks.LEAST_VALUES]) == {os.getpid()}
assert len(set(processes)) == 2
"""


def test_what_forks_made_is_kept(path: Path) -> None:
    subprocess.run([sys.executable, "-c", FORKING, str(path)], check=True)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_known_by_its_times_only_where_they_tell_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, reads = tmp_path / "items", []
    file.write_bytes(b"1")

    def read(place: Path) -> str:
        reads.append(place)
        return _sha256(place)

    def digest(trusts_times: bool = True) -> str:
        with keeping(path, trusts_times=trusts_times):
            return kept_sha256(file, read)

    # It is so young that it may change without other times.
    assert digest() == digest() == _sha256(file)
    assert len(reads) == 2
    monkeypatch.setattr(kept_file, "SETTLED_SECONDS", -1.0)
    assert digest() == digest()
    assert len(reads) == 3
    former = file.stat()
    file.write_bytes(b"2")
    # Whoever sets back the time of its content cannot set back that of its name.
    os.utime(file, ns=(former.st_atime_ns, former.st_mtime_ns))
    assert digest() == _sha256(file) == digest(trusts_times=False)
    assert len(reads) == 5
