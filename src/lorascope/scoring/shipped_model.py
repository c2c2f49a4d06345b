"""The shipped trial as one plain model: written, loaded as anyone would, and compared."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import PreTrainedModel

from lorascope.adapters.attach import load_adapter
from lorascope.adapters.placement import connect_layers
from lorascope.bases.folder import runs_own_code
from lorascope.bases.heads import class_of
from lorascope.config import Config, MergeConfig, Precision, QuantConfig, Storage
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer
from lorascope.files.layout import Layout
from lorascope.files.provenance import capture
from lorascope.files.store import sha256_of_files
from lorascope.machine.devices import TORCH_DTYPES, Device, choose_device, use_threads
from lorascope.machine.environment import use_determinism
from lorascope.objectives.kinds import objective_of
from lorascope.quantizers.kinds import QUANTIZERS
from lorascope.quantizers.loading import (
    compute_precision,
    load_base,
    load_exact,
    load_stored,
    places_of,
)
from lorascope.records import ArithmeticGap, MergeRecord, TrialRecord
from lorascope.scoring.merge_check import (
    MergeCheck,
    MergedPredictions,
    close_enough,
)
from lorascope.scoring.merged_folder import MergedFiles, end_of_text_id, write_merged
from lorascope.scoring.merging import merge


def merge_verified(
    folder: Path,
    config: Config,
    layout: Layout,
    trial: TrialRecord,
    chosen_by: str,
    score: float | None,
) -> MergeRecord:
    """Merge `trial`, chosen by `chosen_by` with the validation `score`, into `folder`, and compare
    the result with what was trained."""
    device = choose_device(config.runtime.device, config.runtime.place)
    use_determinism(config.runtime.deterministic)
    threads = use_threads(config.runtime.threads)
    adapter = layout.trials(config.quant.name) / trial.trial / "adapter"
    print(f"merging {trial.trial}", flush=True)
    files, untied = _write(folder, config, layout, adapter)
    exact, trained = _compare(folder, config, layout, adapter, device)
    rounds = QUANTIZERS[config.quant.storage].rounds_inputs
    check, unrounded = (trained, exact) if trained and rounds else (exact, None)
    return MergeRecord(
        trial=trial.trial,
        quant=config.quant.name,
        precision=config.merge.precision.value,
        chosen_by=chosen_by,
        validation_score=score,
        **vars(check),
        untied_head=untied,
        total_bytes=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        content_sha256=sha256_of_files(folder),
        passed=close_enough(check, unrounded, config.merge),
        provenance=capture(layout, device.name, threads, config.runtime.deterministic),
        stop_token_ids=files.stop_token_ids,
        unrounded_logit_difference=unrounded.largest_logit_difference if unrounded else None,
        unrounded_agreement=unrounded.prediction_agreement if unrounded else None,
        foreign_names=files.foreign_names,
        arithmetic_gap=_gap(trained, config, device) if trained and not rounds else None,
    )


def _write(folder: Path, config: Config, layout: Layout, adapter: Path) -> tuple[MergedFiles, bool]:
    """Write the merged model to `folder`: its files, and whether its head was untied."""
    stored = layout.quantized(config.model.name, config.quant.name)
    dtype = TORCH_DTYPES[config.merge.precision.value]
    merged = merge(load_stored(stored, config.quant), adapter, dtype)
    base = layout.base(config.model.name)
    return write_merged(merged, base, end_of_text_id(stored), folder), merged.untied


def _compare(
    folder: Path, config: Config, layout: Layout, adapter: Path, device: Device
) -> tuple[MergeCheck, MergeCheck | None]:
    """The merged model beside the adapter on its base, over the same rows: first both in float32,
    with the very weights that the base stores; then the base as it was trained and scored, None
    where that is the same. They are loaded one after the other."""
    stored = layout.quantized(config.model.name, config.quant.name)
    rows = read_rows(layout.data(config.model.name, config.data.name) / "validation.jsonl")
    rows = rows[: config.merge.verify_items]
    print(f"comparing it with adapter on base over {len(rows)} rows", flush=True)
    attention = config.model.attention
    with TemporaryDirectory(dir=folder) as scratch:
        said = MergedPredictions(
            _as_anyone_loads(folder, device), rows, load_tokenizer(stored),
            config.evaluate.batch_size, Path(scratch), objective_of([config.train]).as_served(),
        )  # fmt: skip
        exact = load_exact(stored, config.quant, device, attention)
        against_exact = said.check(load_adapter(exact, adapter))
        del exact
        in_16_bits = compute_precision(config.quant, device) is not Precision.float32
        if not in_16_bits and not QUANTIZERS[config.quant.storage].rounds_inputs:
            return against_exact, None
        base = load_base(stored, config.quant, device, attention)
        return against_exact, said.check(load_adapter(base, adapter))


def _as_anyone_loads(folder: Path, device: Device) -> PreTrainedModel:
    """The merged model from its files, which are what is verified; it computes in float32."""
    plain = QuantConfig(Storage.float32.value, storage=Storage.float32)
    places, placement = places_of(folder, plain, device.places or (device.kind,))
    merged: PreTrainedModel = class_of(folder).from_pretrained(
        folder,
        dtype=torch.float32,
        device_map=places,
        use_safetensors=True,
        trust_remote_code=runs_own_code(folder),
    )
    if placement is not None:
        connect_layers(merged, placement)
    return merged.eval()


def _gap(trained: MergeCheck, config: Config, device: Device) -> ArithmeticGap:
    return ArithmeticGap(
        compute=compute_precision(config.quant, device).value,
        largest_logit_difference=trained.largest_logit_difference,
        prediction_agreement=trained.prediction_agreement,
        adapter_loss_nats=trained.adapter_loss_nats,
    )


def failure(record: MergeRecord, config: Config) -> str:
    """Why a merge does not pass, in numbers."""
    limits = config.merge
    return (
        f"{record.trial}: the merged model differs from adapter on base by more than allowed: "
        f"largest logit difference {record.largest_logit_difference:.4f} "
        f"(merge.max_logit_difference={limits.max_logit_difference}), agreement "
        f"{record.prediction_agreement:.4f} (merge.min_agreement={limits.min_agreement}), loss "
        f"{record.merged_loss_nats:.4f} against {record.adapter_loss_nats:.4f} nats "
        f"(merge.max_loss_gap_nats={limits.max_loss_gap_nats}).{_unrounded(record, limits)} Merge "
        "in float32, ship another trial, or allow more if you can accept it."
    )


def _unrounded(record: MergeRecord, limits: MergeConfig) -> str:
    if record.unrounded_agreement is None:
        return ""
    return (
        f" Without INT8's rounding of activations: logits {record.unrounded_logit_difference:.4f}, "
        f"agreement {record.unrounded_agreement:.4f}; with it only "
        f"merge.int8_min_agreement={limits.int8_min_agreement} and the loss count."
    )
