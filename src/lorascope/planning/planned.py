"""The trials of a grid, each with what it needs, or why that is not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lorascope.adapters.kinds import at_rank, rank_of
from lorascope.bases.config_json import config_label, model_config_dict
from lorascope.bases.transformers_config import context_tokens, text_config
from lorascope.config import Config, DeviceKind
from lorascope.errors import LorascopeError
from lorascope.files.layout import RECORD, Layout
from lorascope.files.made_with import data_settings, differing
from lorascope.files.store import read_record
from lorascope.machine.progress import StepProgress
from lorascope.planning.arithmetic import affine_through
from lorascope.planning.depth import training_trace
from lorascope.planning.fits import failed_prediction_passed_over
from lorascope.planning.plan import Prediction, peak_of, predict_ranks
from lorascope.planning.scored import (
    ScoredSubject,
    all_declared_rows,
    score_bytes,
    scored_subject,
)
from lorascope.planning.subject import (
    PlanSubject,
    SampleLengths,
    memory_settings,
    sample_lengths,
    subject_of,
)
from lorascope.records import DataCard
from lorascope.study.intact import read_forgetting


@dataclass(frozen=True)
class Planned:
    """One trial of the grid: what it needs, or why that is not known."""

    config: Config
    label: str
    """Name of the model's configuration."""
    subject: PlanSubject | None
    prediction: Prediction | None
    error: LorascopeError | None


def planned_trials(configs: Sequence[Config], layout: Layout) -> list[Planned]:
    """What each of `configs` needs. Ranks of otherwise equal trials are predicted together; scale
    and seed take no memory."""
    groups: dict[str, list[Config]] = {}
    for config in configs:
        groups.setdefault(_but_rank(config), []).append(config)
    found: dict[str, dict[int, Planned]] = {}
    show = StepProgress("plan", unit="groups")
    for number, (key, group) in enumerate(groups.items(), start=1):
        found[key] = _planned_ranks(group, layout)
        show(number, len(groups))
    return [replace(found[_but_rank(c)][rank_of(c.adapter)], config=c) for c in configs]


def _but_rank(config: Config) -> str:
    return memory_settings(replace(config, adapter=at_rank(config.adapter, 1)))


def _planned_ranks(group: list[Config], layout: Layout) -> dict[int, Planned]:
    config, label = group[0], config_label(group[0].model, layout)
    ranks = sorted({rank_of(one.adapter) for one in group})
    subject, predictions, reason = None, dict[int, Prediction](), None
    try:
        model_config = model_config_dict(config.model, layout)
        # GPUs are what people plan for, unless they say cpu.
        kind = "cpu" if config.runtime.device is DeviceKind.cpu else "cuda"
        card = _card(config, layout)
        subject = subject_of(config, model_config, kind, _lengths(config, model_config, card))
        forgetting = read_forgetting(config, layout) if card is not None else None
        rows = all_declared_rows(config, model_config, card, forgetting)
        scored = scored_subject(config, model_config, kind, rows)
        predictions = predict_ranks(subject, ranks)
    except LorascopeError as error:
        reason = error
    else:
        with failed_prediction_passed_over(f"scoring {label} in {config.quant.name}"):
            predictions = _with_scoring(scored, predictions)
    return {rank: Planned(config, label, subject, predictions.get(rank), reason) for rank in ranks}


def _with_scoring(
    subject: ScoredSubject, predictions: Mapping[int, Prediction]
) -> dict[int, Prediction]:
    """Predictions by rank that tell the peak of scoring too. An adapter's size is a line through
    those of the lowest and the highest rank, and so is the peak."""

    def peak(rank: int) -> int:
        adapter = at_rank(subject.spec.adapter, rank)
        return score_bytes(replace(subject, spec=replace(subject.spec, adapter=adapter)))

    lowest, highest = min(predictions), max(predictions)
    start, slope = float(peak(highest)), 0.0
    if lowest < highest:
        start, slope = affine_through((lowest, peak(lowest)), (highest, round(start)))
    found = {}
    for rank, known in predictions.items():
        peaks = {**known.plan.peak_bytes, "score": round(start + slope * rank)}
        found[rank] = replace(known, plan=replace(known.plan, peak_bytes=peaks))
    return found


def unpadded_peak_bytes(planned: Planned) -> int | None:
    """The training peak where every batch has samples of one length; None where the plan says it
    already. Attention then needs no mask, and keys and values that heads share need no copies (7 to
    19 % less with grouped heads and 2,048 tokens)."""
    subject, prediction = planned.subject, planned.prediction
    if subject is None or prediction is None or not subject.train.padded:
        return None
    # Only a CPU makes masks for padding.
    if subject.device != "cpu":
        return None
    unpadded = replace(subject, train=replace(subject.train, padded=False))
    return max(peak_of(training_trace(unpadded), unpadded), prediction.validation_bytes)


def _lengths(
    config: Config, model_config: dict[str, object], card: DataCard | None
) -> SampleLengths:
    """Lengths of the samples where the data are prepared, else the most that the config lets in."""
    if card is not None:
        return sample_lengths(card)
    context = context_tokens(text_config(model_config))
    return SampleLengths(min(config.data.max_tokens, context), equal=False)


def _card(config: Config, layout: Layout) -> DataCard | None:
    """The card of the data that `config` asks for; None where they are not prepared."""
    folder = layout.data(config.model.name, config.data.name)
    if not (folder / RECORD).is_file():
        return None
    card = read_record(folder, DataCard)
    return None if differing(data_settings(config.data), card.settings) else card
