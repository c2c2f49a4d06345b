"""merge: the shipped trial as one plain model, verified against what was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorascope.bases.folder import runs_own_code
from lorascope.comparing.findings import compare
from lorascope.config import Config, MergeConfig
from lorascope.errors import ConfigError, RecordError, VerificationError
from lorascope.files.layout import Layout
from lorascope.files.provenance import capture
from lorascope.files.store import replaced_folder, sha256_of_files, write_atomically, write_record
from lorascope.quantizers.kinds import QUANTIZERS
from lorascope.records import MergeRecord, Status, Study, TrialRecord
from lorascope.study.collect import collect
from lorascope.study.declared import declare_trial
from lorascope.study.intact import require_adapter, require_data, require_stored

if TYPE_CHECKING:
    from lorascope.machine.devices import Device
    from lorascope.scoring.merged_folder import MergedFiles
    from lorascope.scoring.merging import MergeCheck


NOTHING_SHIPPED = "nothing_shipped.txt"
"""In place of a merged model: why there is none."""


def command(
    configs: Sequence[Config], layout: Layout, flags: Mapping[str, str], overrides: Sequence[str]
) -> None:
    """Merge the trial that `ship` names."""
    run(list(configs), layout)


def run(configs: list[Config], layout: Layout) -> MergeRecord | None:
    """Merge the trial that `ship` names, and verify the result.

    None where `ship` is auto and the rule lets nothing ship: the folder then holds the reason
    alone, so that no older model stays there and the report, which comes after, says the same.

    Raises:
        ConfigError: `ship` names no trial of the declared grid.
        VerificationError: the merged model is further off than conf/merge allows.
    """
    try:
        trial, chosen_by, score = choose(configs[0].ship, collect(configs, layout))
    except NothingShips as found:
        with replaced_folder(layout.merged(configs[0].model.name)) as folder:
            write_atomically(folder / NOTHING_SHIPPED, f"{found}\n".encode())
        print(found)
        return None
    config = next(c for c in configs if declare_trial(c, layout).identity == trial.identity)
    with replaced_folder(layout.merged(config.model.name)) as folder:
        record = _merge_into(folder, config, layout, trial, chosen_by, score)
        if not record.passed:
            raise VerificationError(_failure(record, config))
        write_record(folder, record)
    print(_sentence(record))
    return record


class NothingShips(Exception):
    """The rule's answer is that no trial should be shipped."""


def choose(ship: str, study: Study) -> tuple[TrialRecord, str, float | None]:
    """The trial to ship, how it was chosen, and its validation score.

    `auto` takes what the declared rule recommends (conf/decide): the cheapest configuration that is
    no worse than the reference by more than the margin, on validation items, and shown to beat the
    bare base.

    Raises:
        NothingShips: `auto`, and the rule lets no trial ship.
        ConfigError: `ship` names no single finished trial.
        RecordError: `auto`, and nothing is trained and scored.
    """
    finished = {t.trial: t for t in study.trials if t.status is Status.completed}
    if ship != "auto":
        trial = _named(ship, finished, study)
        return trial, "named in ship", _validation_score(trial, study)
    decision = compare(study).decision
    if decision.trial is None and decision.reference is not None:
        raise NothingShips(
            "ship: auto ships nothing: no adapter that the rule lets pass is shown to beat the "
            "bare base on validation items. `lorascope report` says by how much each gained; name "
            "a trial in ship to merge it all the same."
        )
    if decision.trial is None:
        raise RecordError(
            "ship='auto': no configuration has all of its declared seeds trained and scored. Run "
            "the sweep first, or name a trial in ship."
        )
    trial = finished[decision.trial]
    rule = f"auto: cheapest in {decision.rule.cost.value} that is no worse than the reference"
    # One seed is no choice; with more, the best one's score is above the mean of the configuration.
    rule += ", for this seed" if decision.one_seed else ", its best seed on validation items"
    return trial, rule, _validation_score(trial, study)


def _named(ship: str, finished: dict[str, TrialRecord], study: Study) -> TrialRecord:
    """The finished trial of that name; the hash at its end may be left out."""
    matching = [
        trial
        for name, trial in finished.items()
        if name.startswith(ship) or (trial.taken_over and trial.taken_over.trial.startswith(ship))
    ]
    if len(matching) == 1:
        return matching[0]
    failed = [t for t in study.trials if t.trial.startswith(ship) and t.trial not in finished]
    problem = f"{failed[0].status} ({failed[0].reason})" if failed else "names no single trial"
    raise ConfigError(
        "ship", ship, problem, f"Use auto or one of: {', '.join(finished) or 'none yet'}."
    )


def _validation_score(trial: TrialRecord, study: Study) -> float | None:
    """Accuracy where items can be right or wrong, else the loss."""
    for evaluation in study.evaluations:
        if evaluation.trial_identity == trial.identity:
            score = evaluation.splits["validation"]
            return score.completion_loss_nats if score.accuracy is None else score.accuracy
    return None


def _merge_into(
    folder: Path,
    config: Config,
    layout: Layout,
    trial: TrialRecord,
    chosen_by: str,
    score: float | None,
) -> MergeRecord:
    from lorascope.machine.devices import choose_device, use_threads
    from lorascope.scoring.merging import close_enough

    device = choose_device(config.runtime.device)
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
        provenance=capture(layout, device.name, threads),
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
    from lorascope.adapters.attach import load_adapter
    from lorascope.data.rows import read_rows
    from lorascope.data.tokenization import load_tokenizer
    from lorascope.machine.devices import TORCH_DTYPES
    from lorascope.quantizers.loading import load_base
    from lorascope.scoring.merged_folder import write_merged
    from lorascope.scoring.merging import check_merge, dequantized, merge

    stored = layout.quantized(config.model.name, config.quant.name)
    adapter = layout.trials(config.quant.name) / trial.trial / "adapter"

    def fresh_base() -> Any:
        return load_base(stored, config.quant, device, config.model.attention)

    require_stored(config, layout)
    require_data(config, layout)
    require_adapter(trial, adapter.parent)
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
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder,
        device_map={"": device_kind},
        use_safetensors=True,
        trust_remote_code=runs_own_code(folder),
    ).eval()


def _failure(record: MergeRecord, config: Config) -> str:
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


def _sentence(record: MergeRecord) -> str:
    return (
        f"merged {record.trial} ({record.chosen_by}): agreement "
        f"{record.prediction_agreement:.4f}, largest logit difference "
        f"{record.largest_logit_difference:.2g}, loss {record.merged_loss_nats:.4f} against "
        f"{record.adapter_loss_nats:.4f} nats"
    )
