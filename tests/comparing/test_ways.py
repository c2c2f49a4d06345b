"""Ways to serve in one mode: who is held against whom, and what the table says of it."""

from __future__ import annotations

import json
from dataclasses import replace

from lorascope.comparing.findings import compare
from lorascope.comparing.results import Measure
from lorascope.comparing.ways import Way
from lorascope.config import APART
from lorascope.records import EvaluationRecord, ServedForm, Study, TrialRecord
from lorascope.reporting.metrics import metrics_json
from lorascope.reporting.tables.ways import way_sentences, ways_table
from lorascope.stages.status import best_of
from lorascope.study.status import ModeStatus
from tests.study_factory import Trial, digest, make_study, scored_items

SEEDS = (0, 1, 2)


def test_each_way_is_held_against_what_it_competes_with() -> None:
    findings = compare(study())
    ways = {(own.mode, own.way, own.cell.quant): own for own in findings.ways}
    assert list(ways) == [
        ("fp16", Way.apart, "fp16"), ("fp16", Way.afterwards, "nf4"),
        ("int8", Way.afterwards, "fp16"), ("int8", Way.through, "fp16"),
        ("int8", Way.apart, "int8"),
    ]  # fmt: skip
    through = ways["int8", Way.through, "fp16"]
    references = [
        (one.reference.quant, one.reference.serve, one.reference.variant)
        for one in (through.against_reference, through.against_afterwards, through.against_apart)
        if one is not None
    ]
    assert references == [("fp16", APART, ""), ("fp16", "int8", ""), ("int8", APART, "")]
    assert through.cell.variant == "qat=int8_sym"
    afterwards = ways["int8", Way.afterwards, "fp16"]
    assert afterwards.against_afterwards is None
    assert ways["fp16", Way.apart, "fp16"].against_reference is None
    assert ways["int8", Way.apart, "int8"].against_apart is None
    # NF4's merged model is one of those that are served in fp16.
    merged = ways["fp16", Way.afterwards, "nf4"].against_reference
    assert merged is not None
    assert merged.reference.quant == "fp16"


def test_differences_are_those_of_the_scores_and_of_the_same_test() -> None:
    made = study()
    findings = compare(made)
    (through,) = [own for own in findings.ways if own.way is Way.through]
    one = through.against_afterwards
    assert one is not None
    scores = [findings.score(cell).accuracy for cell in (one.subject, one.reference)]
    assert scores[0] is not None
    assert scores[1] is not None
    assert abs(one.difference.value - (scores[0].value - scores[1].value)) < 1e-12
    assert one.difference.seeds == len(SEEDS)
    # Seven comparisons are corrected together, apart from those of the study.
    known = [
        found
        for own in findings.ways
        for found in (own.against_reference, own.against_afterwards, own.against_apart)
        if found is not None
    ]
    assert len({(found.subject, found.reference) for found in known}) == 7
    assert not set(known) & set(findings.comparisons)


def test_the_table_and_its_sentences_say_which_way_is_better() -> None:
    findings = compare(study())
    rows = ways_table(findings, Measure.accuracy).csv().splitlines()
    assert len(rows) == 1 + len(findings.ways)
    sentences = way_sentences(findings, Measure.accuracy)
    (said,) = [text for text in sentences if text.startswith("int8, against merging")]
    assert "trained through the merge +20.0 points" in said
    assert said.split("; ")[0].endswith("better")


def test_what_was_trained_for_another_grid_is_no_way_of_this_one() -> None:
    made = study()
    trials = [
        replace(trial, settings={**trial.settings, "train": {"qat": "int4_sym"}})
        if trial.trial.endswith("-through")
        else trial
        for trial in made.trials
    ]
    ways = compare(replace(made, trials=trials)).ways
    assert Way.through not in [own.way for own in ways]
    # Groups of 32 are another grid than rows.
    grouped = {"qat": "int8_sym", "qat_group_size": 32}
    trials = [
        replace(trial, settings={**trial.settings, "train": grouped})
        if trial.trial.endswith("-through")
        else trial
        for trial in made.trials
    ]
    assert len(compare(replace(made, trials=trials)).ways) == len(ways)


def test_each_rank_has_its_own_sentences_and_scores_are_counted() -> None:
    """One rank 4 seed has no score in int8."""
    ranks = [study(rank) for rank in (8, 4)]
    lost = next(e for e in ranks[1].evaluations if e.served and e.served.name == "int8")
    both = replace(
        ranks[0],
        trials=ranks[0].trials + ranks[1].trials,
        evaluations=[e for one in ranks for e in one.evaluations if e is not lost],
        forms=ranks[0].forms | ranks[1].forms,
        items={**ranks[0].items, **ranks[1].items},
    )
    findings = compare(both)
    sentences = way_sentences(findings, Measure.accuracy)
    assert sum(text.startswith("rank 4: int8, against merging") for text in sentences) == 1
    assert sum(text.startswith("rank 8: int8, against merging") for text in sentences) == 1
    seeds = [row.scored_seeds for row in ways_table(findings, Measure.accuracy).rows]
    assert sorted(set(seeds)) == [2, 3]
    assert seeds.count(2) == 1


