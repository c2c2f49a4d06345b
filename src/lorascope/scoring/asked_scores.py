"""What a loaded model scores on the splits that are asked for: items, distributions, further
tasks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from lorascope.config import Config, EvaluateConfig, Scoring
from lorascope.counting.scored_batches import SCORED_SPLITS, BatchRule
from lorascope.data.rows import read_rows
from lorascope.files.layout import DISTRIBUTIONS, FORGETTING
from lorascope.files.replacing import write_atomically
from lorascope.files.store import sha256_of_file
from lorascope.machine.progress import StepProgress
from lorascope.records import DataCard, SplitScore, Throughput
from lorascope.scoring.distributions import token_distributions
from lorascope.scoring.items import against_base, read_items, summarize, write_items
from lorascope.scoring.score import protocol, run_lm_eval_tasks, score_rows
from lorascope.scoring.token_meter import TokenMeter


@dataclass(frozen=True)
class Scores:
    """What a model scores."""

    splits: dict[str, SplitScore]
    throughput: Throughput
    distributions_sha256: str
    further: dict[str, float]
    """Of lm-eval tasks."""


@dataclass(frozen=True)
class Asked:
    """What a model is to be scored on, and where its items go."""

    config: Config
    data: Path
    card: DataCard
    tokenizer: Any
    folder: Path
    title: str
    """For those who watch."""
    base: Path | None

    def scores(self, model: Any, batch_size: int) -> Scores:
        """All of them, so many sequences at once."""
        used, meter = replace(self.config.evaluate, batch_size=batch_size), TokenMeter()
        splits = {
            split: self._score_split(used, files, model, split, meter)
            for split, files in _scored_files(self.config, self.data).items()
        }
        return Scores(
            splits,
            meter.throughput(),
            self._keep_distributions(used, model),
            run_lm_eval_tasks(model, self.tokenizer, used.lm_eval_tasks, batch_size),
        )

    def protocol(self, model: Any, batch_size: int) -> dict[str, str]:
        """The rules of scoring in words."""
        longest = self.config.evaluate.max_new_tokens
        said = protocol(model, self.tokenizer, Scoring(self.card.scoring), longest)
        said["batches"] = str(BatchRule(batch_size, model.get_input_embeddings().weight.shape[0]))
        return said

    def _score_split(
        self, used: EvaluateConfig, files: list[Path], model: Any, split: str, meter: TokenMeter
    ) -> SplitScore:
        """Score the rows of `files` as a split of that name; what may be forgotten, by loss
        alone."""
        scoring = Scoring.loss if split == FORGETTING else Scoring(self.card.scoring)
        items = score_rows(
            model,
            self.tokenizer,
            [row for file in files for row in read_rows(file)],
            scoring,
            self.card.answer_pattern,
            used.batch_size,
            used.max_new_tokens,
            on_progress=StepProgress(f"{self.title} on {split}"),
            meter=meter,
        )
        if self.base is not None and scoring is Scoring.preference:
            items = against_base(items, read_items(self.base / f"{split}.jsonl"))
        write_items(self.folder / f"{split}.jsonl", items)
        return summarize(items)

    def _keep_distributions(self, used: EvaluateConfig, model: Any) -> str:
        """Write what the model expects of the test completions' tokens; the file's digest."""
        rows = read_rows(self.data / "test.jsonl")
        expected = token_distributions(model, self.tokenizer, rows, used.batch_size)
        content, file = BytesIO(), self.folder / DISTRIBUTIONS
        np.save(content, expected, allow_pickle=False)
        # numpy itself does not say why a write failed.
        write_atomically(file, content.getvalue())
        return sha256_of_file(file)


def _scored_files(config: Config, data: Path) -> dict[str, list[Path]]:
    """Split -> files of its rows, of those that are scored."""
    found = {split: [data / f"{split}.jsonl"] for split in SCORED_SPLITS}
    if config.forgetting is not None:
        kept = config.forgetting.kept_splits
        found[FORGETTING] = [data / FORGETTING / f"{split}.jsonl" for split in kept]
    return found
