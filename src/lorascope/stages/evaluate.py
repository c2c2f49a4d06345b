"""evaluate: the bare base and one trial, scored item by item over one loaded base."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from lorascope.config import Config, Scoring
from lorascope.errors import RecordError
from lorascope.files.layout import DISTRIBUTIONS, RECORD, Layout
from lorascope.files.locks import locked_folder
from lorascope.files.provenance import capture
from lorascope.files.store import (
    read_record,
    replaced_folder,
    sha256_of_file,
    write_atomically,
    write_record,
)
from lorascope.machine.libraries import import_uncollected
from lorascope.machine.progress import StepProgress
from lorascope.records import (
    DataCard,
    EvaluationRecord,
    FootprintRecord,
    SplitScore,
    Status,
    TrialRecord,
)
from lorascope.study.declared import base_name, declare_trial, evaluation_identity, read_trial
from lorascope.study.former_scores import take_over_scores
from lorascope.study.intact import require_adapter, require_data, require_stored
from lorascope.study.intact_scores import require_scores

SCORED_SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Subject:
    """What is scored: a trial's adapter, or the bare base where `trial` is None."""

    name: str
    trial: TrialRecord | None
    adapter: Path | None
    place: str = ""
    """In the sweep, such as "3/16 ", for those who watch."""


class LoadedBase:
    """The base of the last job of this process: the jobs of one sweep share it."""

    key: str | None = None
    model: Any = None
    tokenizer: Any = None
    device_name: str = "unknown"
    threads: int = 0


def command(
    configs: Sequence[Config], layout: Layout, flags: Mapping[str, str], overrides: Sequence[str]
) -> None:
    """Score the bare base of each mode and the trials of `configs`."""
    run_sweep(configs, layout)


def run(config: Config, layout: Layout, place: str = "") -> EvaluationRecord | None:
    """Score the bare base and the trial of `config`, where their scores are not there yet.

    Args:
        place: of the trial in its sweep, see `Subject`.

    Returns:
        The trial's record; None for a trial that did not complete.
    """
    evaluate_one(config, layout, Subject(base_name(config, layout), None, None))
    declared = declare_trial(config, layout)
    folder = layout.trials(config.quant.name) / declared.name
    if not (folder / RECORD).is_file():
        raise RecordError(
            f"{declared.name}: not trained. Run `lorascope train-lora` with the same settings."
        )
    trial = read_trial(declared, folder)
    if trial.status is not Status.completed:
        print(f"{trial.trial}: not scored, {trial.status} ({trial.reason})")
        return None
    return evaluate_one(config, layout, Subject(trial.trial, trial, folder / "adapter", place))


def run_sweep(configs: Sequence[Config], layout: Layout) -> list[EvaluationRecord | None]:
    """Score what is missing of `configs`, all over one loaded base in each mode."""
    count = len(configs)
    places = [f"{number}/{count} " if count > 1 else "" for number in range(1, count + 1)]
    return [run(config, layout, place) for config, place in zip(configs, places, strict=True)]


def evaluate_one(config: Config, layout: Layout, subject: Subject) -> EvaluationRecord:
    """Score `subject`, unless its scores are there and made the same way."""
    folder = layout.evaluations(config.quant.name) / subject.name
    with locked_folder(folder, layout, wait_seconds=None, on_wait=_tell):
        return _evaluate_locked(config, layout, subject, folder)


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _evaluate_locked(
    config: Config, layout: Layout, subject: Subject, folder: Path
) -> EvaluationRecord:
    identity = evaluation_identity(config, layout, subject.trial)
    if subject.trial and subject.adapter:
        require_adapter(subject.trial, subject.adapter.parent)
    if (folder / RECORD).is_file():
        known = read_record(folder, EvaluationRecord)
        if known.identity == identity:
            require_scores(known, folder)
            print(f"{subject.name}: scored already")
            return known
    if taken := take_over_scores(config, layout, subject.name, subject.trial):
        print(f"{subject.name}: scores taken over, with the values that the present code gives")
        return taken
    with replaced_folder(folder) as scratch:
        try:
            record = _score(config, layout, subject, identity, scratch)
        except BaseException:
            # An adapter may still sit on the shared base: the next job must not score with it.
            LoadedBase.key = None
            raise
        write_record(scratch, record)
    print(f"{subject.place}{_sentence(record)}", flush=True)
    _track(record, config, layout)
    return record


