"""What the data themselves show against a study's conclusions, in sentences made from numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from lorascope.comparing.preferences import PreferenceScore, preference_scores
from lorascope.comparing.results import CellScore, Comparison, Measure, Pairing
from lorascope.comparing.ruling import Decision
from lorascope.comparing.seed_spread import declared_spread
from lorascope.config import Cost, Scoring
from lorascope.files.revisions import trained_by
from lorascope.records import Status, Study, dial_text, item_column, mixed_versions

HARDLY_ANY = 0.02
"""Share of right answers below which a bare base may not know the form of an answer."""
MANY_FLIPS = 0.1
"""Share of changed answers that is worth a word."""


def threats(
    study: Study,
    scores: Sequence[CellScore],
    comparisons: Sequence[Comparison],
    decision: Decision,
    chance: float | None,
) -> tuple[str, ...]:
    """In the order in which a reviewer would ask."""
    return (
        *_seeds(scores, comparisons, declared_spread(study.decide, decision.measure)),
        *_reference(decision),
        *_margin(decision),
        *_chance(scores, chance),
        *_ceiling(scores, study),
        *_form_alone(study, scores),
        *_items(scores, decision.measure, study),
        *_grid_edge(study, decision),
        *_flips(comparisons),
        *_one_class(study),
        *_displaced(preference_scores(study, decision.measure)),
        *_seed_spread(comparisons),
        *_unequal_seeds(comparisons),
        *_failures(study),
        *_machines(study),
        *_vouched(study),
        *_peaks(scores),
        *_packs(study),
        *_data(study),
    )


def _seeds(
    scores: Sequence[CellScore], comparisons: Sequence[Comparison], declared: float | None
) -> Iterator[str]:
    scored = {t.seed for score in scores for t in score.trials if t.test is not None}
    if len(scored) == 1:
        known = "the spread between seeds in the intervals of differences is the declared one, and"
        unknown = "how much results vary from seed to seed is unknown and in no interval."
        what = unknown if declared is None else f"{known} not measured here."
        yield f"One training seed ({min(scored)}): {what}"
        return
    between = _between_adapters(comparisons)
    alone = [c for c in between if c.smaller_than_seed_spread is None]
    if alone:
        yield (
            f"{len(alone)} of {len(between)} comparisons between adapters rest on a single seed "
            "that both have: how much seeds vary is in none of their intervals."
        )
    if 1 < len(scored) < 5:
        yield f"{len(scored)} training seeds: the spread between seeds is itself a rough estimate."


def _between_adapters(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Those of two adapters: neither with a bare base, nor with the same adapter in another
    form."""
    return [
        c
        for c in comparisons
        if c.pairing is not Pairing.base and c.subject.apart != c.reference.apart
    ]


def _items(scores: Sequence[CellScore], measure: Measure, study: Study) -> Iterator[str]:
    estimates = [estimate for score in scores if (estimate := score.test(measure))]
    if not estimates:
        return
    first = estimates[0]
    if first.clusters is not None:
        of_pairs = "pairs", "prompts, or other groups of dependent ones"
        pairs = study.data.scoring == "preference"
        items, groups = of_pairs if pairs else ("items", "groups of dependent ones")
        yield (
            f"The {first.items} test {items} are {first.clusters} {groups}; intervals and tests "
            "count groups."
        )
    fewer = sorted({e.items for e in estimates})
    if len(fewer) > 1:
        yield f"Not every configuration was scored on the same number of test items: {fewer}."


def _grid_edge(study: Study, decision: Decision) -> Iterator[str]:
    """The best rank, or what else sizes an adapter, may lie outside the grid."""
    finished = [trial.key for trial in study.trials if trial.status is Status.completed]
    for dial, value in decision.reference.shown() if decision.reference else ():
        if not dial.is_axis:
            continue
        tried = sorted({float(key.dials[dial.name]) for key in finished if dial.name in key.dials})
        if len(tried) > 1 and value in (tried[0], tried[-1]):
            edge = "largest" if value == tried[-1] else "smallest"
            size = f"{dial.noun}, {dial_text(value)}"
            yield f"The reference's {size}, is the {edge} that was trained."


