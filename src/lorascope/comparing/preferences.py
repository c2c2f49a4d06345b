"""What training did to held-out pairs of replies, against the bare base of the same mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from lorascope.comparing.cells import CellData, Scored, gather
from lorascope.comparing.item_columns import Floats, cluster_numbers
from lorascope.comparing.results import CellKey, Measure
from lorascope.records import ItemResult, Study
from lorascope.statistics.two_way import two_way

Interval = tuple[float, float]


@dataclass(frozen=True)
class PreferenceScore:
    """One configuration's test pairs, a mean over pairs and seeds where it says no other."""

    cell: CellKey
    likelier_share: float
    """Share of pairs whose chosen reply is the likelier one, whatever it was before training."""
    margin_nats: float
    """How much likelier the chosen reply has become against the rejected one."""
    margin_interval: Interval | None
    """95 %, over pairs or their clusters, and seeds; None where there is one pair or cluster."""
    chosen_gain_nats: float
    """How much likelier than under the bare base the chosen reply is, all its tokens together."""
    chosen_gain_interval: Interval | None
    rejected_gain_nats: float
    kl_nats: float | None
    """Estimate of the KL divergence a token from the bare base at the end of training, on trained
    pairs; None where training held nothing against a reference."""

    @property
    def is_displaced(self) -> bool:
        """Whether margins are shown to have risen though the chosen reply is shown to be less
        likely: both are, the rejected one more (Razin et al. 2024, arXiv 2410.08847)."""
        margin, gain = self.margin_interval, self.chosen_gain_interval
        return margin is not None and gain is not None and margin[0] > 0 > gain[1]


def preference_scores(study: Study, measure: Measure) -> list[PreferenceScore]:
    """Of every configuration whose pairs were held against its bare base's; empty for other
    data."""
    if study.data.scoring != "preference":
        return []
    cells = gather(study, measure)
    bases = {one.cell.quant: _items(one.scored, study) for one in cells.values() if one.cell.base}
    found = [_score(one, study, bases.get(one.cell.quant, [])) for one in cells.values()]
    return [score for score in found if score is not None]


def _score(
    data: CellData, study: Study, base: Sequence[Sequence[ItemResult]]
) -> PreferenceScore | None:
    seeds = [{item.item: item for item in items} for items in _items(data.scored, study)]
    judged = all(item.margin_nats is not None for items in seeds for item in items.values())
    if not seeds or not judged or not base:
        return None
    bare = [item for item in base[0] if all(item.item in items for items in seeds)]
    pairs = [[items[before.item] for before in bare] for items in seeds]
    gains, rejected = (
        np.array([
            [getattr(before, name) - getattr(item, name)
             for item, before in zip(own, bare, strict=True)]
            for own in pairs
        ])
        for name in ("loss_nats", "rejected_loss_nats")
    )  # fmt: skip
    margins = np.array([[item.margin_nats for item in own] for own in pairs], dtype=np.float64)
    clusters = cluster_numbers([item.shared for item in bare])
    return PreferenceScore(
        cell=data.cell,
        likelier_share=fmean(
            item.loss_nats < (item.rejected_loss_nats or 0.0) for own in pairs for item in own
        ),
        margin_nats=float(margins.mean()),
        margin_interval=_interval(margins, clusters),
        chosen_gain_nats=float(gains.mean()),
        chosen_gain_interval=_interval(gains, clusters),
        rejected_gain_nats=float(rejected.mean()),
        kl_nats=_divergence(data),
    )


def _interval(values: Floats, clusters: NDArray[np.int64] | None) -> Interval | None:
    """Of the mean of `values` [seeds, pairs]."""
    groups = values.shape[1] if clusters is None else int(clusters.max()) + 1
    if groups < 2:
        return None
    found = two_way(values, clusters=clusters)
    return found.low, found.high


def _items(scored: Sequence[Scored], study: Study) -> list[list[ItemResult]]:
    """Test items of each seed that has some."""
    tables = [study.items.get(one.evaluation.identity, {}).get("test") for one in scored]
    return [list(table) for table in tables if table]


def _divergence(data: CellData) -> float | None:
    last = [s.trial.result.losses[-1].metrics for s in data.scored if s.trial and s.trial.result]
    known = [metrics["kl"] for metrics in last if "kl" in metrics]
    return fmean(known) if known else None
