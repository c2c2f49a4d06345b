"""Wrong verdicts over whole simulated sweeps of few seeds, and how often intervals cover.

What is simulated is what the tests rest on: the score of each training over validation and test
items, luck that seeds bring to it, and the sampling of items, by their exact distributions. What
is tested is what a study calls: kinds of pairs, pools, the noise of few seeds, Holm and the factor
for a chosen reference. Family-wise errors are at most 5 % and two standard errors.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from lorascope.comparing.cells import base_cell
from lorascope.comparing.findings import compare
from lorascope.comparing.results import CellKey, Measure
from lorascope.comparing.seed_spread import kind_of, seed_spreads
from lorascope.config import DecideConfig
from lorascope.statistics.families import choice_factor, holm, holm_hopeful
from lorascope.statistics.seed_pool import with_seed_noise
from lorascope.statistics.two_way import Components, TwoWayEstimate
from tests.comparing.simulated_scores import Floats
from tests.comparing.simulated_sweeps import Sweep
from tests.study_factory import lora_dials

MODES, RANKS = ("fp16", "int8", "nf4"), (4, 8, 16)
BASE = base_cell("fp16")
MARGIN, GROUPS, LEVEL = 0.05, 200, 0.05
Truth = Callable[[CellKey], float]


@dataclass(frozen=True)
class Luck:
    """Standard deviations, in nats or shares, of what seeds and items bring to a score."""

    seeds: int
    by_rank: float = 0.0
    """Shared by the modes of a rank."""
    by_mode: float = 0.0
    """Shared by the ranks of a mode."""
    own: float = 0.0
    by_seed: float = 0.0
    """Shared by all trainings of a seed."""
    heavy: bool = False
    """t with 3 degrees of freedom in place of normal."""
    flicker: float = 0.005
    item: float = 0.005

    def draw(self, rng: np.random.Generator) -> Floats:
        """Luck [modes, ranks, seeds] of all trainings, the same on every item."""
        modes, ranks, seeds = len(MODES), len(RANKS), self.seeds
        shapes = ((1, ranks, seeds), (modes, 1, seeds), (modes, ranks, seeds), (1, 1, seeds))
        sizes = (self.by_rank, self.by_mode, self.own, self.by_seed)
        parts = [size * self._unit(rng, shape) for size, shape in zip(sizes, shapes, strict=True)]
        return np.asarray(sum(parts))

    def _unit(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        if self.heavy:
            return np.asarray(rng.standard_t(3, shape) / math.sqrt(3))
        return np.asarray(rng.normal(size=shape))

    def split(self, luck: Floats, rng: np.random.Generator) -> Floats:
        """What the trainings score over one split's items."""
        items = self.item * rng.normal(size=(*luck.shape[:2], 1))
        return np.asarray(luck + items + self.flicker * rng.normal(size=luck.shape))

    def estimate(self, subject: Floats, reference: Floats | float) -> TwoWayEstimate:
        """The difference of two trainings' scores [seeds]; of one, where the other is the base."""
        sides = 1 if isinstance(reference, float) else 2
        difference = subject - reference
        flicker, seeds = sides * self.flicker**2, len(subject)
        alone = sides * self.item**2 + flicker / seeds
        several = seeds > 1
        parts = Components(
            seeds, GROUPS, alone, alone - flicker / seeds if several else None,
            flicker if several else None, 0.0 if several else None,
            float(difference.var(ddof=1)) if several else None, GROUPS - 1.0, GROUPS - 1.0,
        )  # fmt: skip
        mean = float(difference.mean())
        return TwoWayEstimate(mean, math.sqrt(alone), GROUPS - 1.0, mean, mean, 1.0, parts)


Pairs = list[tuple[CellKey, CellKey, TwoWayEstimate]]


def cells() -> dict[CellKey, tuple[int, int]]:
    return {
        CellKey(mode, "lora", "all", tuple(lora_dials(rank).items())): (m, r)
        for (m, mode), (r, rank) in itertools.product(enumerate(MODES), enumerate(RANKS))
    }


def with_noise(found: Pairs, evidence: Pairs, rule: DecideConfig) -> Pairs:
    """Every pair with the spread of its kind among `evidence`."""
    shown = [(subject, reference, one.components) for subject, reference, one in evidence]
    spreads = seed_spreads(shown, (), rule, Measure.loss_nats, MARGIN)
    return [(a, b, with_seed_noise(one, spreads.pool(kind_of(a, b)))) for a, b, one in found]


