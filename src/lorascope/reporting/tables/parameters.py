"""Trainable parameters by rank, for the model at hand and for well-known ones beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lorascope.adapters.targets import select
from lorascope.bases.known_configs import known_config
from lorascope.config import LoraConfig, Targets
from lorascope.counting.architectures import model_shape
from lorascope.counting.parameters import (
    adamw_bytes,
    adapter_bytes,
    lora_parameters,
    square_matrix_rule,
)
from lorascope.errors import ConfigError
from lorascope.records import LinearShape, Study, TrialRecord
from lorascope.reporting import units
from lorascope.reporting.tables.table import Column, Table

RANKS = tuple(2**power for power in range(10))
"""1 to 512."""

REFERENCE_MODELS = {
    "gemma-2b": "gemma-2b",
    "Llama-2-7B": "llama-2-7b",
    "Llama-2-13B": "llama-2-13b",
    "Llama-2-70B": "llama-2-70b",
}
"""What tables show beside the model at hand, by size: name -> known configuration."""


@dataclass(frozen=True)
class ParameterRow:
    """One adapter, counted from shapes alone."""

    model: str
    targets: str
    dora: bool
    rank: int
    trainable_parameters: int
    """rank (in + out) a matrix; DoRA out more."""
    percent_of_base: float
    """100 x trainable / parameters of the base, the adapter not among them."""
    adapter_bytes: int
    """In float32."""
    optimizer_bytes: int
    """AdamW's two moments in float32."""
    rule_parameters: int
    """The classroom rule 2 rank sqrt(N), for comparison."""
    measured_parameters: int | None
    """What PEFT counted in a trial of this study, or None where none ran."""


@dataclass(frozen=True)
class _Model:
    name: str
    parameters: int
    shapes: list[LinearShape]


def parameter_rows(study: Study) -> list[ParameterRow]:
    """Adapter kinds of the study x (its model, then the reference models) x ranks."""
    measured = {
        (*_variant(trial), trial.key.rank): trial.result.trainable_parameters
        for trial in study.trials
        if trial.result is not None
    }
    own = _Model(study.base.model, study.base.parameters, study.base.linear_shapes)
    references = [_reference(name) for name in REFERENCE_MODELS]
    rows: list[ParameterRow] = []
    for variant, lora in _adapter_kinds(study).items():
        tried = {trial.key.rank for trial in study.trials if _variant(trial) == variant}
        for rank in sorted({*RANKS, *tried}):
            rows += _rows(own, lora, variant, rank, measured.get((*variant, rank)))
        for reference in references:
            for rank in RANKS:
                rows += _rows(reference, lora, variant, rank, None)
    return rows


def parameter_table(rows: Sequence[ParameterRow]) -> Table[ParameterRow]:
    """Of what `parameter_rows` gives."""
    return Table(
        (
            Column("model", "Model", right=False),
            Column("targets", "Targets", right=False),
            Column(
                "dora", "DoRA", units.yes_no, right=False, in_text=any(row.dora for row in rows)
            ),
            Column("rank", "Rank"),
            Column("trainable_parameters", "Trainable", units.count),
            Column("percent_of_base", "% of base", units.small_percent),
            Column("adapter_bytes", "Adapter (FP32)", units.size),
            Column("optimizer_bytes", "AdamW state (FP32)", units.size),
            Column("measured_parameters", "Counted in training", units.count),
            Column("rule_parameters", "Rule 2 r sqrt(N)", units.count),
        ),
        rows,
    )


def _variant(trial: TrialRecord) -> tuple[str, bool]:
    return trial.key.targets, trial.key.dora


def _adapter_kinds(study: Study) -> dict[tuple[str, bool], LoraConfig]:
    """(targets, DoRA) -> how to choose matrices; all linear ones where no trial says otherwise."""
    kinds = {_variant(trial): _lora_config(trial) for trial in study.trials}
    return kinds or {(Targets.all_linear.value, False): LoraConfig()}


def _lora_config(trial: TrialRecord) -> LoraConfig:
    """What chose this trial's matrices, as its identity recorded it."""
    lora = trial.settings.get("lora")
    if not isinstance(lora, dict):
        return LoraConfig(targets=Targets(trial.key.targets))
    return LoraConfig(targets=Targets(lora["targets"]), modules=list(lora["modules"]))


def _reference(name: str) -> _Model:
    shape = model_shape(known_config(REFERENCE_MODELS[name]))
    return _Model(name, shape.total_parameters, shape.linear_shapes)


def _rows(
    model: _Model, lora: LoraConfig, variant: tuple[str, bool], rank: int, measured: int | None
) -> list[ParameterRow]:
    """One row, or none where the model has no layer of the names that `lora` lists."""
    try:
        shapes = select(model.shapes, lora)
    except ConfigError:
        return []
    targets, dora = variant
    trainable = lora_parameters(shapes, rank, dora)
    row = ParameterRow(
        model=model.name,
        targets=targets,
        dora=dora,
        rank=rank,
        trainable_parameters=trainable,
        percent_of_base=100 * trainable / model.parameters,
        adapter_bytes=adapter_bytes(trainable),
        optimizer_bytes=adamw_bytes(trainable),
        rule_parameters=round(square_matrix_rule(model.parameters, rank)),
        measured_parameters=measured,
    )
    return [row]
