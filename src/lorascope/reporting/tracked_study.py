"""What a tracking store is told of a study: its answer in numbers and sentences, its figures."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.comparing.results import CellKey, Estimate
from lorascope.comparing.ruling import Decision, Findings
from lorascope.records import Study
from lorascope.reporting.catalogue import CATALOGUE, report_files
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.entries import FigureEntry
from lorascope.reporting.pages.document import Answer, Inline
from lorascope.reporting.pages.recommendation import answer
from lorascope.reporting.pages.summary import PAGE
from lorascope.tracking import BareBase, StudyContent

NOTHING = "nothing ships yet"


def study_content(study: Study, findings: Findings) -> StudyContent:
    """The run of a study: figures and page are those of `lorascope report`."""
    decision, told = findings.decision, answer(findings)
    names = CellNames.of(findings)
    ships = names.name(decision.recommended) if decision.recommended else None
    model, data, digest = study.base.model, study.data.name, study.data.content_sha256
    stored = {footprint.quant: footprint for footprint in study.footprints}
    bare = [scores for scores in study.evaluations if scores.trial_identity is None]
    made = [study.data.provenance, *(scores.provenance for scores in study.evaluations)]
    return StudyContent(
        model=model,
        data=data,
        data_sha256=digest,
        name=f"study: ship {ships}" if ships else f"study: {NOTHING}",
        metrics=dict(decision_numbers(findings)),
        tags=dict(_tags(decision, names, told)),
        note=_note(told),
        files=_files(study, findings),
        created_utc=max(provenance.created_utc for provenance in made),
        trials=frozenset(trial.identity for trial in study.trials),
        bases=tuple(BareBase(model, data, digest, stored[e.quant], e) for e in bare),
        merge=study.merge,
    )


def decision_numbers(findings: Findings) -> Iterator[tuple[str, float]]:
    """Name -> value. Scores of what is recommended are the means over its seeds, under the names
    that they have in a trial's run, so that they stand in one column."""
    decision = findings.decision
    yield "settled", float(decision.settled)
    yield "open_configurations", float(len(decision.open))
    if decision.recommended is None:
        return
    score = findings.score(decision.recommended)
    yield from _estimate("test_accuracy", score.accuracy)
    yield from _estimate("test_completion_loss_nats", score.loss)
    measured = {"accuracy": "validation_accuracy"}.get(
        findings.measure.value, "validation_completion_loss_nats"
    )
    yield from _estimate(measured, score.validation)
    if decision.test is not None:
        unit = {"accuracy": "accuracy"}.get(findings.measure.value, "completion_loss_nats")
        yield from _estimate(f"difference_to_reference_{unit}", decision.test.difference)
    yield from ((cost.value, value) for cost, value in score.costs.items())


def _estimate(name: str, estimate: Estimate | None) -> Iterator[tuple[str, float]]:
    """The number and the ends of its 95 % interval."""
    if estimate is not None:
        yield from ((name, estimate.value), (f"{name}_low", estimate.low))
        yield f"{name}_high", estimate.high


def _tags(decision: Decision, names: CellNames, told: Answer) -> Iterator[tuple[str, str]]:
    def full(cell: CellKey | None) -> str:
        return names.full(cell) if cell else "none"

    yield "recommended", full(decision.recommended)
    yield "recommended_trial", decision.trial or "none"
    yield "reference", full(decision.reference)
    yield "state", told.state
    yield "holds_for", decision.holds_for or "none"


def _note(told: Answer) -> str:
    """Markdown."""
    lines = [f"**{told.headline}**: {told.state}.", ""]
    lines += [f"- {term}: {''.join(map(_word, line))}" for term, line in told.in_short]
    lines += [f"- {fact.label}: {fact.value} ({fact.note})" for fact in told.facts]
    if not told.in_short:
        lines += [f"- {''.join(map(_word, note))}" for note in told.notes]
    return "\n".join(lines) + "\n"


def _word(part: Inline) -> str:
    return part if isinstance(part, str) else part.text


def _files(study: Study, findings: Findings) -> dict[str, str]:
    """The page, and the figures that it shows."""
    files = report_files(study, findings)
    figures = [entry for entry in CATALOGUE if isinstance(entry, FigureEntry)]
    drawn = [e.file for e in figures if e.words(study, findings) is not None]
    named = {f"figures/{name}": files[name] for name in drawn} | {PAGE: files[PAGE]}
    return {path: content.decode() for path, content in named.items()}
