"""Trials that may wait, and lie far behind others of their pack at the middle of their steps.

A trial is far behind when its loss has come down less than half as far as that of the best with its
seed. Trials of one seed read the same rows in the same order and start from the same base, so that
chance is nearly the same for both; and a loss falls ever more slowly, so that what made less than
half the way in half its steps ends hardly where the best one stands now.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lorascope.records import LossPoint
from lorascope.training.log import PackLog
from lorascope.training.loop import StepEnd

SHARE_OF_FALL = 0.5
FEWEST_POINTS = 2
"""Losses of a trial by the middle: one shows no fall."""


def far_behind(
    curves: Sequence[Sequence[LossPoint]], seeds: Sequence[int], judged: Collection[int]
) -> list[int]:
    """Those of `judged`, places in the pack, that lie far behind; all places of a seed count for
    its best loss."""
    found = []
    for place in judged:
        beside = [own for own, seed in zip(curves, seeds, strict=True) if seed == seeds[place]]
        if min(map(len, beside)) < FEWEST_POINTS:
            continue
        # Before its first step every trial has the base's loss; the highest first one is nearest.
        start = max(own[0].loss_nats for own in beside)
        best = min(own[-1].loss_nats for own in beside)
        gap = curves[place][-1].loss_nats - best
        if gap > (1 - SHARE_OF_FALL) * (start - best) > 0:
            found.append(place)
    return found


class Laggards:
    """Ends a training at its middle, to be saved, if trials that may wait lie far behind. As an
    observer it stands between `TrainingWatch` and the checkpoints."""

    def __init__(self, log: PackLog, seeds: Sequence[int], may_wait: Sequence[bool]) -> None:
        self.found: list[int] = []
        """Places of those that lie far behind; empty before the middle."""
        self._log, self._seeds, self._may_wait = log, seeds, may_wait

    def after_step(self, end: StepEnd) -> None:
        if end.stop or end.step != end.steps // 2:
            return
        judged = [index for index in self._log.left if self._may_wait[index]]
        self.found = far_behind(self._log.points, self._seeds, judged)
        end.stop = end.save = bool(self.found)
