"""A trial's adapter in a folder of its own, read back by PEFT alone and held against the trial."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from lorascope.adapters.attach import detach, load_adapter
from lorascope.bases.folder import copy_files, read_json
from lorascope.config import Config, MergeConfig
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer
from lorascope.files.layout import ADAPTER_FILES, Layout
from lorascope.machine.devices import choose_device, use_threads
from lorascope.machine.environment import use_determinism
from lorascope.objectives.evaluation import evaluation_mode, forward_of, summed_loss
from lorascope.objectives.kinds import TokenBatch, objective_of
from lorascope.quantizers.loading import load_base
from lorascope.records import AdapterCheck, ItemResult


def write_adapter(
    folder: Path, adapter: Path, base: Path, base_id: str | None, revision: str | None
) -> None:
    """Copy a saved adapter to `folder`, with the base's tokenizer and chat template beside it.

    Args:
        base: the full-precision base, as prepared.
        base_id: its name on the hub, for adapter_config.json; None keeps the study's name for it.
        revision: its commit there.
    """
    config = read_json(adapter / ADAPTER_FILES[0])
    if base_id is not None:
        config |= {"base_model_name_or_path": base_id, "revision": revision}
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / ADAPTER_FILES[0]).write_text(text, encoding="utf-8")
    shutil.copyfile(adapter / ADAPTER_FILES[1], folder / ADAPTER_FILES[1])
    copy_files(base, folder)


def check_adapter(
    folder: Path, config: Config, layout: Layout, adapter: Path, scored: Sequence[ItemResult] | None
) -> AdapterCheck:
    """Load `folder` with PEFT's own `PeftModel.from_pretrained`, and compare its logits with those
    of the trial's `adapter` as lorascope scores it.

    Args:
        scored: the trial's validation items, apart on its base.
    """
    device = choose_device(config.runtime.device, config.runtime.place)
    use_determinism(config.runtime.deterministic)
    use_threads(config.runtime.threads)
    stored = layout.quantized(config.model.name, config.quant.name)
    rows = read_rows(layout.data(config.model.name, config.data.name) / "validation.jsonl")
    rows = rows[: config.merge.verify_items]
    print(f"comparing what PEFT loads with the trial over {len(rows)} rows", flush=True)
    objective = objective_of([config.train]).as_served()
    samples = objective.validation_samples(rows, load_tokenizer(stored))
    base = load_base(stored, config.quant, device, config.model.attention)
    trial = load_adapter(base, adapter)
    summed, weight = summed_loss(objective, trial, samples, config.evaluate.batch_size)
    batches = [
        objective.collate([sample], 1, 0).to(torch.device(device.kind)) for sample in samples
    ]
    with TemporaryDirectory(dir=folder) as scratch:
        files = [Path(scratch) / f"row-{number}.safetensors" for number in range(len(rows))]
        for batch, file in zip(batches, files, strict=True):
            save_file({"logits": _own_logits(trial, batch)}, file)
        plain = PeftModel.from_pretrained(detach(trial), folder).eval()
        largest = torch.zeros(())
        for batch, file in zip(batches, files, strict=True):
            off = (_plain_logits(plain, batch) - load_file(file)["logits"]).abs().max()
            # Unlike Python's max, torch's keeps a NaN.
            largest = torch.maximum(largest, off)
    return AdapterCheck(len(rows), float(largest), summed / weight, _mean_loss(scored, len(rows)))


def _own_logits(model: Any, batch: TokenBatch) -> Tensor:
    """Logits [places, vocabulary] or [1, classes] as lorascope scores them, float32 on the CPU."""
    with evaluation_mode(model):
        return forward_of(model)(batch, batch.places).all().float().cpu()


def _plain_logits(model: Any, batch: TokenBatch) -> Tensor:
    """The same from the model's own forward pass, which no code of lorascope's takes part in. What
    PEFT puts in front of a prompt has logits of its own, which are passed over."""
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if batch.token_types is not None:
        inputs["token_type_ids"] = batch.token_types
    with evaluation_mode(model):
        logits: Tensor = model(**inputs).logits.float().cpu()
    if logits.dim() == 2:
        return logits
    tokens = batch.input_ids.shape[1]
    own: Tensor = logits[0, -tokens:][batch.places.index.cpu()]
    return own


def _mean_loss(items: Sequence[ItemResult] | None, count: int) -> float | None:
    """Of the first items, nats a token or a class."""
    if not items:
        return None
    first = items[:count]
    return sum(item.loss_nats for item in first) / sum(item.tokens for item in first)


def close_enough(check: AdapterCheck, limits: MergeConfig) -> bool:
    """Whether PEFT alone gives what the trial gives, and the trial what its scores say; nothing
    that is not finite does."""
    scored = check.loss_nats if check.scored_loss_nats is None else check.scored_loss_nats
    return (
        check.largest_logit_difference <= limits.max_logit_difference
        and abs(check.loss_nats - scored) <= limits.max_loss_gap_nats
    )
