"""Scores of the bare base, or of a trial's adapter on it: items, distributions, further tasks."""

from __future__ import annotations

import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from lorascope.adapters.attach import detach, load_adapter
from lorascope.config import Config, Scoring
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer
from lorascope.files.layout import DISTRIBUTIONS, Layout
from lorascope.files.provenance import capture
from lorascope.files.store import read_record, sha256_of_file, write_atomically
from lorascope.machine.devices import choose_device, use_threads
from lorascope.machine.environment import use_determinism
from lorascope.machine.progress import StepProgress
from lorascope.machine.ram import keep_freed_memory
from lorascope.quantizers.loading import load_base
from lorascope.records import DataCard, EvaluationRecord, FootprintRecord, SplitScore, TrialRecord
from lorascope.scoring.distributions import token_distributions
from lorascope.scoring.items import summarize, write_items
from lorascope.scoring.score import protocol, run_lm_eval_tasks, score_rows

SCORED_SPLITS = ("validation", "test")


class LoadedBase:
    """The base that this process scored last: the trials of one sweep share it."""

    key: str | None = None
    model: Any = None
    tokenizer: Any = None
    device_name: str = "unknown"
    threads: int = 0

    @classmethod
    def is_of(cls, config: Config, layout: Layout) -> bool:
        """Whether it is the base that `config` asks for."""
        return cls.key == _base_key(config, layout)

    @classmethod
    def load(cls, config: Config, layout: Layout) -> None:
        """Load the base that `config` asks for."""
        cls.key = None
        folder = layout.quantized(config.model.name, config.quant.name)
        device = choose_device(config.runtime.device)
        use_determinism(config.runtime.deterministic)
        keep_freed_memory()
        cls.threads = use_threads(config.runtime.threads)
        cls.model = load_base(folder, config.quant, device, config.model.attention)
        cls.tokenizer = load_tokenizer(folder)
        cls.device_name = device.name
        cls.key = _base_key(config, layout)


def _base_key(config: Config, layout: Layout) -> str:
    folder = layout.quantized(config.model.name, config.quant.name)
    stored = read_record(folder, FootprintRecord).content_sha256
    return f"{stored} {config.quant.compute} {config.model.attention} {config.runtime.device}"


def score_subject(
    config: Config,
    layout: Layout,
    name: str,
    identity: str,
    trial: TrialRecord | None,
    folder: Path,
    place: str,
    started: float,
) -> EvaluationRecord:
    """Score the loaded base, with the adapter of `trial` where there is one. Items and
    distributions go into `folder`.

    Args:
        place: of the trial in its sweep, such as "3/16 ", for those who watch.
        started: when the work began, by `time.perf_counter`.
    """
    model, tokenizer, asked = LoadedBase.model, LoadedBase.tokenizer, config.evaluate
    if trial:
        model = load_adapter(model, layout.trials(config.quant.name) / trial.trial / "adapter")
    data = layout.data(config.model.name, config.data.name)
    card, title = read_record(data, DataCard), f"{place}{name}"
    splits = {s: _score_split(config, card, data, model, s, folder, title) for s in SCORED_SPLITS}
    distributions_sha256 = _keep_distributions(config, data, model, folder)
    further = run_lm_eval_tasks(model, tokenizer, list(asked.lm_eval_tasks), asked.batch_size)
    said = protocol(model, tokenizer, Scoring(card.scoring), asked.max_new_tokens)
    if trial:
        LoadedBase.model = detach(model)
    return EvaluationRecord(
        name=name,
        identity=identity,
        quant=config.quant.name,
        trial_identity=trial.identity if trial else None,
        key=trial.key if trial else None,
        scoring=card.scoring,
        batch_size=asked.batch_size,
        splits=splits,
        lm_eval_metrics=further,
        items_sha256={s: sha256_of_file(folder / f"{s}.jsonl") for s in SCORED_SPLITS},
        distributions_sha256=distributions_sha256,
        protocol=said,
        seconds=time.perf_counter() - started,
        provenance=capture(
            layout, LoadedBase.device_name, LoadedBase.threads, config.runtime.deterministic
        ),
    )


def _score_split(
    config: Config, card: DataCard, data: Path, model: Any, split: str, folder: Path, title: str
) -> SplitScore:
    items = score_rows(
        model,
        LoadedBase.tokenizer,
        read_rows(data / f"{split}.jsonl"),
        Scoring(card.scoring),
        card.answer_pattern,
        config.evaluate.batch_size,
        config.evaluate.max_new_tokens,
        on_progress=StepProgress(f"{title} on {split}", unit="request"),
    )
    write_items(folder / f"{split}.jsonl", items)
    return summarize(items)


def _keep_distributions(config: Config, data: Path, model: Any, folder: Path) -> str:
    """Write what the model expects of the test completions' tokens; the file's digest."""
    rows = read_rows(data / "test.jsonl")
    expected = token_distributions(model, LoadedBase.tokenizer, rows, config.evaluate.batch_size)
    content = BytesIO()
    np.save(content, expected, allow_pickle=False)
    # numpy itself does not say why a write failed.
    write_atomically(folder / DISTRIBUTIONS, content.getvalue())
    return sha256_of_file(folder / DISTRIBUTIONS)
