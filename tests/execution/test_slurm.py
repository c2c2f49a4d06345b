"""Packs as jobs of Slurm: a small cluster on this computer, its nodes, jobs and heads killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest

from lorascope.files.layout import Layout
from tests.command_line import lorascope
from tests.conftest import BASE_OVERRIDES
from tests.execution.cluster_study import items, results, start, wait
from tests.slurm_cluster import Cluster, cluster, missing_programs

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(missing_programs()),
        reason="no Slurm here: apt-get install slurmctld slurmd slurm-client munge",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemons are started by root"),
]
EVERY = 20
"""Steps between two checkpoints."""
SWEEP = (
    "quant=nf4", "lora.rank=1,4", "lora.alpha=8", "seed=970,971", "train.steps=400",
    f"train.checkpoint_every_steps={EVERY}", "runtime.threads=1",
)  # fmt: skip
COMMAND = ("train-lora", "-m", *BASE_OVERRIDES, *SWEEP)
BY_SLURM = ("engine=slurm", "engine.jobs_at_once=2", "engine.memory_gb=1.5")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("slurm") / "run") as made:
        yield made


def steps(layout: Layout) -> list[list[int]]:
    """The steps that each job has told of, in their order."""
    told = []
    for path in sorted(layout.jobs.glob("*/events.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines(keepends=False)]
        told.append([line["step"] for line in lines if "step" in line])
    return told


def test_what_is_killed_on_the_way_ends_with_the_bits_of_one_computer_and_is_trained_once(
    project: Layout, shared: Layout, slurm: Cluster
) -> None:
    assert lorascope(project, *COMMAND).returncode == 0
    head = start(shared, *COMMAND, *BY_SLURM)
    wait(lambda: [bool(one) and max(one) > EVERY for one in steps(shared)] == [True, True], head)
    # The head is lost, and its jobs go on.
    os.killpg(head.pid, signal.SIGKILL)
    head.wait()
    assert not results(shared)
    before = slurm.states()
    assert [state.split()[0] for state in before.values()] == ["RUNNING"] * 2
    nodes = {state.split()[1]: job for job, state in before.items()}
    head = start(shared, *COMMAND, *BY_SLURM)
    # A node is lost with its job.
    slurm.kill_node("b")
    slurm.ask("scontrol", "update", "NodeName=b", "State=DOWN", "Reason=lost")
    # The other one is preempted: saved, and back in the queue.
    slurm.ask("scancel", "--signal=USR2", nodes["a"])
    wait(lambda: slurm.states()[nodes["b"]].startswith("PENDING"), head)
    slurm.start_node("b")
    slurm.ask("scontrol", "update", "NodeName=b", "State=RESUME")
    told, _ = head.communicate(timeout=180)
    assert head.returncode == 0, told
    assert results(shared) == results(project)
    after = slurm.states()
    assert after.keys() == before.keys()
    for job in after:
        assert "Restarts=1" in slurm.ask("scontrol", "show", "job", job)
    # The trials are scored on nodes, too.
    scored = lorascope(shared, "evaluate", "-m", *BASE_OVERRIDES, *SWEEP, *BY_SLURM)
    assert scored.returncode == 0, scored.stderr
    assert lorascope(project, "evaluate", "-m", *BASE_OVERRIDES, *SWEEP).returncode == 0
    assert items(shared) == items(project)
    # Where all is scored no job waits for a place to find that out.
    before = slurm.states()
    again = lorascope(shared, "evaluate", "-m", *BASE_OVERRIDES, *SWEEP, *BY_SLURM)
    assert again.returncode == 0, again.stderr
    assert slurm.states().keys() <= before.keys()
    assert not [path for path in shared.jobs.iterdir() if path.is_dir() and path.name != "queue"]
