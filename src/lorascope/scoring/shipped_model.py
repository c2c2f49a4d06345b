"""The shipped trial as one plain model: written, loaded as anyone would, and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM

from lorascope.adapters.attach import load_adapter
from lorascope.bases.folder import runs_own_code
from lorascope.config import Config, MergeConfig
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer
from lorascope.files.layout import Layout
from lorascope.files.provenance import capture
from lorascope.files.store import sha256_of_files
from lorascope.machine.devices import TORCH_DTYPES, Device, choose_device, use_threads
from lorascope.machine.environment import use_determinism
from lorascope.quantizers.kinds import QUANTIZERS
from lorascope.quantizers.loading import load_base
from lorascope.records import MergeRecord, TrialRecord
from lorascope.scoring.merged_folder import MergedFiles, write_merged
from lorascope.scoring.merging import MergeCheck, check_merge, close_enough, dequantized, merge


def merge_verified(
    folder: Path,
    config: Config,
    layout: Layout,
    trial: TrialRecord,
    chosen_by: str,
    score: float | None,
) -> MergeRecord:
    """Merge `trial` into `folder` and compare the result with what was trained.

    Args:
        chosen_by: how the trial was chosen, and `score` its validation score, for the record.
    """
    device = choose_device(config.runtime.device)
    use_determinism(config.runtime.deterministic)
    threads = use_threads(config.runtime.threads)
    check, unrounded, files, untied = _merge_and_check(folder, config, layout, trial, device)
    return MergeRecord(
        trial=trial.trial,
        quant=config.quant.name,
        precision=config.merge.precision.value,
        chosen_by=chosen_by,
        validation_score=score,
        items=check.items,
        largest_logit_difference=check.largest_logit_difference,
        prediction_agreement=check.prediction_agreement,
        adapter_loss_nats=check.adapter_loss_nats,
        merged_loss_nats=check.merged_loss_nats,
        untied_head=untied,
        total_bytes=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        content_sha256=sha256_of_files(folder),
        passed=close_enough(check, unrounded, config.merge),
        provenance=capture(layout, device.name, threads, config.runtime.deterministic),
        stop_token_ids=files.stop_token_ids,
        unrounded_logit_difference=unrounded.largest_logit_difference if unrounded else None,
        unrounded_agreement=unrounded.prediction_agreement if unrounded else None,
        foreign_names=files.foreign_names,
    )


def _merge_and_check(
    folder: Path, config: Config, layout: Layout, trial: TrialRecord, device: Device
) -> tuple[MergeCheck, MergeCheck | None, MergedFiles, bool]:
    """Write the merged model to `folder`: its check, for INT8 a second one without the rounding of
    activations, its files, and whether its head was untied."""
    stored = layout.quantized(config.model.name, config.quant.name)
    adapter = layout.trials(config.quant.name) / trial.trial / "adapter"

    def fresh_base() -> Any:
        return load_base(stored, config.quant, device, config.model.attention)

    print(f"merging {trial.trial}", flush=True)
    merged, untied = merge(fresh_base(), adapter, TORCH_DTYPES[config.merge.precision.value])
    tokenizer = load_tokenizer(stored)
    base = layout.base(config.model.name)
    files = write_merged(merged, untied, base, int(tokenizer.eos_token_id), folder)
    validation = read_rows(layout.data(config.model.name, config.data.name) / "validation.jsonl")
    rows = validation[: config.merge.verify_items]
    print(f"comparing it with adapter on base over {len(rows)} rows", flush=True)
    reloaded, batch_size = _reload(folder, device.kind), config.evaluate.batch_size

    def compare_with(adapted_base: Any) -> MergeCheck:
        adapted = load_adapter(adapted_base, adapter)
        return check_merge(adapted, reloaded, tokenizer, rows, batch_size)

    rounds = QUANTIZERS[config.quant.storage].rounds_inputs
    unrounded = compare_with(dequantized(fresh_base())) if rounds else None
    return compare_with(fresh_base()), unrounded, files, untied


def _reload(folder: Path, device_kind: str) -> Any:
    """The merged model as anyone would load it: the files are what is verified."""
    return AutoModelForCausalLM.from_pretrained(
        folder,
        device_map={"": device_kind},
        use_safetensors=True,
        trust_remote_code=runs_own_code(folder),
    ).eval()


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
