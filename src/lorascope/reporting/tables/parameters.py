"""Trainable parameters by size, for the model at hand and for well-known ones beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lorascope.adapters.kinds import DEFAULT_KIND, KINDS, method_of
from lorascope.adapters.targets import select
from lorascope.bases.known_configs import known_config
from lorascope.comparing.results import CellKey, cell_of
from lorascope.config import AdapterConfig, Targets
from lorascope.counting.architectures import table_shape
from lorascope.counting.parameters import adamw_bytes, adapter_bytes, square_matrix_rule
from lorascope.errors import ConfigError
from lorascope.records import Dial, DialValue, ModelParts, Study, TrialRecord, dial_text
from lorascope.reporting import units
from lorascope.reporting.cell_names import dials_of, varied_fields
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
    cell: CellKey
    """In no mode, with those of its dials that its parameters depend on."""
    trainable_parameters: int
    base_parameters: int
    """Of the model, the adapter not among them."""
    rule_parameters: int | None
    """The classroom rule 2 rank sqrt(N), for comparison; None without a rank."""
    measured_parameters: int | None
    """What PEFT counted in a trial of this study, or None where none ran."""


@dataclass(frozen=True)
class _Model:
    name: str
    parameters: int
    parts: ModelParts


def parameter_rows(study: Study) -> list[ParameterRow]:
    """Adapter kinds of the study x (its model, then the reference models) x sizes."""
    trials = [trial for trial in study.trials if _is_told_by_dials(trial)]
    measured = {
        _counted(trial): trial.result.trainable_parameters
        for trial in trials
        if trial.result is not None
    }
    tried = list(dict.fromkeys(_counted(trial) for trial in trials))
    own = _Model(study.base.model, study.base.parameters, study.base.parts)
    rows: list[ParameterRow] = []
    for kind, targets in _adapter_kinds(study).items():
        usual = _sizes(kind)
        ours = [cell for cell in tried if _unsized(cell) == kind]
        for cell in sorted({*usual, *ours}):
            rows += _rows(own, targets, cell, measured.get(cell))
        for reference in map(_reference, REFERENCE_MODELS):
            for cell in usual or ours:
                rows += _rows(reference, targets, cell, None)
    return rows


def _is_told_by_dials(trial: TrialRecord) -> bool:
    """Whether dials alone say how many parameters it has: not where layers have ranks of their
    own."""
    settings = trial.settings.get(trial.key.method)
    return not (isinstance(settings, Mapping) and settings.get("rank_pattern"))


def _counted(trial: TrialRecord) -> CellKey:
    """The trial's adapter, whatever its mode and the dials that do not change its parameters."""
    cell = cell_of(trial.key)
    dials = tuple((dial.name, value) for dial, value in cell.shown() if dial.counts)
    return replace(cell, quant="", dials=dials)


def _unsized(cell: CellKey) -> CellKey:
    shared = tuple((dial.name, value) for dial, value in cell.shown() if not dial.is_axis)
    return replace(cell, dials=shared)


def _sizes(kind: CellKey) -> list[CellKey]:
    axes = [dial for dial in method_of(kind.method).dials if dial.is_axis]
    return [replace(kind, dials=((axes[0].name, n), *kind.dials)) for n in RANKS if axes]


def _adapter_kinds(study: Study) -> dict[CellKey, AdapterConfig]:
    """Adapter but for its size -> how to choose matrices; of the usual method on all linear layers
    where no trial says otherwise."""
    kinds = {_unsized(_counted(trial)): _chosen_by(trial) for trial in study.trials}
    usual = CellKey("", DEFAULT_KIND, Targets.all_linear.value)
    return kinds or {usual: AdapterConfig()}


def _chosen_by(trial: TrialRecord) -> AdapterConfig:
    """What chose this trial's matrices, as its identity recorded it."""
    settings = trial.settings.get(trial.key.method)
    if not isinstance(settings, dict) or "targets" not in settings:
        return AdapterConfig(targets=Targets(trial.key.targets))
    return AdapterConfig(targets=Targets(settings["targets"]), modules=list(settings["modules"]))


def _reference(name: str) -> _Model:
    shape = table_shape(known_config(REFERENCE_MODELS[name]))
    return _Model(name, shape.total_parameters, shape.parts)


def _rows(
    model: _Model, targets: AdapterConfig, cell: CellKey, measured: int | None
) -> Iterator[ParameterRow]:
    """One row; none where the model has no layer of the names that `targets` lists, or where
    nothing is known of the method."""
    kind = KINDS.get(cell.method)
    try:
        shapes = select(model.parts, targets)
    except ConfigError:
        return
    if kind is None:
        return
    dials = {dial.name: value for dial, value in cell.shown() if dial in kind.method.dials}
    trainable = kind.parameters(kind.config(**dials), shapes) + model.parts.class_head
    sizes = [int(value) for dial, value in cell.shown() if dial.is_axis]
    yield ParameterRow(
        model=model.name,
        cell=cell,
        trainable_parameters=trainable,
        base_parameters=model.parameters,
        rule_parameters=round(square_matrix_rule(model.parameters, sizes[0])) if sizes else None,
        measured_parameters=measured,
    )


