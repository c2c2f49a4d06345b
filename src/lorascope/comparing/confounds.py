"""What differs between two configurations beside what their comparison is about."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lorascope.comparing.cells import other_settings
from lorascope.comparing.results import Pairing
from lorascope.files.revisions import trained_by
from lorascope.records import EvaluationRecord, TrialRecord

CONTENT = ("base", "data")
"""Settings that are digests: a mode has its own stored base, other data are named in words."""


def effective_scale(trial: TrialRecord) -> float:
    """What B A is multiplied by: alpha / rank, under rsLoRA alpha / sqrt(rank)
    (Kalajdzievski 2023, arXiv 2312.03732)."""
    key = trial.key
    return key.alpha / (math.sqrt(key.rank) if key.rslora else key.rank)


def confounds_of(
    pairing: Pairing,
    subjects: Sequence[tuple[TrialRecord | None, EvaluationRecord]],
    references: Sequence[tuple[TrialRecord | None, EvaluationRecord]],
    common_items: int,
) -> tuple[str, ...]:
    """Differences that could explain a gap as well, each with both values."""
    evaluations = [e for _, e in subjects], [e for _, e in references]
    named = [*_of_items(evaluations, common_items), *_of_scoring(*evaluations)]
    left = [trial for trial, _ in subjects if trial]
    right = [trial for trial, _ in references if trial]
    if left and right and pairing is not Pairing.base:
        named += _of_training(left[0], right[0])
        named += _of_machines("trained", left, right)
    return tuple(named)


def _of_training(subject: TrialRecord, reference: TrialRecord) -> Iterator[str]:
    scales = effective_scale(subject), effective_scale(reference)
    if not math.isclose(*scales):
        yield f"effective scale {scales[0]:.4g} against {scales[1]:.4g}"
    rates = [_setting(trial, "train", "learning_rate") for trial in (subject, reference)]
    if all(isinstance(rate, int | float) for rate in rates):
        products = [
            trial.key.alpha * float(rate)  # type: ignore[arg-type]
            for trial, rate in zip((subject, reference), rates, strict=True)
        ]
        if not math.isclose(*products):
            yield f"alpha x learning rate {products[0]:.4g} against {products[1]:.4g}"
    known = [other_settings(trial.settings) for trial in (subject, reference)]
    for name in dict.fromkeys([*known[0], *known[1]]):
        values = [settings.get(name) for settings in known]
        if values[0] != values[1] and name not in CONTENT and not name.startswith("quant."):
            yield f"{name} {values[0]} against {values[1]}"
    if subject.settings.get("data") != reference.settings.get("data"):
        yield "other data"
    code = trained_by(subject), trained_by(reference)
    if code[0] != code[1]:
        yield f"trained by other code ({code[0]} / {code[1]})"


def _setting(trial: TrialRecord, group: str, name: str) -> object:
    settings = trial.settings.get(group)
    return settings.get(name) if isinstance(settings, Mapping) else None


Made = TrialRecord | EvaluationRecord


def _of_machines(verb: str, left: Sequence[Made], right: Sequence[Made]) -> Iterator[str]:
    """Other library versions, devices or thread counts."""
    names = sorted({name for r in (*left, *right) for name in r.provenance.versions})
    changed = []
    for name in names:
        both = [{str(r.provenance.versions.get(name)) for r in side} for side in (left, right)]
        if both[0] != both[1]:
            changed.append(f"{name} {' / '.join(', '.join(sorted(side)) for side in both)}")
    if changed:
        yield f"{verb} with other versions ({', '.join(changed)})"
    for what in ("device", "threads"):
        both = [{getattr(r.provenance, what) for r in side} for side in (left, right)]
        if both[0] != both[1]:
            shown = [", ".join(map(str, sorted(side))) for side in both]
            yield f"{verb} on other {what} ({shown[0]} / {shown[1]})"


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
