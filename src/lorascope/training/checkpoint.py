"""Checkpoints of a pack: safetensors and JSON, each whole or not there: after a kill at any moment
there is the one before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.trainer import TRAINER_STATE_NAME

from lorascope.files.store import replaced_folder
from lorascope.meters.tracker import unwrapped
from lorascope.training.checkpoint_files import LOG, PREFIX, TENSORS, checkpoints, sign_checkpoint
from lorascope.training.log import PackLog
from lorascope.training.optimizer import rows_of

if TYPE_CHECKING:
    from lorascope.training.loop import PackedTrainer

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""AdamW's state of a parameter."""


def save_checkpoint(trainer: PackedTrainer, folder: Path, log: PackLog) -> None:
    """Write values, moments, schedule and losses as of the trainer's step; older ones go."""
    target = folder / f"{PREFIX}{trainer.state.global_step}"
    with replaced_folder(target) as scratch:
        save_file({name: t.contiguous() for name, t in _tensors(trainer)}, scratch / TENSORS)
        schedule = trainer.lr_scheduler.state_dict()
        facts = {"schedule": schedule, "log": log.state()}
        (scratch / LOG).write_text(json.dumps(facts), encoding="utf-8")
        trainer.state.save_to_json(str(scratch / TRAINER_STATE_NAME))
        sign_checkpoint(scratch)
    for older in checkpoints(folder):
        if older != target:
            shutil.rmtree(older)


def load_checkpoint(trainer: PackedTrainer, folder: Path, log: PackLog) -> None:
    """Bring trainer and log to where the checkpoint was taken."""
    stored = load_file(folder / TENSORS)
    inner = unwrapped(trainer.optimizer)
    for row in rows_of(inner):
        inner.state[row] = {name: torch.zeros_like(row) for name in MOMENTS[1:]}
        inner.state[row]["step"] = torch.tensor(0.0)
    with torch.no_grad():
        for name, tensor in _tensors(trainer):
            # A trial without a finite gradient so far has no moments: they are zero.
            if name in stored:
                tensor.copy_(stored[name])
    facts: dict[str, Any] = json.loads((folder / LOG).read_text(encoding="utf-8"))
    trainer.lr_scheduler.load_state_dict(facts["schedule"])
    for group, rate in zip(inner.param_groups, trainer.lr_scheduler.get_last_lr(), strict=True):
        group["lr"] = rate
    log.restore(facts["log"])


def _tensors(trainer: PackedTrainer) -> Iterator[tuple[str, Tensor]]:
    inner = unwrapped(trainer.optimizer)
    for index, row in enumerate(rows_of(inner)):
        yield f"{index}.values", row.detach()
        for name, moment in inner.state[row].items():
            yield f"{index}.{name}", moment
    for index, best in enumerate(trainer.model.best_rows()):
        yield f"{index}.best", best
    if trainer.scales is not None:
        yield "loss_scales", trainer.scales.scales
        yield "good_steps", trainer.scales.good_steps