def parameter_table(rows: Sequence[ParameterRow]) -> Table[ParameterRow]:
    """Of what `parameter_rows` gives: switches before sizes."""
    cells = [row.cell for row in rows]
    dials = sorted(dials_of(cells), key=lambda dial: dial.is_axis)
    methods = "method" in varied_fields(cells)
    return Table(
        (
            Column("model", "Model", right=False),
            Column("method", "Method", right=False, in_text=methods, get=lambda r: r.cell.method),
            Column("targets", "Targets", right=False, get=lambda row: row.cell.targets),
            *(_dial_column(dial, cells) for dial in dials),
            *count_columns("adapter_bytes", "Adapter (FP32)", lambda row: row.base_parameters),
            Column("measured_parameters", "Counted in training", units.count),
            Column("rule_parameters", "Rule 2 r sqrt(N)", units.count),
        ),
        rows,
    )


def count_columns(
    key: str, header: str, base_parameters: Callable[[Any], int]
) -> tuple[Column, ...]:
    """What follows from the number of trainable parameters; `key` is their size in float32."""

    def of_count(value: Callable[[Any, int], float]) -> Callable[[Any], float | None]:
        return lambda row: (
            None if row.trainable_parameters is None else value(row, row.trainable_parameters)
        )

    return (
        Column("trainable_parameters", "Trainable", units.count),
        Column("percent_of_base", "% of base", units.small_percent,
               get=of_count(lambda row, count: 100 * count / base_parameters(row))),
        Column(key, header, units.size, get=of_count(lambda _, count: adapter_bytes(count))),
        Column("optimizer_bytes", "AdamW state (FP32)", units.size,
               get=of_count(lambda _, count: adamw_bytes(count))),
    )  # fmt: skip


def _dial_column(dial: Dial, cells: Sequence[CellKey]) -> Column:
    """Text leaves out a switch that is off in every row."""
    values = [cell.dial(dial.name) for cell in cells]
    return Column(
        dial.name, dial.header, dial_text, right=dial.is_axis, in_text=any(values),
        get=lambda row: row.cell.dial(dial.name),
    )  # fmt: skip


def parameter_summary(study: Study) -> str:
    """Markdown: for each kind of adapter a row a size and a column a model."""
    rows = parameter_rows(study)
    kinds: dict[CellKey, list[ParameterRow]] = {}
    for row in rows:
        kinds.setdefault(_unsized(row.cell), []).append(row)
    several = len({kind.method for kind in kinds}) > 1
    tables = [
        f"{_described(kind, several)}, in brackets per cent of the base:\n\n{_grid(found)}"
        for kind, found in kinds.items()
    ]
    return (
        "\n".join(tables)
        + "\nThe classroom rule 2 r sqrt(N) is no adapter's count; it stands beside the exact one "
        "in [trainable_parameters.md](trainable_parameters.md), with bytes.\n"
    )


def _described(kind: CellKey, several: bool) -> str:
    """On all_linear with DoRA; with several methods: IA3 on all_linear."""
    words = " and ".join(filter(None, (dial.words(value) for dial, value in kind.shown())))
    place = f"{method_of(kind.method).label} on" if several else "On"
    return f"{place} {kind.targets}{f' with {words}' if words else ''}"


def _grid(rows: list[ParameterRow]) -> str:
    models = list(dict.fromkeys(row.model for row in rows))
    texts = {(_size(row.cell), row.model): _share(row) for row in rows}
    sizes = [_size(cell) for cell in sorted({row.cell for row in rows})]
    axes = [dial.header for dial in dials_of(row.cell for row in rows) if dial.is_axis]
    head = [axes[0] if axes else "Method", *models]
    body = [[size, *(texts.get((size, model), "") for model in models)] for size in sizes]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    rule = ["-" * (width - 1) + ":" for width in widths]
    return "".join(
        "| " + " | ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) + " |\n"
        for line in (head, rule, *body)
    )


def _size(cell: CellKey) -> str:
    """64; the method where nothing sizes its adapters."""
    values: list[DialValue] = [value for dial, value in cell.shown() if dial.is_axis]
    return dial_text(values[0]) if values else cell.size()


def _share(row: ParameterRow) -> str:
    share = units.small_percent(100 * row.trainable_parameters / row.base_parameters)
    return f"{units.count(row.trainable_parameters)} ({share})"
