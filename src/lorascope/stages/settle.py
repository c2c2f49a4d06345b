"""settle: train and score what the answer needs, cheapest first, until it stands."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from lorascope.comparing.budget import spent, stops
from lorascope.comparing.cells import study_measure
from lorascope.comparing.foreseen import Rounds, foreseen
from lorascope.comparing.settling import Look, Settling
from lorascope.config import Config, Search
from lorascope.errors import LorascopeError, RecordError
from lorascope.execution.cluster import ClusterEngine
from lorascope.execution.kinds import engine_of
from lorascope.execution.packs import Trial, packs_of
from lorascope.execution.scored_base import let_go
from lorascope.execution.sweep import run_sweep
from lorascope.files.layout import Layout
from lorascope.records import LASTING
from lorascope.reporting.settling_text import (
    look_line,
    outcome,
    plan_text,
    round_line,
    settled_content,
)
from lorascope.stages.evaluate import score_bases, score_trials
from lorascope.stages.scoring_jobs import score_by_jobs
from lorascope.study.collect import collect_all, settle_study
from lorascope.study.declared import declare_trial
from lorascope.study.needed import require_settleable, write_settled


def command(configs: Sequence[Config], layout: Layout, *_: object) -> None:
    """Ask for trials, train and score them, look, and go on until nothing more is wanted.

    What is wanted follows from the records alone: after a kill it goes on where it stood.
    """
    first = configs[0]
    if first.search is Search.grid:
        write_settled(Search.grid, {}, layout)
        print("search: grid: nothing to settle")
        return
    require_settleable(configs)
    by_name = {declare_trial(config, layout).name: config for config in configs}
    _score(configs, [], layout)
    _train_again(by_name, layout)
    before: Settling | None = None
    while True:
        study = collect_all(list(configs), layout)
        settling = settle_study(study)
        to_come = foreseen(study, settling)
        if before is None:
            packs = (_packs(to_come.least, by_name, layout), _packs(to_come.most, by_name, layout))
            print(plan_text(study, settling, to_come, packs), flush=True)
        for look in _new_looks(settling, before):
            print(look_line(look, settling, study_measure(study)), flush=True)
        why = stops(study, settling, first.decide) if settling.wanted else None
        write_settled(Search.settle, settled_content(study, settling, why), layout)
        if not settling.wanted or why:
            break
        if before is not None and settling.wanted == before.wanted:
            raise RecordError(
                f"{', '.join(before.wanted)}: trained and scored, and still without a score. "
                "`lorascope status` says what became of it."
            )
        so_far = spent(study, settling, first.decide)
        print(round_line(settling, so_far, to_come, first.decide), flush=True)
        if settling.ahead:
            print(f"in the same pack, in advance: {', '.join(settling.ahead)}", flush=True)
        before = settling
        wanted, ahead = ([by_name[n] for n in names] for names in (settling.wanted, settling.ahead))
        train_and_score(wanted, layout, ahead)
    print(outcome(study, settling, why), flush=True)


def _new_looks(settling: Settling, before: Settling | None) -> tuple[Look, ...]:
    """Those since; at another reference all are new."""
    if before is None or before.reference != settling.reference:
        return settling.looks
    return settling.looks[len(before.looks) :]


def _packs(rounds: Rounds, by_name: Mapping[str, Config], layout: Layout) -> int:
    """In how many packs these are trained, one pack at a time, if memory holds them."""
    return sum(
        len(packs_of([Trial(**vars(declare_trial(by_name[n], layout)), work=1.0) for n in names]))
        for names in rounds
    )


def _train_again(by_name: Mapping[str, Config], layout: Layout) -> None:
    """Once a run, what was asked for before and ended without a result that lasts, such as for
    want of memory: if it ends so again, its candidate is refused."""
    study = collect_all(list(by_name.values()), layout)
    used = settle_study(study).used
    again = [t.trial for t in study.trials if t.trial in used and t.status not in LASTING]
    if again:
        train_and_score([by_name[name] for name in again], layout)


def train_and_score(
    configs: Sequence[Config], layout: Layout, in_advance: Sequence[Config] = ()
) -> None:
    # What is trained needs the memory of what was scored last.
    let_go()
    try:
        run_sweep([*configs, *in_advance], layout)
    except LorascopeError as error:
        if not in_advance:
            raise
        # What nothing needs yet ends no settling.
        print(error, file=sys.stderr, flush=True)
        run_sweep(configs, layout)
    _score(configs, configs, layout)


def _score(configs: Sequence[Config], trials: Sequence[Config], layout: Layout) -> None:
    """Score what is missing of `trials`, or else of the bare bases of `configs`, where `engine`
    says."""
    engine = engine_of(configs[0], layout)
    if isinstance(engine, ClusterEngine):
        score_by_jobs(engine, configs, trials, layout, keeps_answers=False)
    elif trials:
        score_trials(trials, layout)
    else:
        score_bases(configs, layout)