def _score(
    config: Config, layout: Layout, subject: Subject, identity: str, folder: Path
) -> EvaluationRecord:
    started = time.perf_counter()
    require_data(config, layout)
    _load(config, layout)
    from lorascope.scoring.score import protocol

    model = LoadedBase.model
    if subject.adapter and subject.trial:
        from lorascope.adapters.attach import load_adapter

        model = load_adapter(model, subject.adapter)
    card = read_record(layout.data(config.model.name, config.data.name), DataCard)
    splits = {
        split: _score_split(config, layout, model, subject, split, folder)
        for split in SCORED_SPLITS
    }
    distributions_sha256 = _keep_distributions(config, layout, model, folder)
    further = _run_further_tasks(config, model)
    scoring, new_tokens = Scoring(card.scoring), config.evaluate.max_new_tokens
    said = protocol(model, LoadedBase.tokenizer, scoring, new_tokens)
    if subject.adapter:
        from lorascope.adapters.attach import detach

        LoadedBase.model = detach(model)
    return EvaluationRecord(
        name=subject.name,
        identity=identity,
        quant=config.quant.name,
        trial_identity=subject.trial.identity if subject.trial else None,
        key=subject.trial.key if subject.trial else None,
        scoring=card.scoring,
        batch_size=config.evaluate.batch_size,
        splits=splits,
        lm_eval_metrics=further,
        items_sha256={split: sha256_of_file(folder / f"{split}.jsonl") for split in SCORED_SPLITS},
        distributions_sha256=distributions_sha256,
        protocol=said,
        seconds=time.perf_counter() - started,
        provenance=capture(layout, LoadedBase.device_name, LoadedBase.threads),
    )


def _load(config: Config, layout: Layout) -> None:
    folder = layout.quantized(config.model.name, config.quant.name)
    stored = read_record(folder, FootprintRecord).content_sha256
    runtime = config.runtime
    key = f"{stored} {config.quant.compute} {config.model.attention} {runtime.device}"
    if LoadedBase.key == key:
        return
    LoadedBase.key = None
    require_stored(config, layout)
    import_uncollected(
        "lorascope.adapters.attach",
        "lorascope.scoring.score",
        "lm_eval.evaluator",
        "lm_eval.models.huggingface",
    )
    from lorascope.data.tokenization import load_tokenizer
    from lorascope.machine.devices import choose_device, use_threads
    from lorascope.machine.ram import keep_freed_memory
    from lorascope.quantizers.loading import load_base

    device = choose_device(config.runtime.device)
    keep_freed_memory()
    LoadedBase.threads = use_threads(config.runtime.threads)
    LoadedBase.model = load_base(folder, config.quant, device, config.model.attention)
    LoadedBase.tokenizer = load_tokenizer(folder)
    LoadedBase.device_name = device.name
    LoadedBase.key = key


def _score_split(
    config: Config, layout: Layout, model: Any, subject: Subject, split: str, folder: Path
) -> SplitScore:
    from lorascope.data.rows import read_rows
    from lorascope.scoring.items import summarize, write_items
    from lorascope.scoring.score import score_rows

    data = layout.data(config.model.name, config.data.name)
    card = read_record(data, DataCard)
    rows = read_rows(data / f"{split}.jsonl")
    items = score_rows(
        model,
        LoadedBase.tokenizer,
        rows,
        Scoring(card.scoring),
        card.answer_pattern,
        config.evaluate.batch_size,
        config.evaluate.max_new_tokens,
        on_progress=StepProgress(f"{subject.place}{subject.name} on {split}", unit="request"),
    )
    write_items(folder / f"{split}.jsonl", items)
    return summarize(items)


def _keep_distributions(config: Config, layout: Layout, model: Any, folder: Path) -> str:
    """Write what the model expects of the test completions' tokens; the file's digest."""
    import numpy as np

    from lorascope.data.rows import read_rows
    from lorascope.scoring.distributions import token_distributions

    rows = read_rows(layout.data(config.model.name, config.data.name) / "test.jsonl")
    expected = token_distributions(model, LoadedBase.tokenizer, rows, config.evaluate.batch_size)
    content = BytesIO()
    np.save(content, expected, allow_pickle=False)
    # numpy itself does not say why a write failed.
    write_atomically(folder / DISTRIBUTIONS, content.getvalue())
    return sha256_of_file(folder / DISTRIBUTIONS)


def _run_further_tasks(config: Config, model: Any) -> dict[str, float]:
    if not config.evaluate.lm_eval_tasks:
        return {}
    from lorascope.scoring.score import run_lm_eval_tasks

    evaluate = config.evaluate
    return run_lm_eval_tasks(
        model, LoadedBase.tokenizer, list(evaluate.lm_eval_tasks), evaluate.batch_size
    )


def _track(record: EvaluationRecord, config: Config, layout: Layout) -> None:
    if not config.runtime.tracking or record.trial_identity is None:
        return
    from lorascope.tracking import try_publish

    try_publish([], [record], layout)


def _sentence(record: EvaluationRecord) -> str:
    test = record.splits["test"]
    unlike = test.items_unlike_stock
    accuracy = "" if test.accuracy is None else f"accuracy {test.accuracy:.3f}, "
    if test.accuracy_norm is not None:
        accuracy += f"by length {test.accuracy_norm:.3f}, "
    return (
        f"{record.name}: {accuracy}completion loss {test.completion_loss_nats:.4f} nats "
        f"on {test.items} test items"
        + (f", {unlike} of other tokens than stock lm-eval's" if unlike else "")
    )
