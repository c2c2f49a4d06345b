"""Forked work: the same results, whoever does it, and whatever becomes of the fork."""

from __future__ import annotations

import subprocess
import sys

import psutil

# In a process of its own: the one that runs the tests has threads, and forks nothing.
PROGRAM = """
import os, sys, time
from lorascope.machine import forks

forks._cores = lambda: 1 if forks.multiprocessing.parent_process() else 2
forks.LEAST_VALUES = 1
own = os.getpid()

def fails(value):
    if value == 3:
        raise ValueError("three", value)
    return value

shown = []
assert forks.map_forked(lambda v: v * v, range(7), lambda *at: shown.append(at)) == [
    0, 1, 4, 9, 16, 25, 36
]
assert shown == [(2, 7), (4, 7), (7, 7)], shown
first, other = forks.map_forked(
    lambda _: [os.getpid(), *forks.map_forked(lambda _: os.getpid(), "ab")], "ab"
)
assert first[:2] == [own, own] and first[2] != own
assert len({own, *other}) == 2, "a fork forks no further"
try:
    forks.map_forked(fails, [1, 2, 4, 3])
except ValueError as error:
    assert error.args == ("three", 3)
else:
    raise AssertionError
# One that the system kills, one whose result does not pickle, one that nobody waits for.
assert forks.Forked(lambda: own if os.getpid() == own else os.kill(os.getpid(), 9)).result() == own
assert forks.Forked(lambda: (lambda: own)).result()() == own
start = time.monotonic()
forks.Forked(lambda: time.sleep(60)).end()
assert time.monotonic() - start < 30
print("printed once")
"""

REPORTS = """
from lorascope.comparing.findings import compare
from lorascope.machine import forks
from lorascope.reporting.catalogue import report_files
from tests.study_factory import example_study

forks.LEAST_VALUES = 1
made = []
for cores in (1, 3):
    forks._cores = lambda: 1 if forks.multiprocessing.parent_process() else cores
    study = example_study()
    made.append(report_files(study, compare(study)))
assert made[0] == made[1]
"""


ORPHAN = """
import time
from lorascope.machine import forks

forks._cores = lambda: 1 if forks.multiprocessing.parent_process() else 2
work = forks.Forked(lambda: time.sleep(0.5) or bytes(1 << 20))
print(work._process.pid, flush=True)
time.sleep(60)
"""


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_forked_work_gives_what_undivided_work_gives() -> None:
    assert run(PROGRAM) == "printed once\n"


def test_reports_are_the_same_however_many_processes_make_them() -> None:
    run(REPORTS)


def test_a_fork_ends_when_its_parent_was_killed_and_nobody_takes_its_answer() -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    fork = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    # More than a pipe holds: without an end it would wait to write it.
    psutil.wait_procs([fork], timeout=20)
    assert not fork.is_running() or fork.status() == psutil.STATUS_ZOMBIE
