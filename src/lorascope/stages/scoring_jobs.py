"""evaluate on a cluster: parts of each mode's trials are jobs that score on its nodes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lorascope.config import Config, DeviceKind, EngineConfig
from lorascope.errors import LorascopeError
from lorascope.execution.child import answer
from lorascope.execution.cluster import ClusterEngine, Work
from lorascope.execution.engine import OUTPUT, Event, Outcome
from lorascope.execution.job_memory import gpu_job_bytes, job_bytes, on_gpu
from lorascope.execution.packs import in_slots
from lorascope.execution.stop import StopRequest, stop_request
from lorascope.files.layout import RECORD, Layout
from lorascope.files.store import read_record
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
from lorascope.study.intact import read_base, read_mode
from lorascope.study.intact_scores import current_examples
from lorascope.tracking import BareBase

FEWEST_TRIALS = 4
"""Trials in each of several jobs at least: each loads the base, which takes seconds."""
ECHO_SECONDS = 0.5


@dataclass(frozen=True)
class Part:
    """What one job scores."""

    base: Config
    """The mode, without a form."""
    trials: Sequence[Config]
    """Some of that mode; or none, for its bare base alone."""
    is_whole: bool
    """Whether these are all trials of the mode, so that the leading ones are known, whose answers
    are kept."""


def score_by_jobs(
    engine: ClusterEngine,
    configs: Sequence[Config],
    needed: Sequence[Config],
    layout: Layout,
    keeps_answers: bool,
) -> list[EvaluationRecord | None]:
    """Have `engine` score what is missing of the bare bases of the modes of `configs` and of the
    trials `needed`; the trials' records.

    Raises:
        LorascopeError: a job failed; what others scored is there.
    """
    first = configs[0]
    engine.prepare()
    engine.await_ready()
    before = _scores(configs, needed, layout)
    parts = [
        part
        for part in _parts(configs, needed, first.engine.jobs_at_once)
        if any(_lacks_scores(config, layout) for config in part.trials)
        or _base_lacks(part.base, layout, keeps_answers)
    ]
    with stop_request(lambda: None) as stop:
        _run(parts, engine, layout, stop)
        if keeps_answers and first.evaluate.examples:
            done = {part.base.quant.name for part in parts if part.is_whole}
            tried = {part.base.quant.name for part in parts} - done
            left = [one for one in _parts(configs, needed, 1) if one.base.quant.name in tried]
            _run(left, engine, layout, stop)
    found = _scores(configs, needed, layout)
    new = {path: record for path, record in found.items() if before.get(path) != record}
    _publish(configs, layout, new)
    return [found.get(_folder(config, layout)) for config in needed]


def _lacks_scores(config: Config, layout: Layout) -> bool:
    """Whether a node has something to do, or to say, of a trial."""
    declared = declare_trial(config, layout)
    if not declared.is_recorded:
        return True
    trial = read_trial(declared, declared.folder)
    if trial.status is not Status.completed or unservable(config):
        return False
    return not _is_scored(config, scores_name(config, declared.name), trial, layout)


def _is_scored(config: Config, name: str, trial: TrialRecord | None, layout: Layout) -> bool:
    folder = layout.evaluations(config.quant.name) / name
    if not (folder / RECORD).is_file():
        return False
    found = read_record(folder, EvaluationRecord).identity
    return found == evaluation_identity(config, layout, trial)


def _base_lacks(base: Config, layout: Layout, keeps_answers: bool) -> bool:
    """Whether the bare base of a mode has no scores, or no answers as they are asked for."""
    name = base_name(base, layout)
    if not _is_scored(base, name, None, layout):
        return True
    if not keeps_answers or not base.evaluate.examples or base.model.classes is not None:
        return False
    identity = examples_identity(base, layout, None)
    return current_examples(layout.examples(base.quant.name) / name, identity) is None


def _bare(configs: Sequence[Config]) -> list[Config]:
    """One configuration of each mode, without a form."""
    return list({config.quant.name: replace(config, serve=None) for config in configs}.values())


def _parts(configs: Sequence[Config], needed: Sequence[Config], jobs: int) -> list[Part]:
    """The trials of each mode, divided among so many jobs in all, one or more for each mode."""
    bases, parts = _bare(configs), []
    for base in bases:
        own = [config for config in needed if config.quant == base.quant]
        count = max(1, min(jobs // len(bases), len(own) // FEWEST_TRIALS))
        parts += [Part(base, own[first::count], count == 1) for first in range(count)]
    return parts


def _run(parts: Sequence[Part], engine: ClusterEngine, layout: Layout, stop: StopRequest) -> None:
    def work(part: Part, slot: object) -> str | None:
        body = partial(score_part, part, layout.root)
        job = engine.submit_work(Work(body, partial(scoring_bytes, part, layout.root)))
        with stop.running(job), _echoed(job.folder / OUTPUT):
            return _failure(job.wait(_ignore, None), part)

    if not parts:
        return
    ended = in_slots(parts, engine.slots(len(parts)), work, stop)
    if failed := [failure for failure in ended if failure]:
        raise LorascopeError("\n".join(failed))


def _ignore(event: Event) -> None:
    """Scoring tells of no steps."""


def _failure(outcome: Outcome, part: Part) -> str | None:
    """Why the part was not scored, with what helps."""
    title = f"scoring {part.base.quant.name}"
    if outcome.failure is not None:
        return f"{title}: {outcome.failure.reason}"
    if outcome.timed_out:
        return f"{title}: {outcome.limit} ended it. Set more; what was scored is kept."
    if outcome.exit_signal is not None:
        return (
            f"{title}: ended by signal {outcome.exit_signal}, often for want of memory. Set "
            "engine.memory_gb, or a smaller evaluate.batch_size for all that is compared."
        )
    return None


def score_part(part: Part, root: Path, folder: Path) -> None:
    """The body of a process on a node."""
    answer(folder, lambda progress: _scored(part, Layout(root)))


def _scored(part: Part, layout: Layout) -> Outcome:
    from lorascope.machine.environment import prepare_environment
    from lorascope.stages import evaluate

    # One process writes to MLflow: the one that waits for the jobs.
    runtime = replace(part.base.runtime, tracking=False)
    prepare_environment(runtime)
    base, *trials = (
        replace(config, engine=EngineConfig(), runtime=runtime)
        for config in (part.base, *part.trials)
    )
    if part.is_whole:
        evaluate.score_modes([base], trials, layout)
    else:
        evaluate.score_bases([base], layout)
        evaluate.score_trials(trials, layout)
    return Outcome()


def scoring_bytes(part: Part, root: Path) -> int:
    """RAM that a job asks for to score the part: what its largest form needs."""
    from lorascope.planning.scored import prepared_score_bytes
    from lorascope.planning.served import storing_bytes

    layout, needs = Layout(root), []
    for config in {one.form: one for one in (part.base, *part.trials)}.values():
        if on_gpu(config):
            return gpu_job_bytes(layout.base(config.model.name))
        needs.append(prepared_score_bytes(config, layout, DeviceKind.cpu))
        if config.serve is not None:
            base, stored = read_base(config, layout), read_mode(config, layout)
            needs.append(storing_bytes(base, stored, config.serve))
    return job_bytes(max(needs))


@contextmanager
def _echoed(path: Path) -> Iterator[None]:
    """Within it, what is printed to `path`, which comes and goes, is printed here too."""
    ended = threading.Event()
    thread = threading.Thread(target=_echo, args=(path, ended))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _echo(path: Path, ended: threading.Event) -> None:
    while not path.exists():
        if ended.wait(ECHO_SECONDS):
            return
    with path.open(encoding="utf-8", errors="replace") as stream:
        last = False
        while not last:
            # What came before the end is read, though the file is gone by then.
            last = ended.wait(ECHO_SECONDS)
            sys.stdout.write(stream.read())
            sys.stdout.flush()


def _folder(config: Config, layout: Layout) -> Path:
    name = scores_name(config, declare_trial(config, layout).name)
    return layout.evaluations(config.quant.name) / name


def _scores(
    configs: Sequence[Config], needed: Sequence[Config], layout: Layout
) -> dict[Path, EvaluationRecord]:
    """Folder -> scores of bare bases and trials that are there."""
    folders = [
        layout.evaluations(one.quant.name) / base_name(one, layout) for one in _bare(configs)
    ]
    folders += [_folder(config, layout) for config in needed]
    there = [folder for folder in folders if (folder / RECORD).is_file()]
    return {folder: read_record(folder, EvaluationRecord) for folder in there}


def _publish(configs: Sequence[Config], layout: Layout, new: dict[Path, EvaluationRecord]) -> None:
    if not configs[0].runtime.tracking or not new:
        return
    from lorascope.stages.evaluate import bare_base
    from lorascope.tracking import try_publish

    bases: list[BareBase] = []
    for config in _bare(configs):
        own = new.pop(layout.evaluations(config.quant.name) / base_name(config, layout), None)
        bases += [bare_base(config, layout, own)] if own else []
    try_publish([], list(new.values()), layout, bases)
