"""evaluate: the bare base and each trial, scored item by item: adapters over one loaded base,
merged models as they would be served."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace

from lorascope.config import Config
from lorascope.errors import RecordError
from lorascope.execution.cluster import ClusterEngine
from lorascope.execution.kinds import engine_of
from lorascope.execution.scored_base import items_of_base, load_base
from lorascope.execution.served_scores import NotServedError, score_served
from lorascope.files.layout import RECORD, Layout
from lorascope.files.locks import LOOK_SECONDS, FolderLocked, locked_folder
from lorascope.files.replacing import replaced_folder
from lorascope.files.store import read_record, write_record
from lorascope.machine.progress import StepProgress
from lorascope.records import EvaluationRecord, Status, TrialRecord
from lorascope.study.declared import (
    base_name,
    declare_trial,
    evaluation_identity,
    examples_identity,
    read_trial,
    scores_name,
    unservable,
)
from lorascope.study.former_scores import take_over_scores
from lorascope.study.intact import read_data, read_mode, require_adapter
from lorascope.study.intact_scores import current_examples, require_scores
from lorascope.study.leading import Scored, leading
from lorascope.study.needed import only_needed
from lorascope.tracking import BareBase


def command(configs: Sequence[Config], layout: Layout, *_: object) -> list[EvaluationRecord | None]:
    """Score what is missing of the bare base of each mode and of the trials of `configs`, and keep
    what the leading ones write to some test prompts.

    Returns:
        The trials' records; None for a trial that did not complete.
    """
    needed = only_needed(configs, layout)
    engine = engine_of(configs[0], layout)
    if not isinstance(engine, ClusterEngine):
        return score_modes(configs, needed, layout)
    from lorascope.stages.scoring_jobs import score_by_jobs

    return score_by_jobs(engine, configs, needed, layout, keeps_answers=True)


def score_modes(
    configs: Sequence[Config], needed: Sequence[Config], layout: Layout
) -> list[EvaluationRecord | None]:
    """Score, on this computer, what is missing of the bare base of each mode of `configs` and of
    the trials `needed`, whose records it returns, and keep answers of the leading ones."""
    score_bases(configs, layout)
    records = score_trials(needed, layout)
    scored = [(c, r) for c, r in zip(needed, records, strict=True) if r and c.serve is None]
    for config in {config.quant.name: config for config in configs}.values():
        _keep_examples(config, layout, [one for one in scored if one[0].quant == config.quant])
    return records


def score_bases(configs: Sequence[Config], layout: Layout) -> None:
    """Score what is missing of the bare base of each mode."""
    for config in {config.quant.name: config for config in configs}.values():
        bare = replace(config, serve=None)
        _evaluate_subject(bare, layout, base_name(bare, layout), None)


def score_trials(configs: Sequence[Config], layout: Layout) -> list[EvaluationRecord | None]:
    """Score what is missing of trained trials, each in its form; None for one that did not
    complete, or has no such form. Trials that share a loaded base go first."""
    count = len(configs)
    turns = sorted(range(count), key=lambda number: configs[number].serve is not None)
    places = {
        number: f"{turn}/{count} " if count > 1 else "" for turn, number in enumerate(turns, 1)
    }
    scored: dict[int, EvaluationRecord | None] = {}
    waits = False
    while left := [number for number in turns if number not in scored]:
        # What other processes score comes last: so several divide the trials.
        for number in left[:1] if waits else left:
            with nullcontext() if waits else suppress(FolderLocked):
                scored[number] = _evaluate(configs[number], layout, places[number], waits)
        waits = not waits and not any(number in scored for number in left)
    return [scored[number] for number in range(count)]


def _evaluate(config: Config, layout: Layout, place: str, waits: bool) -> EvaluationRecord | None:
    declared = declare_trial(config, layout)
    folder = layout.trials(config.quant.name) / declared.name
    if not (folder / RECORD).is_file():
        raise RecordError(
            f"{declared.name}: not trained. Run `lorascope train-lora` with the same settings."
        )
    trial = read_trial(declared, folder)
    name = scores_name(config, trial.trial)
    if trial.status is not Status.completed:
        print(f"{trial.trial}: not scored, {trial.status} ({trial.reason})")
        return None
    if reason := unservable(config):
        print(f"{name}: not scored, {reason}")
        return None
    return _evaluate_subject(config, layout, name, trial, place, waits)


def _evaluate_subject(
    config: Config,
    layout: Layout,
    name: str,
    trial: TrialRecord | None,
    place: str = "",
    waits: bool = True,
) -> EvaluationRecord | None:
    """Score the trial, or the bare base where it is None, unless its scores are there and made the
    same way; None where the trial cannot be stored in its form.

    Raises:
        FolderLocked: another process scores it, and nobody `waits`.
    """
    folder = layout.evaluations(config.quant.name) / name
    with locked_folder(folder, layout, None if waits else LOOK_SECONDS, on_wait=_tell):
        if trial:
            require_adapter(trial, layout.trials(config.quant.name) / trial.trial)
        identity = evaluation_identity(config, layout, trial)
        if (folder / RECORD).is_file():
            known = read_record(folder, EvaluationRecord)
            if known.identity == identity:
                require_scores(known, folder)
                print(f"{name}: scored already")
                return known
        if taken := take_over_scores(config, layout, name, trial):
            print(f"{name}: scores taken over, with the values that the present code gives")
            return taken
        score = _score if config.serve is None else score_served
        try:
            record = score(config, layout, name, identity, trial, place)
        except NotServedError as error:
            print(f"{name}: not scored, {error}", file=sys.stderr)
            return None
        print(f"{place}{_sentence(record)}", flush=True)
        if config.runtime.tracking:
            from lorascope.tracking import try_publish

            bases = [] if trial else [bare_base(config, layout, record)]
            try_publish([], [record] if trial else [], layout, bases)
        return record


def bare_base(config: Config, layout: Layout, scores: EvaluationRecord) -> BareBase:
    """What the tracking store gets of a mode's bare base."""
    data = read_data(config, layout).content_sha256
    footprint = read_mode(config, layout)
    return BareBase(config.model.name, config.data.name, data, footprint, scores)