def table(luck: Luck, validation: Floats, test: Floats, truth: Truth, rule: DecideConfig) -> Pairs:
    """The pairs of a study's table, on test items: by mode, by rank, against the base."""
    places = cells()
    score = {cell: test[place] + truth(cell) for cell, place in places.items()}
    goods = {cell: float(validation[place].mean()) + truth(cell) for cell, place in places.items()}
    found: Pairs = []
    for cell in places:
        best = max((c for c in places if c.quant == cell.quant), key=lambda c: goods[c])
        plain = replace(cell, quant=MODES[0])
        found += [
            (cell, other, luck.estimate(score[cell], score[other]))
            for other in (plain, best)
            if other != cell
        ]
        found.append((cell, BASE, luck.estimate(score[cell] + 0.5, 0.0)))
    return with_noise(found, found, rule)


def wrong_in_table(found: Pairs, truth: Truth) -> bool:
    """A difference is called where there is none, or in the wrong direction."""
    several = found[0][2].components.seeds > 1
    by_rank = [a.quant == b.quant and not b.base for a, b, _ in found]
    factors = [choice_factor(len(RANKS)) if chosen and several else 1.0 for chosen in by_rank]
    p_values = holm([min(1.0, f * e.p_value) for (_, _, e), f in zip(found, factors, strict=True)])
    return any(
        p is not None and p < LEVEL and one.estimate * (truth(a) - truth(b)) <= 0
        for (a, b, one), p in zip(found, p_values, strict=True)
        if not b.base
    )


def decision(luck: Luck, validation: Floats, rule: DecideConfig) -> Pairs:
    """The pairs of a study's decision, on validation items: equal candidates against the best of
    the reference mode."""
    places = cells()
    score = {cell: validation[place] for cell, place in places.items()}
    own = [cell for cell in places if cell.quant == MODES[0]]
    reference = max(own, key=lambda cell: float(score[cell].mean()))
    others = [cell for cell in places if cell != reference]
    held = [(c, reference, luck.estimate(score[c], score[reference])) for c in others]
    modes = [
        (c, plain, luck.estimate(score[c], score[plain]))
        for c in places
        if (plain := replace(c, quant=MODES[0])) not in (c, reference)
    ]
    return with_noise(held, held + modes, rule)


def called_worse(found: Pairs) -> bool:
    """A candidate is called worse by more than the margin, where all are equal."""
    factor = choice_factor(len(RANKS))
    tails = [min(1.0, factor * 2 * one.p_not_above(-MARGIN)) for _, _, one in found]
    return any(p is not None and p < LEVEL for p in holm_hopeful(tails))


def passes_wrongly(found: Pairs, truth: Truth) -> bool:
    """A candidate passes that is worse by the margin. Truths move an estimate and no spread; in the
    reference's mode they are 0, so that they choose no other one."""
    moved = [(a, replace(one, estimate=one.estimate + truth(a) - truth(b))) for a, b, one in found]
    adjusted = holm_hopeful([min(1.0, 2 * one.p_not_below(-MARGIN)) for _, one in moved])
    return any(
        p is not None and p < LEVEL and truth(cell) <= -MARGIN
        for (cell, _), p in zip(moved, adjusted, strict=True)
    )


def limit(sweeps: int) -> float:
    return LEVEL + 2 * math.sqrt(LEVEL * (1 - LEVEL) / sweeps)


def rates(luck: Luck, sweeps: int, rule: DecideConfig) -> dict[str, float]:
    """Shares of sweeps with a wrong verdict, and of modes' differences that intervals cover."""
    rng = np.random.default_rng(12)
    equal, on_margin = (lambda _: 0.0), (lambda cell: -MARGIN * (cell.quant != MODES[0]))
    counts = dict.fromkeys(("table", "worse", "passed", "covered", "pairs"), 0)
    for _ in range(sweeps):
        drawn = luck.draw(rng)
        validation, test = luck.split(drawn, rng), luck.split(drawn, rng)
        found = table(luck, validation, test, equal, rule)
        counts["table"] += wrong_in_table(found, equal)
        held = decision(luck, validation, rule)
        counts["worse"] += called_worse(held)
        counts["passed"] += passes_wrongly(held, on_margin)
        modes = [one for a, b, one in found if not b.base and a.quant != b.quant]
        counts["covered"] += sum(one.low <= 0 <= one.high for one in modes)
        counts["pairs"] += len(modes)
    shares = {name: counts[name] / sweeps for name in ("table", "worse", "passed")}
    return {**shares, "coverage": counts["covered"] / counts["pairs"]}


