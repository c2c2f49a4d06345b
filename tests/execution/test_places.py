"""What no node of a cluster can ever hold is refused before it waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorascope.config import EngineConfig, EngineKind
from lorascope.errors import ConfigError
from lorascope.execution.places import Node
from lorascope.execution.slurm.nodes import nodes_of, require_slurm_node

SAID = """\
main*|2|8000|(null)
main*|4|16000|(null)
gpu|8|64000|gpu:a100:2(S:0-1),gpu:t4:1
two|4|4000|(null)
two|2|16000|gpu:1
"""
MEBIBYTE = 2**20


def test_nodes_are_those_of_the_partition_or_of_the_default_one() -> None:
    assert nodes_of(SAID, None) == [Node(2, 0, 8000 * MEBIBYTE), Node(4, 0, 16000 * MEBIBYTE)]
    assert nodes_of(SAID, "gpu") == [Node(8, 3, 64000 * MEBIBYTE)]


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (EngineConfig(cpus=5), r"engine\.cpus=.*default partition.*4 at most.*engine\.cpus=4"),
        (EngineConfig(gpus=1), r"engine\.gpus=.*none has any\. Have a node with some"),
        (
            EngineConfig(memory_gb=17.0),
            r"memory_gb=.*16\.\d* at most.*memory_gb=16\.7",
        ),
        (EngineConfig(partition="gpu", gpus=4), r"engine\.gpus=.*nodes of gpu.*3 at most"),
        (EngineConfig(cpus=4, memory_gb=8.0), None),
        (EngineConfig(cpus=3, memory_gb=8.0, partition="two"), r"memory_gb='8'.*4\.19\d* at most"),
        (
            EngineConfig(cpus=3, gpus=1, partition="two"),
            r"cpus='3'.*none has that with .*gpus=1",
        ),
        (EngineConfig(partition="unknown", cpus=99), None),
    ],
)
def test_what_sinfo_says_that_no_node_has_is_refused(
    asked: EngineConfig, problem: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "sinfo"
    program.write_text(f"#!/bin/sh\nprintf '%s' '{SAID}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    asked.kind = EngineKind.slurm
    if problem is None:
        require_slurm_node(asked)
    else:
        with pytest.raises(ConfigError, match=problem):
            require_slurm_node(asked)
