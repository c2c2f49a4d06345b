"""The rows that `lorascope init` is given: a file, a folder of splits, or a dataset of the hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorascope.config import DataConfig, DataKind
from lorascope.config.bounds import is_commit
from lorascope.data.files import READERS, RawRow, read_file
from lorascope.data.sources import read_source
from lorascope.errors import ConfigError, DataError
from lorascope.files.layout import SPLITS, Layout
from lorascope.starting.words import file_settings, hub_id, own_name

OTHER_NAMES = {"valid": "validation", "val": "validation", "dev": "validation"}
"""What files of splits are called, too."""
FEW_ROWS = 1000
"""Of fewer, a fifth each goes to validation and test: their intervals would say little."""
FEW_ROWS_SHARE = 0.2


@dataclass(frozen=True)
class FoundRows:
    """Rows as they stand in their source, and the settings that name it."""

    config: DataConfig
    rows: dict[str, list[RawRow]]
    """Split -> raw rows; train always."""
    files: Mapping[Path, str]
    """Local file -> its place in the project."""
    is_packaged: bool = False
    """Whether it is a choice that comes with lorascope, so that no file need be written."""

    def at_source(self, config: DataConfig) -> DataConfig:
        """`config`, to be read where the rows lie now."""
        now = {place: str(file) for file, place in self.files.items()}
        named = {split: now.get(name, name) for split in SPLITS if (name := getattr(config, split))}
        return replace(config, **named)

    @property
    def count(self) -> int:
        return sum(map(len, self.rows.values()))

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(c for rows in self.rows.values() for c in rows[0].values))


def find_rows(word: str, settings: Mapping[str, object], root: Path) -> FoundRows:
    """The rows that `data=word` names.

    Args:
        settings: fields of DataConfig that were asked for beside it.

    Raises:
        ConfigError: it is neither a file, a folder of splits nor a hub's id.
        DataError: a file is damaged, or the hub cannot be reached.
    """
    # As it is called, without the way back up: errors name it.
    path = Path(os.path.abspath(root / Path(word).expanduser()))
    given: dict[str, Any] = dict(settings)
    if not path.exists() and (choice := Layout(root).choices("data").get(word)):
        config = file_settings(choice, DataConfig, given)
        return FoundRows(config, read_source(config, root), {}, is_packaged=not given)
    if path.exists():
        found = _local(path, word, given, root)
    else:
        repository, revision = hub_id("data", word, "file", tuple(READERS))
        found = _of_hub(repository, revision, given)
    if found.count >= FEW_ROWS:
        return found
    few: dict[str, Any] = {
        f"{split}_fraction": FEW_ROWS_SHARE
        for split in ("validation", "test")
        if getattr(found.config, split) is None and f"{split}_fraction" not in given
    }
    return replace(found, config=replace(found.config, **few))


def _local(path: Path, word: str, given: dict[str, Any], root: Path) -> FoundRows:
    files = _splits_of(path, word) if path.is_dir() else {"train": path}
    places = {file: _place(file, path, root) for file in files.values()}
    rows = {split: read_file(f"data.{split}", str(file), root) for split, file in files.items()}
    named = {split: places[file] for split, file in files.items()}
    name = own_name("data", path.name if path.is_dir() else path.stem)
    return FoundRows(DataConfig(**{"name": name, **named, **given}), rows, places)


def _splits_of(folder: Path, word: str) -> dict[str, Path]:
    """Split -> file, of a folder that has a file for each."""
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        split = OTHER_NAMES.get(file.stem, file.stem)
        if split in SPLITS and file.suffix.lower() in READERS:
            found.setdefault(split, file)
    if "train" not in found:
        raise ConfigError(
            "data", word, "a folder without a file of training rows",
            f"Call that file train, with one of {', '.join(READERS)}, or name it itself.",
        )  # fmt: skip
    return found


def _place(file: Path, source: Path, root: Path) -> str:
    """Where a file stands in the project: where it is, or data/raw."""
    if file.resolve().is_relative_to(root.resolve()):
        return str(file.resolve().relative_to(root.resolve()))
    folder = f"{source.name}/" if source.is_dir() else ""
    return f"data/raw/{folder}{file.name}"


def _of_hub(repository: str, revision: str | None, given: dict[str, Any]) -> FoundRows:
    commit = revision or _newest_commit(repository)
    subset = given.get("subset")
    named = {split: split for split in _split_names(repository, commit, subset) if split in SPLITS}
    if "train" not in {**named, **given}:
        raise ConfigError(
            "data", repository, "the hub's dataset has no split called train",
            "Name one with data.train=SPLIT.",
        )  # fmt: skip
    name = own_name("data", repository.rpartition("/")[2])
    own: dict[str, Any] = {"name": name, "repository": repository, "revision": commit}
    config = DataConfig(**{**own, "kind": DataKind.hub, **named, **given})
    return FoundRows(config, read_source(config, Path()), {})


def _newest_commit(repository: str) -> str:
    from huggingface_hub import HfApi

    try:
        commit = HfApi().dataset_info(repository).sha
    except Exception as error:
        raise _unreachable(repository, error) from error
    if not is_commit(commit):
        raise _unreachable(repository, ValueError("it names no commit"))
    return str(commit)


def _split_names(repository: str, commit: str, subset: object) -> list[str]:
    from datasets import get_dataset_split_names

    name = None if subset is None else str(subset)
    try:
        return [str(one) for one in get_dataset_split_names(repository, name, revision=commit)]
    except Exception as error:
        raise _unreachable(repository, error) from error


def _unreachable(repository: str, error: Exception) -> DataError:
    told = str(error).strip().splitlines()
    return DataError(
        f"data={repository!r}: cannot be read from the hub ({type(error).__name__}: "
        f"{told[0] if told else 'no reason given'}). Check the spelling; for one of several "
        f"subsets add data.subset=NAME. Without a network name a file, or a commit that is in the "
        f"hub's cache: data={repository}@<hash of 40 digits>."
    )