KINDS = {
    "shared by modes": Luck(2, by_rank=0.05, own=0.0025),
    "own to a mode": Luck(2, by_mode=0.05, own=0.0025),
    "own to a training": Luck(2, own=0.05),
    "own to a seed": Luck(2, by_seed=0.05, own=0.01),
    "of every kind": Luck(2, by_rank=0.02, by_mode=0.02, own=0.02, by_seed=0.02),
    "heavy-tailed": Luck(2, by_rank=0.05, own=0.0125, heavy=True),
    "none": Luck(2, flicker=0.02),
}


SWEEPS = {2: 600, 3: 240, 5: 240}
"""Simulated sweeps by seeds: most where the seeds say least. A standard error of 5 % is 0.9 points
over 600 sweeps and 1.4 over 240, so that true errors of 8.2 % and 10.2 % are found nine times in
ten. Before, with pools over unlike pairs and their degrees counted twice: up to 12.5 %."""
QUICK = {("shared by modes", 3), ("own to a mode", 5)}
EASY = {("own to a training", 5), ("own to a seed", 5), ("of every kind", 5), ("none", 5)}
"""Five seeds make fewest mistakes; they are held to luck that is shared, and to heavy tails."""


@pytest.mark.parametrize(
    ("kind", "seeds"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
        for case in itertools.product(KINDS, SWEEPS)
        if case not in EASY
    ],
)
def test_few_seeds_rarely_make_a_wrong_verdict_and_intervals_cover(kind: str, seeds: int) -> None:
    """Luck shared by all ranks of a mode is covered least, 94 %: half of it is reckoned with."""
    sweeps = SWEEPS[seeds]
    found = rates(replace(KINDS[kind], seeds=seeds), sweeps, DecideConfig())
    for family in ("table", "worse", "passed"):
        assert found[family] <= limit(sweeps), found
    assert found["coverage"] >= 0.925, found


DECLARED = DecideConfig(seed_spread_nats=0.02)


def test_one_seed_with_a_declared_spread_errs_and_covers_as_promised() -> None:
    """Two points of spread between trainings. Without the prior the same sweeps go wrong."""
    world, sweeps = Luck(1, own=0.02), 250
    unknown, declared = (rates(world, sweeps, rule) for rule in (DecideConfig(), DECLARED))
    assert unknown["passed"] > 0.15
    assert unknown["coverage"] < 0.6
    for family in ("table", "worse", "passed"):
        assert declared[family] <= limit(sweeps), declared
    assert 0.93 <= declared["coverage"] <= 0.97, declared


def test_a_declared_spread_stands_in_only_while_the_study_has_few_degrees() -> None:
    rng = np.random.default_rng(3)
    for seeds, stands_in in ((2, True), (6, False)):
        luck = Luck(seeds, own=0.001, flicker=0.001)
        drawn = luck.draw(rng)
        one, other = list(cells())[:2]
        parts = luck.estimate(drawn[0, 0], drawn[0, 1]).components
        spreads = seed_spreads([(one, other, parts)], (), DECLARED, Measure.loss_nats, MARGIN)
        pool = spreads.pool(kind_of(one, other))
        assert pool is not None
        assert (pool.raw == pytest.approx(2 * 0.02**2)) is stands_in


@pytest.mark.parametrize(
    ("seeds", "spread"),
    [(2, 0.08), *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        (2, 0.02), (3, 0.10)))],
)  # fmt: skip
def test_the_score_of_a_new_seed_is_free_of_the_chosen_seeds_luck(
    seeds: int, spread: float
) -> None:
    """Four equal ranks: the best by luck scores 1.6 and 7 points too high over two seeds that
    spread by 2 and 8 points; what it scores with a seed that did not choose is right."""
    sweep = Sweep(
        seeds, ("fp16",), (4, 8, 16, 32), by_rank=spread, own=spread / 10, accuracy=True, gain=0.3
    )
    own, fresh = [], []
    for study in sweep.studies(60, lambda *_: 0.0, DecideConfig(), 4):
        # Without bare bases: what is shown to beat them is chosen by luck too, another question.
        trained = [e for e in study.evaluations if e.key is not None]
        findings = compare(replace(study, evaluations=trained))
        chosen, left_out = findings.decision.recommended, findings.decision.fresh
        assert chosen is not None
        assert left_out is not None
        accuracy = findings.score(chosen).accuracy
        assert accuracy is not None
        own.append(accuracy.value - 0.6)
        fresh.append(left_out.estimate.value - 0.6)
    error = float(np.std(fresh)) / math.sqrt(len(fresh))
    assert abs(float(np.mean(fresh))) <= 2 * error
    assert float(np.mean(own)) > 0.4 * spread
