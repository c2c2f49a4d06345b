"""The trial that `ship` means, and its form: by the declared rule, or by name."""

from __future__ import annotations

from lorascope.comparing.findings import compare
from lorascope.config import APART
from lorascope.errors import ConfigError, RecordError
from lorascope.records import FORM_MARK, Status, Study, TrialRecord


class NothingShips(Exception):
    """The rule's answer is that no trial should be shipped."""


def choose(ship: str, study: Study) -> tuple[TrialRecord, str, float | None]:
    """The trial to ship, how it was chosen, and its validation score in the form that was chosen.

    `auto` takes what the declared rule recommends (conf/decide): the cheapest configuration that is
    no worse than the reference by more than the margin, on validation items, and shown to beat the
    bare base.

    Raises:
        NothingShips: `auto`, and the rule lets no trial ship.
        ConfigError: `ship` names no single finished trial.
        RecordError: `auto`, and nothing is trained and scored.
    """
    finished = {t.trial: t for t in study.trials if t.status is Status.completed}
    if ship != "auto":
        name, _, form = ship.partition(FORM_MARK)
        trial = _named(name, finished, study)
        return trial, "named in ship", _validation_score(trial, form or _plain(trial, study), study)
    decision = compare(study).decision
    if decision.trial is None and decision.reference is not None:
        raise NothingShips(
            "ship: auto ships nothing: no adapter that the rule lets pass is shown to beat the "
            "bare base on validation items. `lorascope report` says by how much each gained; name "
            "a trial in ship to merge it all the same."
        )
    if decision.trial is None or decision.recommended is None:
        raise RecordError(
            "ship='auto': no configuration has all of its declared seeds trained and scored. Run "
            "the sweep first, or name a trial in ship."
        )
    trial = finished[decision.trial]
    rule = f"auto: cheapest in {decision.rule.cost.value} that is no worse than the reference"
    # One seed is no choice; with more, the best one's score is above the mean of the configuration.
    rule += ", for this seed" if decision.one_seed else ", its best seed on validation items"
    return trial, rule, _validation_score(trial, decision.recommended.serve, study)


def choose_form(ship: str, trial: TrialRecord, study: Study) -> str:
    """The form that the shipped `trial` is served in: with auto that of what the rule recommends,
    else the one that `ship` names behind an @, or the only declared one that is not apart.

    Raises:
        ConfigError: a trial is named, and several forms are declared, or not the one named.
    """
    declared = study.forms_of(trial.trial)
    if ship == "auto":
        recommended = compare(study).decision.recommended
        return APART if recommended is None else recommended.serve
    named = ship.partition(FORM_MARK)[2]
    merged = [form for form in declared if form != APART]
    if named in declared or not (named or len(merged) > 1):
        return named or (merged[0] if merged else APART)
    remedy = ", ".join(f"{trial.trial}{FORM_MARK}{form}" for form in declared)
    problem = "there is no such form of it" if named else "it is declared in several merged forms"
    raise ConfigError("ship", ship, problem, f"Name one behind the trial: {remedy}.")


def _named(ship: str, finished: dict[str, TrialRecord], study: Study) -> TrialRecord:
    """The finished trial of that name; the hash at its end may be left out."""
    matching = [
        trial
        for name, trial in finished.items()
        if name.startswith(ship) or (trial.taken_over and trial.taken_over.trial.startswith(ship))
    ]
    if len(matching) == 1:
        return matching[0]
    failed = [t for t in study.trials if t.trial.startswith(ship) and t.trial not in finished]
    problem = f"{failed[0].status} ({failed[0].reason})" if failed else "names no single trial"
    raise ConfigError(
        "ship", ship, problem, f"Use auto or one of: {', '.join(finished) or 'none yet'}."
    )


def _plain(trial: TrialRecord, study: Study) -> str:
    """The form of a trial that is named alone: apart, or the only merged one that is declared."""
    declared = study.forms_of(trial.trial)
    return declared[0] if len(declared) == 1 else APART


def _validation_score(trial: TrialRecord, form: str, study: Study) -> float | None:
    """Accuracy where items can be right or wrong, else the loss; None where the trial is not
    scored in `form`."""
    evaluation = study.scores_of(trial).get(form)
    if evaluation is None:
        return None
    score = evaluation.splits["validation"]
    return score.completion_loss_nats if score.accuracy is None else score.accuracy
