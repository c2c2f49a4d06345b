"""A row of the grid that is far worse takes no verdict away from the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from lorascope.comparing.findings import compare
from lorascope.comparing.results import CellKey, Pairing
from lorascope.comparing.ruling import Findings
from lorascope.config import DecideConfig
from lorascope.records import Study, TrialKey
from tests.comparing.simulated_sweeps import Sweep
from tests.study_factory import Trial, make_study

RULE = DecideConfig(margin_loss_nats=0.05)
HOPELESS = 0.4
"""Nats that a hopeless configuration is worse, eight margins."""


def without(study: Study, drop: Callable[[TrialKey], bool]) -> Study:
    """The same records with some trials left out."""
    kept = [e for e in study.evaluations if e.key is None or not drop(e.key)]
    return replace(
        study,
        trials=[trial for trial in study.trials if not drop(trial.key)],
        evaluations=kept,
        items={e.identity: study.items[e.identity] for e in kept},
    )


def judged(findings: Findings) -> dict[CellKey, tuple[object, ...]]:
    """What the rule says of each candidate."""
    return {
        c.cell: (c.verdict, c.difference, c.p_margin_holm) for c in findings.decision.candidates
    }


def test_ranks_1_8_and_64_decide_int8_as_ranks_8_and_64_do() -> None:
    """The issue's case. Pooled over ranks and modes, rank 1 made +0.0015 nats 'undecided'."""
    sweep = Sweep(2, ("fp16", "int8"), (1, 8, 64), by_rank=0.04, own=0.0005, item_noise=0.002)
    truth = {1: -0.3, 8: 0.0, 64: -0.03}
    (study,) = sweep.studies(1, lambda quant, rank: truth[rank] - 0.0015 * (quant == "int8"),
                             replace(RULE, reference_rank=8), 3)  # fmt: skip
    findings = [compare(study), compare(without(study, lambda key: key.dials["rank"] == 1))]
    for found in findings:
        shipped = found.decision.recommended
        assert shipped is not None
        assert (shipped.quant, shipped.dial("rank")) == ("int8", 8)
    all_rows, fewer = (judged(found) for found in findings)
    for cell, outcome in fewer.items():
        assert all_rows[cell][:2] == outcome[:2]


@settings(max_examples=12, deadline=None)
@given(
    draw=st.integers(0, 10_000),
    seeds=st.sampled_from([1, 2, 3]),
    hopeless=st.sampled_from(["rank", "mode", "both"]),
    luck=st.sampled_from([0.002, 0.02]),
)
def test_deleting_what_is_far_worse_leaves_every_other_verdict(
    draw: int, seeds: int, hopeless: str, luck: float
) -> None:
    def lost(quant: str, rank: int) -> bool:
        by_rank, by_mode = rank == 4, quant == "nf4"
        return {"rank": by_rank, "mode": by_mode, "both": by_rank or by_mode}[hopeless]

    sweep = Sweep(seeds, by_rank=luck, own=luck / 4, items=30)
    (study,) = sweep.studies(1, lambda *cell: -HOPELESS * lost(*cell), RULE, draw)
    all_rows = compare(study)
    fewer = compare(without(study, lambda key: lost(key.quant, int(key.dials["rank"]))))
    for cell, outcome in judged(fewer).items():
        assert judged(all_rows)[cell] == outcome
    assert all_rows.decision.recommended == fewer.decision.recommended
    before = {(c.pairing, c.subject, c.reference): c for c in all_rows.comparisons}
    for comparison in fewer.comparisons:
        same = before[comparison.pairing, comparison.subject, comparison.reference]
        assert (same.difference, same.p_value) == (comparison.difference, comparison.p_value)
        # Holm's count: more bare bases and adapters can only make p larger.
        assert same.p_holm >= comparison.p_holm
        assert same.p_margin_holm >= comparison.p_margin_holm
        if (same.p_holm, same.p_margin_holm) == (comparison.p_holm, comparison.p_margin_holm):
            assert same.verdict is comparison.verdict


def test_a_collapsed_mode_keeps_its_own_spread() -> None:
    """One seed of nf4 ended far off: its own interval is wide, and int8's is as without it."""
    sweep = Sweep(seeds=3, own=0.002, items=40)
    (study,) = sweep.studies(1, lambda *_: 0.0, RULE, 5)
    wild = replace(study, items={
        e.identity: {
            split: [replace(item, loss_nats=item.loss_nats + 1.0) for item in rows]
            for split, rows in study.items[e.identity].items()
        } if e.key and e.key.quant == "nf4" and e.key.seed == 2 else study.items[e.identity]
        for e in study.evaluations
    })  # fmt: skip
    found = {c.subject: c for c in compare(wild).comparisons if c.pairing is Pairing.mode}
    alone = {
        c.subject: c
        for c in compare(without(study, lambda key: key.quant == "nf4")).comparisons
        if c.pairing is Pairing.mode
    }
    for cell, comparison in found.items():
        width = comparison.difference.high - comparison.difference.low
        if cell.quant == "nf4":
            assert width > 1.0
        else:
            assert comparison.difference == alone[cell].difference


def test_a_hopeless_row_takes_no_pair_of_modes_apart() -> None:
    """Its learning rate makes the rate a variant, in which the modes differ as it is."""
    trials = [Trial("fp16"), Trial("nf4", accuracy=0.89), Trial("nf4", accuracy=0.1)]
    study = make_study(trials)
    rates = [
        replace(trial, settings={**trial.settings, "train": {"learning_rate": rate}})
        for trial, rate in zip(study.trials, (1e-3, 2e-3, 10.0), strict=True)
    ]
    found = compare(replace(study, trials=rates)).comparisons
    modes = [c for c in found if c.pairing is Pairing.mode]
    assert [(c.subject.variant, c.reference.variant) for c in modes] == [
        ("learning_rate=0.002", "learning_rate=0.001")
    ]
    assert "train.learning_rate 0.002 against 0.001" in modes[0].confounds