def test_losses_are_compared_beside_accuracy() -> None:
    findings = compare(study())
    assert [own.cell for own in findings.ways_by_loss] == [own.cell for own in findings.ways]
    (through,) = [own for own in findings.ways_by_loss if own.way is Way.through]
    assert through.against_afterwards is not None
    assert through.against_afterwards.measure is Measure.loss_nats
    assert len(ways_table(findings, Measure.loss_nats).rows) == len(findings.ways)


def test_a_trial_that_is_scored_merged_alone_counts_beside_those_apart() -> None:
    """In fp16 three trials are scored apart and merged, and three merged alone."""
    made = study()
    best = next(t for t in made.trials if t.settings.get("train"))
    made = replace(
        made,
        evaluations=[
            replace(
                e,
                splits={**e.splits, "validation": replace(e.splits["validation"], accuracy=0.95)},
            )
            if e.trial_identity == best.identity
            else e
            for e in made.evaluations
        ],
    )
    told = json.loads(metrics_json(made, compare(made).decision))["fp16"]
    assert (told["scored_trials"], told["unscored_trials"]) == (6, 0)
    assert (told["best_trial"], told["best_accuracy"]) == (best.trial, 0.8)
    mode = ModeStatus(
        "fp16",
        trials=[t for t in made.trials if t.key.quant == "fp16"],
        scores={e.name: e for e in made.evaluations if e.quant == "fp16" and e.key},
    )
    (found,) = [one for one in best_of(mode) if one.measure.startswith("validation accuracy")]
    assert (found.trial, found.value) == (best, "95.0")


def test_a_study_of_adapters_apart_has_no_ways() -> None:
    findings = compare(make_study([Trial("fp16"), Trial("int8")]))
    assert findings.ways == ()
    assert not ways_table(findings, Measure.accuracy).rows


def study(rank: int = 8) -> Study:
    """Accuracy 0.9 apart, 0.6 merged and stored as int8, 0.8 where it was trained for that."""
    own = [
        Trial(quant, rank=rank, seed=seed) for seed in SEEDS for quant in ("fp16", "int8", "nf4")
    ]
    through = [Trial("fp16", rank=rank, seed=seed, accuracy=0.8) for seed in SEEDS]
    both = make_study([*own, *through], items=400)
    trials = [*both.trials[: len(own)], *map(_through, both.trials[len(own) :])]
    apart = [e for e in both.evaluations if e.trial_identity is not None][: len(own)]
    merged = {"fp16": ("int8", 0.6), "nf4": ("fp16", 0.85)}
    served = [
        _served(scored, trial, *merged[scored.quant])
        for scored, trial in zip(apart, trials, strict=False)
        if scored.quant in merged
    ]
    served += [_served(apart[0], trial, "int8", 0.8) for trial in trials[len(own) :]]
    bases = [e for e in both.evaluations if e.trial_identity is None]
    evaluations = [*bases, *apart, *served]
    forms = {t.trial: [APART, "int8"] if t.key.quant == "fp16" else [APART] for t in trials}
    forms |= {t.trial: ["fp16"] for t in trials if t.key.quant == "nf4"}
    forms |= {t.trial: ["int8"] for t in trials[len(own) :]}
    return replace(
        both,
        trials=trials,
        evaluations=evaluations,
        forms=forms,
        items={e.identity: scored_items(e) for e in evaluations},
    )


def _through(trial: TrialRecord) -> TrialRecord:
    identity = digest(f"{trial.identity} through")
    return replace(
        trial,
        trial=f"{trial.trial}-through",
        identity=identity,
        settings={**trial.settings, "train": {"qat": "int8_sym"}},
    )


def _served(
    apart: EvaluationRecord, trial: TrialRecord, mode: str, accuracy: float
) -> EvaluationRecord:
    stored = {"quant.storage": {"int8": "int8_sym"}.get(mode, "float16"), "quant.group_size": None}
    form = ServedForm(mode, dict(stored), 1000, 1000, 8.0, digest(mode))
    splits = {name: replace(score, accuracy=accuracy) for name, score in apart.splits.items()}
    name = f"{trial.trial}@{mode}"
    return replace(
        apart,
        name=name,
        identity=digest(name),
        key=trial.key,
        trial_identity=trial.identity,
        quant=trial.key.quant,
        served=form,
        splits=splits,
    )
