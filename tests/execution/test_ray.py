"""Packs as tasks of Ray: a small cluster on this computer, its nodes, workers and heads killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import psutil
import pytest

from lorascope.errors import ConfigError
from lorascope.execution.ray.connection import connect
from lorascope.files.layout import Layout
from tests.command_line import lorascope
from tests.conftest import BASE_OVERRIDES, compose_one
from tests.execution.cluster_study import items, results, start, wait
from tests.ray_cluster import Cluster, cluster

with_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="no ray here: `make test-ray` makes an environment with it"
)

EVERY = 10
"""Steps between two checkpoints."""
SWEEP = (
    "quant=nf4", "lora.rank=1,4", "lora.alpha=8", "seed=970,971", "train.steps=120",
    f"train.checkpoint_every_steps={EVERY}", "runtime.threads=1",
)  # fmt: skip
COMMAND = ("train-lora", "-m", *BASE_OVERRIDES, *SWEEP)


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


def by_ray(made: Cluster, *words: str) -> list[str]:
    named = f"engine.address={made.address}"
    return ["engine=ray", named, "engine.jobs_at_once=2", "engine.memory_gb=1.5", *words]


def steps(layout: Layout) -> list[int]:
    """The last step that each task has told of."""
    told = []
    for path in layout.jobs.glob("ray/*/events.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        told.append(max([line["step"] for line in lines if "step" in line], default=0))
    return told


def adapters(layout: Layout) -> dict[str, bytes]:
    """What each trial of the sweep learned."""
    folder = layout.trials("nf4")
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for seed in (970, 971)
        for path in folder.glob(f"*-s{seed}-*/adapter/*")
    }


def trained(layout: Layout) -> dict[str, dict[str, Any]]:
    """The results of the trials, but for how many were trained at once: halves are fewer."""
    return {
        name: {key: value for key, value in result.items() if key != "trials_at_once"}
        for name, result in results(layout).items()
    }


def trainers(layout: Layout) -> list[psutil.Process]:
    """The processes that train packs of this project: they hold open what they tell."""
    found = []
    for process in psutil.process_iter():
        try:
            files = [one.path for one in process.open_files()]
        except psutil.Error:
            continue
        if any(name.startswith(str(layout.jobs)) and "at_work" in name for name in files):
            found.append(process)
    return found


def stop_at(head: subprocess.Popen[str], layout: Layout, step: int, number: int) -> str:
    """Signal a head once both packs are beyond a step; what it printed."""
    wait(lambda: [one > step for one in steps(layout)] == [True, True], head)
    os.kill(head.pid, number)
    return head.communicate(timeout=60)[0]


@with_ray
@pytest.mark.ray
@pytest.mark.slow
def test_what_is_stopped_and_killed_on_the_way_ends_with_the_bits_of_one_computer(
    project: Layout, shared: Layout, ray_cluster: Cluster
) -> None:
    assert lorascope(project, *COMMAND).returncode == 0
    train = [*COMMAND, *by_ray(ray_cluster)]
    told = stop_at(start(shared, *train), shared, EVERY, signal.SIGINT)
    assert told.count("saved at step") == 2
    # A head is lost, and its tasks with it.
    stop_at(start(shared, *train), shared, 2 * EVERY, signal.SIGKILL)
    head = start(shared, *train)
    wait(lambda: [one > 3 * EVERY for one in steps(shared)] == [True, True], head)
    # Of two packs one's process is killed, as the system does for want of memory: its halves are
    # tried. Then a node is lost with whatever it does, and another one joins.
    first, _ = trainers(shared)
    first.kill()
    ray_cluster.kill_node(0)
    ray_cluster.start_node()
    told, _ = head.communicate(timeout=60)
    assert head.returncode == 0, told
    assert "a task of Ray was lost" in told
    assert trained(shared) == trained(project)
    assert adapters(shared) == adapters(project)
    # The trials are scored by tasks, too.
    scored = start(shared, "evaluate", "-m", *BASE_OVERRIDES, *SWEEP, *by_ray(ray_cluster))
    told, _ = scored.communicate(timeout=60)
    assert scored.returncode == 0, told
    assert lorascope(project, "evaluate", "-m", *BASE_OVERRIDES, *SWEEP).returncode == 0
    assert items(shared) == items(project)
    assert not [path for path in (shared.jobs / "ray").iterdir() if path.is_dir()]


def test_what_can_never_start_is_refused_with_a_remedy(
    bare_project: Layout, request: pytest.FixtureRequest
) -> None:
    config = compose_one(bare_project, "engine=ray", "engine.address=127.0.0.1:1")
    if find_spec("ray") is None:
        with pytest.raises(ConfigError, match=r"ray is not installed.*lorascope\[ray\]"):
            connect(config.engine)
        return
    with pytest.raises(ConfigError, match=r"does not answer.*ray start --head"):
        connect(config.engine)
    made: Cluster = request.getfixturevalue("ray_cluster")
    config.engine.address, config.engine.cpus = made.address, 3
    with pytest.raises(ConfigError, match=r"engine\.cpus='?3'?.*1 at most.*engine\.cpus=1"):
        connect(config.engine)
    import ray

    ray.shutdown()
