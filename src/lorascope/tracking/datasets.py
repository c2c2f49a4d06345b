"""Datasets as MLflow means them: what a run read, by digest and place, and what for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorascope.errors import RecordError
from lorascope.files.layout import RECORD, Layout
from lorascope.files.store import read_record
from lorascope.records import DataCard

if TYPE_CHECKING:
    from mlflow import MlflowClient

CONTEXTS = {"train": "training", "validation": "validation", "test": "test"}
"""Split -> what MLflow calls its use."""
CONTEXT_TAG = "mlflow.data.context"
MAX_DIGEST = 36
"""MLflow's limit for a dataset's digest; the whole one is a parameter."""


@dataclass(frozen=True)
class DatasetUse:
    """A split of a dataset, and what a run read it for."""

    name: str
    digest: str
    context: str
    uri: str
    """Its file; below the project, as other machines have other folders, unless the store is the
    project's own."""
    profile: str
    """Its rows and tokens, as JSON."""


def splits_read(
    layout: Layout, model: str, data: str, sha256: str, splits: Sequence[str], is_local: bool
) -> list[DatasetUse]:
    """The `splits` of prepared rows; none where they are not there any more, or other ones."""
    folder = layout.data(model, data)
    try:
        card = read_record(folder, DataCard) if (folder / RECORD).is_file() else None
    except RecordError:
        return []
    if card is None or card.content_sha256 != sha256:
        return []
    return [
        DatasetUse(
            name=f"{data}/{split}",
            digest=card.splits[split].sha256[:MAX_DIGEST],
            context=CONTEXTS[split],
            uri=str(_place(folder / f"{split}.jsonl", layout, is_local)),
            profile=json.dumps(
                {
                    "num_rows": card.splits[split].rows,
                    "num_tokens": card.splits[split].tokens,
                    "num_trained_tokens": card.splits[split].trained_tokens,
                }
            ),
        )
        for split in splits
        if split in card.splits
    ]


def _place(path: Path, layout: Layout, is_local: bool) -> Path:
    return path.resolve() if is_local else path.relative_to(layout.root)


def log_datasets(
    client: MlflowClient, run_id: str, data: tuple[str, str], uses: Sequence[DatasetUse]
) -> None:
    """Log what a run read; only name and digest of `data` where nothing more is known of it. Those
    that are there already stay as they are."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = [
        DatasetInput(
            Dataset(
                use.name, use.digest, source_type="local", profile=use.profile,
                source=json.dumps({"uri": use.uri}),
            ),
            [InputTag(CONTEXT_TAG, use.context)],
        )
        for use in uses
    ]  # fmt: skip
    name, digest = data
    unknown = Dataset(name, digest[:MAX_DIGEST], source_type="local", source="{}")
    client.log_inputs(run_id, datasets=inputs or [DatasetInput(unknown)])
