"""What training cost on rows of the base's own domain, and what the decision makes of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import replace

import pytest

from lorascope.comparing.findings import compare
from lorascope.comparing.ruling import Candidate, Findings
from lorascope.config import DecideConfig, EvaluateConfig, Search
from lorascope.config.rules import require_one_population, validate
from lorascope.errors import ConfigError
from lorascope.files.layout import FORGETTING, Layout
from lorascope.records import SplitScore, Study
from lorascope.reporting.catalogue import files_of, make_all
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.pages.bare_base import needless_answer
from tests.conftest import compose_one
from tests.study_factory import Trial, make_study, scored_items

BEFORE = {"fp16": 1.0, "nf4": 1.1}


def study(gains: Mapping[str, float], limit: float | None = None) -> Study:
    """Three seeds a mode, equally good; each forgets so many nats, a little more with each seed."""
    trials = [
        Trial(quant, accuracy=0.9, seed=seed) for quant in ("fp16", "nf4") for seed in range(3)
    ]
    made = make_study(trials, base_accuracy=0.4)
    evaluations = []
    for own in made.evaluations:
        trained = 0.0 if own.key is None else gains[own.quant] + 0.01 * (own.key.seed - 1)
        score = SplitScore(100, None, None, BEFORE[own.quant] + trained)
        evaluations.append(replace(own, splits={**own.splits, FORGETTING: score}))
    return replace(
        made,
        evaluations=evaluations,
        items={own.identity: scored_items(own) for own in evaluations},
        decide=DecideConfig(max_forgetting_nats=limit),
    )


def candidate(findings: Findings, quant: str) -> Candidate:
    return next(own for own in findings.decision.candidates if own.cell.quant == quant)


def test_it_is_the_loss_after_minus_the_bare_bases() -> None:
    found = compare(study({"fp16": 0.3, "nf4": 0.02}))
    by_mode = {own.cell.quant: own for own in found.forgetting}
    for quant, gained in (("fp16", 0.3), ("nf4", 0.02)):
        own = by_mode[quant]
        assert own.before_nats == pytest.approx(BEFORE[quant])
        assert own.after_nats == pytest.approx(BEFORE[quant] + gained)
        assert own.difference.value == pytest.approx(gained)
        assert own.difference.low < gained < own.difference.high
        assert (own.difference.items, own.difference.seeds) == (100, 3)
        assert own.difference.seed_deviation == pytest.approx(0.01)
    made = make_all(study({"fp16": 0.3, "nf4": 0.02}), found)
    written = files_of(study({"fp16": 0.3, "nf4": 0.02}), found, made)["forgetting.csv"]
    rows = list(csv.DictReader(io.StringIO(written.decode())))
    assert [row["quant"] for row in rows] == ["nf4", "fp16"]
    assert float(rows[1]["difference_nats"]) == pytest.approx(0.3)


def test_what_forgets_more_than_the_limit_does_not_ship() -> None:
    gains = {"fp16": 0.02, "nf4": 0.5}
    assert (
        compare(study(gains)).decision.recommended == candidate(compare(study(gains)), "nf4").cell
    )
    found = compare(study(gains, limit=0.2))
    nf4 = candidate(found, "nf4")
    assert nf4.forgets
    assert nf4.ineligible is not None
    assert nf4.ineligible.startswith("forgets more than 0.2 nats (+0.4")
    # It is known not to ship: nothing is left open.
    assert found.decision.recommended == candidate(found, "fp16").cell
    assert not found.decision.unknown
    # The reference has no other measure.
    both = compare(study({"fp16": 0.5, "nf4": 0.5}, limit=0.2))
    assert both.decision.recommended is None
    answer = needless_answer(both, CellNames.of(both))
    assert answer.state == "none that beats the bare base is shown to forget at most 0.2 nats"
    # What only may forget more is not known not to ship: it stays open.
    undecided = compare(study({"fp16": 0.02, "nf4": 0.199}, limit=0.2))
    near = candidate(undecided, "nf4")
    assert near.ineligible is not None
    assert near.ineligible.startswith("may forget more than 0.2 nats")
    assert not near.forgets
    assert undecided.decision.recommended == candidate(undecided, "fp16").cell
    assert [own.cell for own in undecided.decision.unknown] == [near.cell]
    assert not undecided.decision.settled


def test_without_scores_it_is_unknown_and_without_a_limit_nothing_changes() -> None:
    plain = make_study([Trial("fp16"), Trial("nf4")])
    assert compare(plain).forgetting == ()
    limited = compare(replace(plain, decide=DecideConfig(max_forgetting_nats=0.1)))
    assert candidate(limited, "nf4").ineligible == "what it forgets is unknown"


def test_a_limit_needs_rows_and_a_grid(bare_project: Layout) -> None:
    limited = replace(compose_one(bare_project), decide=DecideConfig("d", max_forgetting_nats=0.1))
    with pytest.raises(ConfigError, match=r"decide.max_forgetting_nats=0.1: nothing says"):
        validate(limited)
    named = replace(limited, evaluate=EvaluateConfig(forgetting="other"))
    validate(named)
    with pytest.raises(ConfigError, match="search=settle"):
        validate(replace(named, search=Search.settle))


def test_the_embedded_base_knows_people_of_its_own_seed(bare_project: Layout) -> None:
    known = compose_one(bare_project, "model=tiny", "evaluate.forgetting=known_people")
    require_one_population(known)
    assert known.forgetting is not None
    strangers = replace(known, forgetting=replace(known.forgetting, seed=3))
    with pytest.raises(ConfigError, match=r"conf/data/known_people.yaml"):
        require_one_population(strangers)
