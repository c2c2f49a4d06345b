"""B2 of the GPU check: the carried study anew in a fresh folder, held against its CPU records."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# As the command line does: nothing here is compiled.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

from benchmarks.gpu_check.lines import Lines
from lorascope.cli import run_named
from lorascope.config import Config
from lorascope.errors import LorascopeError
from lorascope.files.layout import RECORD, Layout
from lorascope.study.grid import expand, with_overrides
from lorascope.study.params import declared_overrides

LARGEST_GAP_NATS = 0.03
"""Between losses of one trial on two devices. The default study's seeds differ by more."""
STANDARD_ERRORS = 2.0
"""Of an accuracy, by which it may differ."""
STAGES = ("quantize-base", "train-lora", "evaluate")
FIRST_MODE = "nf4"


@dataclass(frozen=True)
class Scores:
    """What is compared of a trial, or of the bare base."""

    losses_nats: dict[str, float]
    accuracies: dict[str, tuple[float, float]]
    """Accuracy and its standard error by split."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check.study")
    parser.add_argument("--carried", type=Path, required=True, help="folder that `carry` made")
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    return parser.parse_args()


def main() -> None:
    """Run the study mode by mode, and tell each trial's differences as soon as it is scored."""
    given = arguments()
    lines = Lines(given.lines)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as scratch:
        layout = fresh_project(Layout(given.carried), Path(scratch) / "study")
        configs = configurations(layout, f"runtime.device={given.device}")
        known = scores_by_name(Layout(given.carried))
        for mode in sorted({c.quant.name for c in configs}, key=lambda own: own != FIRST_MODE):
            chosen = [config for config in configs if config.quant.name == mode]
            run_stages(layout, STAGES, chosen)
            for name, found in sorted(scores_by_name(layout).items()):
                if name.startswith(f"{mode}/"):
                    lines.add("study", "trial", name=name, **compared(found, known.get(name)))
        lines.add("study", "merge", **merged(layout, configs))


def fresh_project(carried: Layout, root: Path) -> Layout:
    """A project with the carried base and data, and nothing trained: trials that are there would
    not be trained again."""
    shutil.copytree(carried.root, root, ignore=shutil.ignore_patterns("experiments"))
    return Layout(root)


def configurations(layout: Layout, *overrides: str) -> list[Config]:
    """All points of the project's params.yaml."""
    fixed = ["runtime.tracking=false", *overrides]
    return expand(layout, with_overrides(declared_overrides(layout), fixed))


def run_stages(layout: Layout, stages: Iterable[str], configs: Sequence[Config]) -> None:
    """Run commands one after the other, in this process."""
    for stage in stages:
        run_named(stage, configs, layout, {}, [])


def merged(layout: Layout, configs: Sequence[Config]) -> dict[str, object]:
    """Whether the trial that is shipped was merged and passed its check."""
    try:
        run_stages(layout, ["merge"], configs)
    except LorascopeError as error:
        return {"passed": False, "failure": str(error)}
    return {"passed": True}


def scores_by_name(layout: Layout) -> dict[str, Scores]:
    """Losses and accuracies by mode and name: the hash at its end depends on the base's bytes,
    which another device may have quantized otherwise."""
    found: dict[str, Scores] = {}
    # As they lie there: of carried records the files that they name stayed where they were made.
    for path in sorted((layout.root / "experiments").glob(f"*/*/*/{RECORD}")):
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        name = f"{path.parts[-3]}/{path.parts[-2].rpartition('-')[0]}"
        own = found.setdefault(name, Scores({}, {}))
        for split, score in record.get("splits", {}).items():
            own.losses_nats[split] = score["completion_loss_nats"]
            if score["accuracy"] is not None:
                own.accuracies[split] = score["accuracy"], score["accuracy_standard_error"]
        if result := record.get("result"):
            own.losses_nats["training"] = result["train_loss_nats"]
            own.losses_nats["validation in training"] = result["validation_loss_nats"]
    return found


def compared(found: Scores, known: Scores | None) -> dict[str, object]:
    """Differences of a trial to its CPU record, and whether they are small."""
    if known is None:
        return {"passed": False, "failure": "there is no CPU record of this name"}
    if found.losses_nats.keys() != known.losses_nats.keys():
        return {"passed": False, "failure": f"has {sorted(found.losses_nats)} of losses"}
    gaps = {name: found.losses_nats[name] - known.losses_nats[name] for name in found.losses_nats}
    errors = {}
    for split, (accuracy, _) in found.accuracies.items():
        expected, standard_error = known.accuracies[split]
        # Where all or none are right the binomial's error is 0: equal is then asked for.
        gap = accuracy - expected
        errors[split] = 0.0 if gap == 0 else gap / standard_error if standard_error else 1e9
    largest = max(map(abs, gaps.values()))
    furthest = max(map(abs, errors.values()), default=0.0)
    return {
        "passed": largest <= LARGEST_GAP_NATS and furthest <= STANDARD_ERRORS,
        "loss_gaps_nats": gaps, "gaps_in_standard_errors": errors,
        "accuracies": {split: own for split, (own, _) in found.accuracies.items()},
    }  # fmt: skip


if __name__ == "__main__":
    main()
