"""Raw rows: read from a local file, the hub or the built-in generator, each with its place.

The place (file and line, or hub split and row) travels with the row, so that whatever is found
wrong with it later names where to look.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lorascope.config import DataConfig, DataKind
from lorascope.data.biographies import ATTRIBUTES, Row, make_biographies
from lorascope.data.files import RawRow, read_file
from lorascope.errors import DataError, clause
from lorascope.files.layout import SPLITS


def read_source(config: DataConfig, root: Path) -> dict[str, list[RawRow]]:
    """All raw rows by the split that the config names; train always, the others where given.
    DataError where the hub cannot be reached; for files the errors of `read_file`."""
    if config.kind is DataKind.biographies:
        return _read_biographies(config)
    if config.kind is DataKind.known_people:
        return _read_known_people(config)
    named = {split: name for split in SPLITS if (name := getattr(config, split))}
    if config.kind is DataKind.hub:
        return {split: _read_hub(config, split, name) for split, name in named.items()}
    return {split: read_file(f"data.{split}", name, root) for split, name in named.items()}


def describe_source(config: DataConfig) -> str:
    """The rows' source, in words for the data card."""
    if config.kind is DataKind.biographies:
        return f"built-in biographies, seed {config.seed}"
    if config.kind is DataKind.known_people:
        return f"built-in biographies, known people, seed {config.seed}"
    splits = ", ".join(f"{s}={v}" for s in SPLITS if (v := getattr(config, s)))
    if config.kind is DataKind.hub:
        subset = f" ({config.subset})" if config.subset else ""
        return f"hub: {config.repository}{subset} @ {config.revision}: {splits}"
    return f"local: {splits}"


def _read_hub(config: DataConfig, split: str, name: str) -> list[RawRow]:
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        rows = datasets.load_dataset(
            config.repository, config.subset, revision=config.revision, split=name
        )
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        warm = f"hf download --repo-type dataset {config.repository} --revision {config.revision}"
        raise DataError(
            f"data.repository={config.repository!r} (subset {config.subset!r}, revision "
            f"{config.revision!r}, split data.{split}={name!r}): could not be loaded: "
            f"{clause(error)}. Without network: run `lorascope prepare-data` (or `{warm}`) once "
            "where there is one, bring the hub cache along and set HF_HUB_OFFLINE=1. With network: "
            "check the spelling of id, subset, revision and split."
        ) from error
    if not len(rows):
        raise DataError(f"{config.repository}, split {name}: holds no rows. Name another split.")
    place = f"{config.repository}, split {name}"
    return [RawRow(dict(row), f"{place}, row {i}") for i, row in enumerate(rows, start=1)]


def _read_biographies(config: DataConfig) -> dict[str, list[RawRow]]:
    made = make_biographies(seed=config.seed)
    return {split: _raw_rows(getattr(made, split), f"biographies, {split}") for split in SPLITS}


def _read_known_people(config: DataConfig) -> dict[str, list[RawRow]]:
    """All that the embedded base has read: statements, and both kinds of questions."""
    made = make_biographies(seed=config.seed)
    asked = {
        "validation": [attribute.validation_question for attribute in ATTRIBUTES],
        "test": [attribute.test_question for attribute in ATTRIBUTES],
    }
    rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row in made.pretraining:
        wordings = {split: [w.format(name=row.person) for w in own] for split, own in asked.items()}
        found = (split for split, own in wordings.items() if row.prompt in own)
        rows[next(found, "train")].append(row)
    return {split: _raw_rows(own, f"known people, {split}") for split, own in rows.items()}


def _raw_rows(rows: Sequence[Row], place: str) -> list[RawRow]:
    columns = ("prompt", "completion", "answer", "person", "attribute")
    return [
        RawRow({name: getattr(row, name) for name in columns}, f"{place} row {i}")
        for i, row in enumerate(rows, start=1)
    ]