def _flips(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Nearly equal accuracy that hides many changed answers."""
    hiding = [c for c in comparisons if c.pairing is Pairing.mode and _hides_flips(c)]
    if not hiding:
        return
    shares = sorted(_changed_share(c) for c in hiding)
    modes = sum(c.pairing is Pairing.mode for c in comparisons)
    largest = max(abs(c.difference.value) for c in hiding)
    low, high = f"{100 * shares[0]:.0f}", f"{100 * shares[-1]:.0f}"
    share = low if low == high else f"{low} to {high}"
    yield (
        f"In {len(hiding)} of {modes} comparisons of modes {share} % of answers change between "
        f"right and wrong, while accuracy moves by {100 * largest:.1f} points at most: nearly "
        "equal accuracy is not equal behaviour."
    )


def _one_class(study: Study) -> Iterator[str]:
    """Trials that give every test item the same class, whatever its own."""
    tables = [
        study.items.get(e.identity, {}).get("test", ())
        for e in study.evaluations
        if e.key is not None and e.served is None
    ]
    classes = [
        (set(item_column(own, "predicted")), set(item_column(own, "label"))) for own in tables
    ]
    classed = [(said, own) for said, own in classes if said - {None}]
    alike = [said for said, own in classed if len(said) < 2 <= len(own)]
    if alike:
        yield (
            f"{len(alike)} of {len(classed)} trials gave every test item one and the same class, "
            "and learnt no more than which is frequent. Try a lower train.learning_rate or more "
            "steps."
        )


def _displaced(scores: Sequence[PreferenceScore]) -> Iterator[str]:
    """Margins that rose because the rejected reply fell faster."""
    fell = [score for score in scores if score.is_displaced]
    if fell:
        most = min(score.chosen_gain_nats for score in fell)
        yield (
            f"In {len(fell)} of {len(scores)} configurations the chosen replies became less likely "
            f"than under the bare base (by up to {-most:.1f} nats a reply) while margins rose: the "
            "rejected ones only fell faster, and what the model writes instead is in no score. "
            "Read generations, raise train.beta, or train on the chosen replies first."
        )


def _changed_share(comparison: Comparison) -> float:
    won, lost = comparison.subject_only_right or 0, comparison.reference_only_right or 0
    return (won + lost) / comparison.judged if comparison.judged else 0.0


def _hides_flips(comparison: Comparison) -> bool:
    changed = _changed_share(comparison)
    return changed >= MANY_FLIPS and abs(comparison.difference.value) <= changed / 4


def _seed_spread(comparisons: Sequence[Comparison]) -> Iterator[str]:
    between = _between_adapters(comparisons)
    known = [c for c in between if c.smaller_than_seed_spread is not None]
    small = [c for c in known if c.smaller_than_seed_spread]
    if small:
        yield (
            f"{len(small)} of {len(known)} differences between adapters are smaller than "
            "the spread from seed to seed that they are reckoned with."
        )


def _unequal_seeds(comparisons: Sequence[Comparison]) -> Iterator[str]:
    seeds = [c.difference.seeds for c in comparisons]
    fewer = [count for count in seeds if count < max(seeds)]
    if fewer:
        yield (
            f"{len(fewer)} of {len(seeds)} comparisons rest on fewer than {max(seeds)} seeds, down "
            f"to {min(fewer)}."
        )


def _reference(decision: Decision) -> Iterator[str]:
    if decision.reference is None or decision.reference_is_declared:
        return
    rule, cell = decision.rule, decision.reference
    declared = rule.reference_quant + (
        f", rank {rule.reference_rank}" if rule.reference_rank else ""
    )
    yield (
        f"The declared reference ({declared}) has no complete configuration in this study; "
        f"{cell.quant}, {cell.size()} stands in for it."
    )


def _margin(decision: Decision) -> Iterator[str]:
    if not decision.margin_hides_training or decision.reference_gain is None:
        return
    score, step = decision.measure.score, decision.measure.step
    yield (
        f"The reference gained {score(decision.reference_gain)} {step} over its bare base on "
        f"validation items, no more than the margin of {score(decision.margin)}: an adapter that "
        "learnt nothing would count as no worse."
    )


def _chance(scores: Sequence[CellScore], chance: float | None) -> Iterator[str]:
    """Scores that guessing could give."""
    if chance is None:
        return
    adapters = [s.accuracy for s in scores if s.accuracy and not s.cell.base]
    near = [one for one in adapters if one.low <= chance]
    if near:
        yield (
            f"The 95 % intervals of {len(near)} of {len(adapters)} adapters reach down to chance, "
            f"{100 * chance:.1f} %: guessing could give such scores."
        )


def _ceiling(scores: Sequence[CellScore], study: Study) -> Iterator[str]:
    """Scores that no adapter could better."""
    adapters = {s.cell.apart: s.accuracy for s in scores if s.accuracy and not s.cell.base}
    full = [one for one in adapters.values() if one.value == 1.0]
    if len(full) > 1:
        item = "pair" if study.data.scoring == Scoring.preference else "item"
        yield (
            f"{len(full)} of {len(adapters)} adapters have every test {item} right: {item}s this "
            "easy cannot tell them apart, and harder ones might."
        )


def _form_alone(study: Study, scores: Sequence[CellScore]) -> Iterator[str]:
    """A bare base that answers nothing right may only write in another form."""
    if study.data.scoring != Scoring.answer:
        return
    bases = [s.accuracy for s in scores if s.accuracy and s.cell.base]
    if not bases or max(one.value for one in bases) >= HARDLY_ANY:
        return
    yield (
        f"The bare base gives at most {100 * max(one.value for one in bases):.1f} % of the answers "
        "in the form that is asked for: what an adapter gained over it may be that form alone, and "
        "a gain over it is no measure of what was learnt."
        f"{_commonest(study)}"
    )


def _commonest(study: Study) -> str:
    """What always the same answer would get, on test items."""
    scored = next((own["test"] for own in study.items.values() if own.get("test")), [])
    if not scored:
        return ""
    most = Counter(item_column(scored, "target_sha256")).most_common(1)[0][1]
    return f" Always the commonest answer would be right on {100 * most / len(scored):.1f} %."


def _failures(study: Study) -> Iterator[str]:
    ended = [trial for trial in study.trials if trial.status is not Status.completed]
    lost = len(ended) + len(study.missing)
    if lost:
        total = len(study.trials) + len(study.missing)
        yield f"{lost} of {total} declared trials have no result; nothing is known of them."


def _machines(study: Study) -> Iterator[str]:
    made = [trial.provenance for trial in study.trials if trial.status is Status.completed]
    for what in ("device", "python", "threads"):
        values = sorted({str(getattr(provenance, what)) for provenance in made})
        if len(values) > 1:
            yield f"Trials ran on more than one {what}: {', '.join(values)}."
    if mixed := mixed_versions(made):
        yield f"Trials ran with more than one version of {', '.join(mixed)}."
    # Without a commit there is none that they would differ from: provenance says so.
    if any(provenance.git_dirty and provenance.git_commit for provenance in made):
        yield "Some trials ran from a working tree with uncommitted changes."


def _vouched(study: Study) -> Iterator[str]:
    """Trials of other code, of which somebody said that it gives the same values."""
    vouched = [t for t in study.trials if t.taken_over and t.taken_over.assumed]
    if vouched:
        code = sorted({trained_by(trial) for trial in vouched})
        yield (
            f"{len(vouched)} of {len(study.trials)} trials were trained by {', '.join(code)}, and "
            "taken over on somebody's word that the present code gives the same values."
        )


def _peaks(scores: Sequence[CellScore]) -> Iterator[str]:
    """An adapter is trained once, whatever the forms that it is served in."""
    adapters = [score for score in scores if Cost.training_peak_bytes in score.costs]
    predicted = {score.cell.apart for score in adapters if not score.peak_measured}
    if predicted:
        yield f"Training peaks of {len(predicted)} configurations are predicted, not measured."


def _packs(study: Study) -> Iterator[str]:
    packed = [t for t in study.trials if t.result is not None and t.result.trials_at_once > 1]
    if packed:
        yield (
            f"{len(packed)} of {len(study.trials)} trials were trained several at once: their "
            "seconds are shares of a pack's, whatever their ranks. A study that compares seconds "
            "trains each alone, from its start on, with runtime.pack_trials=1."
        )


def _data(study: Study) -> Iterator[str]:
    yield from (f"Data card: {warning}" for warning in study.data.warnings)
