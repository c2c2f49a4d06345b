"""Rows as a model would be trained on them, before anything is prepared: written to a folder that
goes again, by the code that prepares them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from lorascope.config import DataConfig
from lorascope.data.prepare import prepare_data
from lorascope.data.rows import PreparedRow, read_rows
from lorascope.data.tokenization import Tokenizer
from lorascope.files.layout import Layout
from lorascope.files.provenance import capture
from lorascope.machine.progress import StepProgress
from lorascope.records import DataCard


@dataclass(frozen=True)
class Rendered:
    """All rows of a dataset, rendered for one model."""

    card: DataCard
    folder: Path

    def rows(self, split: str) -> list[PreparedRow]:
        return read_rows(self.folder / f"{split}.jsonl")


@contextmanager
def rendered(
    data: DataConfig, model: str, tokenizer: Tokenizer, context_tokens: int, layout: Layout
) -> Iterator[Rendered]:
    """Prepare the rows as `prepare-data` would; errors are its own."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        card = prepare_data(
            data, model, tokenizer, context_tokens, folder, layout.root,
            capture(layout, "cpu", 1), StepProgress(f"data {data.name}", unit="row"),
        )  # fmt: skip
        yield Rendered(card, folder)
