"""Where packs are trained, and what each asks for there: a file of conf/engine."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lorascope.config.bounds import ABOVE_ZERO, BOUND, ONE_OR_MORE, ZERO_OR_MORE, Bound, bounded
from lorascope.config.choices import EngineKind

MINUTES = Bound(
    lambda minutes: minutes >= 4,
    "leaves no time: a pack is saved 90 seconds before its job's end",
    "Take 4 or more; hours are usual.",
)
OPTION = re.compile(r"[a-z][a-z-]*(=.+)?")
OWN_OPTIONS = (
    "array", "cpus-per-task", "error", "gpus-per-node", "job-name", "mem", "nodes",
    "ntasks-per-node", "open-mode", "output", "partition", "signal", "time", "wait",
)  # fmt: skip
"""Options of sbatch that other settings say, or that the engine itself relies on."""
OPTIONS = Bound(
    lambda options: all(
        OPTION.fullmatch(option) and option.partition("=")[0] not in OWN_OPTIONS
        for option in options
    ),
    f"takes options of sbatch without their dashes, and none of {', '.join(OWN_OPTIONS)}",
    "Write options: [account=lab, exclusive]; time is engine.minutes, mem is engine.memory_gb.",
)


@dataclass
class EngineConfig:
    """No part of a trial's identity: the same adapters come from everywhere."""

    kind: EngineKind = EngineKind.local
    jobs_at_once: int = bounded(8, ONE_OR_MORE, "Take about twice as many as there are places.")
    """The most packs that stand in the queue or run, each a job."""
    address: str = "auto"
    """Of Ray's cluster; auto finds that of this computer."""
    retries: int = bounded(3, ZERO_OR_MORE)
    """How often Ray begins a pack again that is lost with its worker or its node."""
    cpus: int = bounded(1, ONE_OR_MORE)
    """Of each job; as many threads as runtime.threads names train, or else one for each."""
    gpus: int = bounded(0, ZERO_OR_MORE)
    memory_gb: float | None = bounded(None, ABOVE_ZERO, "Leave it empty for what the plan says.")
    """RAM of each job; None asks for what its pack is predicted to need."""
    minutes: int = bounded(240, MINUTES)
    """The longest that a job runs at a time: shortly before, its pack is saved, waits in the queue
    again, and goes on."""
    partition: str | None = None
    """None takes the cluster's own default."""
    options: list[str] = field(default_factory=list, metadata={BOUND: OPTIONS})
    """Further options of sbatch."""
