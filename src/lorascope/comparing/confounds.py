"""What differs between two configurations beside what their comparison is about."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lorascope.adapters.kinds import method_of
from lorascope.comparing.cells import Scored
from lorascope.comparing.results import Pairing
from lorascope.files.revisions import trained_by
from lorascope.records import EvaluationRecord, TrialRecord

MADE_ON = {
    "device": "device",
    "threads": "threads",
    "shards": "numbers of devices",
    "placed": "numbers of devices that layers are placed over",
}
"""What a record's provenance says of where it was made, and the words for it."""
CONTENT = ("base", "data")
"""Settings that are digests: a mode has its own stored base, other data are named in words."""


def confounds_of(
    pairing: Pairing,
    subjects: Sequence[Scored],
    references: Sequence[Scored],
    common_items: int,
) -> tuple[str, ...]:
    """Differences that could explain a gap as well, each with both values."""
    evaluations = [[scored.evaluation for scored in side] for side in (subjects, references)]
    named = [*_of_items(evaluations, common_items), *_of_scoring(*evaluations)]
    left, right = ([s.trial for s in side if s.trial] for side in (subjects, references))
    if left and right and pairing is not Pairing.base:
        known = [next(s.other_settings for s in side if s.trial) for side in (subjects, references)]
        named += _of_training(left[0], right[0], known)
        named += _of_machines("trained", left, right)
    return tuple(named)


def _of_training(
    subject: TrialRecord, reference: TrialRecord, known: Sequence[Mapping[str, object]]
) -> Iterator[str]:
    """`known` holds the settings of both that their keys do not name."""
    sizes = [dict(_step_sizes(trial)) for trial in (subject, reference)]
    for name in sizes[0]:
        if name in sizes[1] and not math.isclose(sizes[0][name], sizes[1][name]):
            yield f"{name} {sizes[0][name]:.4g} against {sizes[1][name]:.4g}"
    methods = {subject.key.method, reference.key.method}
    # What names already say: a mode's settings, and those that only one of two methods has.
    said = {"quant"}
    if len(methods) > 1:
        yield from _of_rates(learning_rate_of(subject), learning_rate_of(reference))
        said |= {*methods, "train.learning_rate"}
    for name in dict.fromkeys([*known[0], *known[1]]):
        values = [settings.get(name) for settings in known]
        if values[0] != values[1] and not {name, name.split(".")[0]} & {*said, *CONTENT}:
            yield f"{name} {values[0]} against {values[1]}"
    if subject.settings.get("data") != reference.settings.get("data"):
        yield "other data"
    code = trained_by(subject), trained_by(reference)
    if code[0] != code[1]:
        yield f"trained by other code ({code[0]} / {code[1]})"


def _step_sizes(trial: TrialRecord) -> Iterator[tuple[str, float]]:
    """What a method's dials make of the adapter's contribution, and of a step of its weights."""
    method = method_of(trial.key.method)
    if method.scale is not None:
        yield "effective scale", method.scale(trial.key.dials)
    rate = learning_rate_of(trial)
    if rate is not None:
        for dial in method.dials:
            if dial.times_learning_rate and dial.name in trial.key.dials:
                yield f"{dial.noun} x learning rate", float(trial.key.dials[dial.name]) * rate


def learning_rate_of(trial: TrialRecord) -> float | None:
    """The rate that the trial was trained at; None where its record does not say it."""
    train, adapter = (trial.settings.get(group) for group in ("train", trial.key.method))
    rate = train.get("learning_rate") if isinstance(train, Mapping) else None
    factor = adapter.get("learning_rate_factor", 1.0) if isinstance(adapter, Mapping) else 1.0
    # Without the last digits that a product leaves behind.
    return float(f"{rate * float(factor):.12g}") if isinstance(rate, int | float) else None


def _of_rates(subject: float | None, reference: float | None) -> Iterator[str]:
    """What comparing methods at one rate each leaves open."""
    if subject is not None and reference is not None:
        both = (
            f"{subject:.4g}" if subject == reference else f"{subject:.4g} against {reference:.4g}"
        )
        yield f"one learning rate a method ({both}), where each may do better at another"


Made = TrialRecord | EvaluationRecord


def _of_machines(verb: str, left: Sequence[Made], right: Sequence[Made]) -> Iterator[str]:
    names = sorted({name for r in (*left, *right) for name in r.provenance.versions})
    changed = []
    for name in names:
        both = [{str(r.provenance.versions.get(name)) for r in side} for side in (left, right)]
        if both[0] != both[1]:
            changed.append(f"{name} {' / '.join(', '.join(sorted(side)) for side in both)}")
    if changed:
        yield f"{verb} with other versions ({', '.join(changed)})"
    for what, words in MADE_ON.items():
        both = [{getattr(r.provenance, what) for r in side} for side in (left, right)]
        if both[0] != both[1]:
            shown = [", ".join(map(str, sorted(side))) for side in both]
            yield f"{verb} on other {words} ({shown[0]} / {shown[1]})"


def _of_items(sides: Iterable[Sequence[EvaluationRecord]], common: int) -> Iterator[str]:
    """Other prompts, targets or items, as their hashes say."""
    scored = max(e.splits["test"].items for side in sides for e in side)
    if common < scored:
        yield f"{common} of {scored} test items in common, the others' prompts or targets differ"


def _of_scoring(
    left: Sequence[EvaluationRecord], right: Sequence[EvaluationRecord]
) -> Iterator[str]:
    sizes = [{record.batch_size for record in side} for side in (left, right)]
    if sizes[0] != sizes[1]:
        yield f"scored with batch size {sorted(sizes[0])} / {sorted(sizes[1])}"
    yield from _of_machines("scored", left, right)
