"""What the seconds of a run were spent on, as far as records and imports tell it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.measure import TOOLS, Command, seconds_in_sequence
from benchmarks.workload import BARE_SCRIPT, MODE, Workload, environment

OUR_IMPORTS = (
    "import os; os.environ['TORCHDYNAMO_DISABLE'] = '1';"
    "import lorascope.execution.local.preloaded; os._exit(0)"
)
"""As the fork server does it, which is killed in the end."""
BARE_IMPORTS = "import bare_script"


@dataclass(frozen=True)
class Parts:
    """Seconds of the pack that trained longest: others ran beside it or did not exist."""

    load: float
    """Of base and tokenizer."""
    steps: float
    validation: float
    """Of all its trials."""


def trained_parts(root: Path, trials: str = "*", mode: str = MODE) -> Parts:
    """By the records of the trials in `root` whose names match."""
    folder = root / "experiments" / "train" / mode
    texts = [path.read_text(encoding="utf-8") for path in folder.glob(f"{trials}/record.json")]
    return longest_pack([json.loads(text)["result"] for text in texts])


def longest_pack(results: Sequence[dict[str, float]]) -> Parts:
    """Of trials with the same seconds of steps, which makes them a pack: it has one clock."""
    packs: dict[float, list[dict[str, float]]] = {}
    for result in results:
        packs.setdefault(result["train_seconds"], []).append(result)
    pack = packs[max(packs)]
    validation = sum(result["evaluate_seconds"] for result in pack)
    return Parts(pack[0]["load_seconds"], pack[0]["train_seconds"], validation)


def parts_told(parts: Parts, wall: float) -> str:
    """`parts` of a run of `wall` seconds, in words."""
    rest = wall - parts.load - parts.steps - parts.validation
    return (
        f"of {wall:.1f} s steps took {parts.steps:.1f}, loading {parts.load:.1f}, validation "
        f"{parts.validation:.1f} (by the records of the longest pack), all else, imports included, "
        f"{rest:.1f}."
    )


def imports_told(workload: Workload) -> str:
    """Seconds of both sides' imports alone, measured now, in words."""
    python = str(TOOLS / "python")
    ours = Command((python, "-c", OUR_IMPORTS), workload.folder, environment(workload.threads))
    bare = Command(
        (python, "-c", BARE_IMPORTS), BARE_SCRIPT.parent, environment(workload.bare_threads)
    )
    seconds = [seconds_in_sequence([command]) for command in (ours, bare)]
    return f"Imports alone: lorascope {seconds[0]:.1f} s, bare {seconds[1]:.1f} s a script."


def medians(**sides: list[float]) -> str:
    """Of each side's seconds, in words."""
    told = (f"{name} {median(seconds):.1f} s" for name, seconds in sides.items())
    return "Medians: " + ", ".join(told) + "."
