"""Checkpoints of a pack: safetensors and JSON, each whole or not there, so that after a kill at any
moment there is the one before.

A digest of its files says whether a checkpoint is whole. That much is asked without torch, by
whoever plans a sweep; torch is imported where tensors are saved and loaded.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorascope.files.replacing import apply_umask, replaced_folder
from lorascope.files.store import sha256_of_files

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lorascope.training.log import PackLog
    from lorascope.training.loop import StepEnd, StepParts

PREFIX = "checkpoint-"
TENSORS, LOG, DIGEST = "pack.safetensors", "pack.json", "sha256"
CONTENT = ("*.safetensors", "*.json")
"""Files that the digest covers."""
MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's state of a parameter, beside its counter of steps."""


def sign_checkpoint(folder: Path) -> None:
    """Write the digest of a checkpoint's files beside them; the umask says who may read them."""
    apply_umask(folder)
    (folder / DIGEST).write_text(sha256_of_files(folder, CONTENT), encoding="ascii")


def last_checkpoint(folder: Path | None) -> Path | None:
    """The one with most steps of those that are whole; None where there is none."""
    whole = [path for path in checkpoints(folder) if is_whole(path)]
    return whole[-1] if whole else None


def checkpoints(folder: Path | None) -> list[Path]:
    """All in `folder`, whole or not, by steps: no clock is asked which came last."""
    found = folder.glob(f"{PREFIX}*") if folder is not None and folder.is_dir() else []
    named = [path for path in found if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(named, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The steps that were trained until then."""
    return int(checkpoint.name.removeprefix(PREFIX))


def is_whole(checkpoint: Path) -> bool:
    """Whether its files are those that were saved: a cut one may load, and train on nonsense."""
    signed = checkpoint / DIGEST
    if not signed.is_file():
        return False
    return signed.read_bytes() == sha256_of_files(checkpoint, CONTENT).encode()


class PackCheckpoints:
    """Saves a training's values, moments, schedule and losses, and brings them back. As an observer
    it stands last: what it saves is what the other observers left.

    Args:
        folder: where checkpoints lie; None keeps none.
        every: steps between two of them; 0 saves when somebody asks the training to stop.
    """

    def __init__(
        self,
        folder: Path | None,
        every: int,
        parts: StepParts,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        log: PackLog,
    ) -> None:
        self._folder, self._every = folder, every
        self._parts, self._schedule, self._log = parts, schedule, log

    def after_step(self, end: StepEnd) -> None:
        """Save where that is due or asked for. The end of a training is no checkpoint: going on
        from there would train nothing."""
        due = end.save or (not end.stop and self._every and end.step % self._every == 0)
        if due and self._folder is not None:
            self._parts.ranks.first(partial(self._save, self._folder, end.step))

    def resume(self) -> int:
        """Load the last whole checkpoint; the step to go on from, which is 0 without one."""
        last = last_checkpoint(self._folder)
        if last is not None:
            self._load(last)
        return 0 if last is None else step_of(last)

    def _save(self, folder: Path, step: int) -> None:
        """Write a checkpoint; older ones go."""
        from safetensors.torch import save_file

        target = folder / f"{PREFIX}{step}"
        with replaced_folder(target) as scratch:
            save_file({name: t.contiguous() for name, t in self._tensors()}, scratch / TENSORS)
            facts = {"schedule": self._schedule.state_dict(), "log": self._log.state()}
            (scratch / LOG).write_text(json.dumps(facts), encoding="utf-8")
            sign_checkpoint(scratch)
        for older in checkpoints(folder):
            if older != target:
                shutil.rmtree(older)

    def _load(self, checkpoint: Path) -> None:
        import torch
        from safetensors.torch import load_file

        stored, optimizer = load_file(checkpoint / TENSORS), self._parts.optimizer
        for group in optimizer.param_groups:
            (row,) = group["params"]
            # A fused optimizer wants its counter where the values are.
            optimizer.state[row] = {"step": torch.zeros((), device=row.device)}
            optimizer.state[row] |= {name: torch.zeros_like(row) for name in MOMENTS}
        with torch.no_grad():
            for name, tensor in self._tensors():
                # A trial without a finite gradient so far has no moments: they are zero.
                if name in stored:
                    tensor.copy_(stored[name])
        facts: dict[str, Any] = json.loads((checkpoint / LOG).read_text(encoding="utf-8"))
        self._schedule.load_state_dict(facts["schedule"])
        rates = self._schedule.get_last_lr()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._log.restore(facts["log"])

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        parts = self._parts
        for index, group in enumerate(parts.optimizer.param_groups):
            (row,) = group["params"]
            yield f"{index}.values", row.detach()
            for name, moment in parts.optimizer.state[row].items():
                yield f"{index}.{name}", moment
        for index, best in enumerate(parts.pack.best_rows):
            yield f"{index}.best", best
        for index, constant in enumerate(parts.pack.stack.constants):
            yield f"{index}.constant", constant
        if parts.scales is not None:
            yield "loss_scales", parts.scales.scales
            yield "good_steps", parts.scales.good_steps