def _score(
    config: Config, layout: Layout, name: str, identity: str, trial: TrialRecord | None, place: str
) -> EvaluationRecord:
    """Score the stored base, with the adapter of `trial` where there is one."""
    started = time.perf_counter()
    load_base(config, layout)
    from lorascope.scoring.evaluation import score_subject

    with replaced_folder(layout.evaluations(config.quant.name) / name) as scratch:
        record = score_subject(
            config, layout, name, identity, trial, scratch, place, started,
            base=items_of_base(config, layout) if trial else None,
        )  # fmt: skip
        write_record(scratch, record)
    return record


def _keep_examples(config: Config, layout: Layout, scored: Sequence[Scored]) -> None:
    """Have the bare base of a mode and its leading trials answer the same prompts. They are chosen
    once all are scored."""
    # A head for classes writes no text: nothing need be loaded to know that.
    if not config.evaluate.examples or config.model.classes is not None:
        return
    bare = replace(config, serve=None)
    subjects: list[tuple[Config, TrialRecord | None]] = [(bare, None)]
    for one, _ in leading(scored, config.evaluate.example_trials):
        declared = declare_trial(one, layout)
        subjects.append((one, read_trial(declared, declared.folder)))
    show = StepProgress(f"answers to keep in {config.quant.name}", unit="models")
    for number, (one, trial) in enumerate(subjects, start=1):
        name = trial.trial if trial else base_name(one, layout)
        folder = layout.examples(config.quant.name) / name
        identity = examples_identity(one, layout, trial)
        with locked_folder(folder, layout, wait_seconds=None, on_wait=_tell):
            if current_examples(folder, identity) is not None:
                continue
            load_base(one, layout)
            from lorascope.scoring.kept_examples import keep_examples

            if not keep_examples(one, layout, name, identity, trial):
                print(f"{name}: its answers are not kept, as it writes no text")
                return
        show(number, len(subjects))


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


LOSSES = {"classes": "loss", "preference": "loss of chosen replies"}
"""By data.scoring, whose loss is scored where it is no completion's."""


def _sentence(record: EvaluationRecord) -> str:
    test = record.splits["test"]
    accuracy = "" if test.accuracy is None else f"accuracy {test.accuracy:.3f}, "
    if test.accuracy_norm is not None:
        accuracy += f"by length {test.accuracy_norm:.3f}, "
    loss = LOSSES.get(record.scoring, "completion loss")
    return (
        f"{record.name}: {accuracy}{loss} {test.completion_loss_nats:.4f} nats "
        f"on {test.items} test items"
    )
