"""Rows as a model would be trained on them, before anything is prepared: written to a folder that
goes again, by the code that prepares them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from lorascope.config import DataConfig, EvaluateConfig, Scoring
from lorascope.data.answers import require_room
from lorascope.data.prepare import prepare_data
from lorascope.data.rows import PreparedRow, read_rows
from lorascope.data.tokenization import Tokenizer
from lorascope.errors import ConfigError
from lorascope.files.layout import Layout
from lorascope.files.provenance import capture
from lorascope.machine.progress import StepProgress
from lorascope.records import DataCard
from lorascope.starting.words import file_settings

EVALUATIONS = ("default", "solutions")
"""Files of conf/evaluate, the one for short answers first."""


@dataclass(frozen=True)
class Rendered:
    """All rows of a dataset, rendered for one model."""

    card: DataCard
    folder: Path

    def rows(self, split: str) -> list[PreparedRow]:
        return read_rows(self.folder / f"{split}.jsonl")

    def evaluation(self, tokenizer: Tokenizer, context_tokens: int, layout: Layout) -> str | None:
        """The first file of `EVALUATIONS` that gives answers enough room; None where none does."""
        if self.card.scoring != Scoring.answer:
            return EVALUATIONS[0]
        rows = [row for split in ("validation", "test") for row in self.rows(split)]
        for name in EVALUATIONS:
            asked: EvaluateConfig = file_settings(
                layout.choices("evaluate")[name], EvaluateConfig, {}
            )
            try:
                require_room(rows, tokenizer, asked.max_new_tokens, context_tokens)
            except ConfigError:
                continue
            return name
        return None


@contextmanager
def rendered(
    data: DataConfig, model: str, tokenizer: Tokenizer, context_tokens: int, layout: Layout
) -> Iterator[Rendered]:
    """Prepare the rows as `prepare-data` would; errors are its own."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        card = prepare_data(
            data, model, tokenizer, context_tokens, folder, layout.root,
            capture(layout, "cpu", 1), StepProgress(f"data {data.name}", unit="rows"),
        )  # fmt: skip
        yield Rendered(card, folder)
