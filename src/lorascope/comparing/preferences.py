"""What training did to held-out pairs of replies, against the bare base of the same mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from lorascope.comparing.cells import CellData, Scored, gather
from lorascope.comparing.results import CellKey, Measure
from lorascope.records import ItemResult, Study


@dataclass(frozen=True)
class PreferenceScore:
    """One configuration's test pairs, a mean over pairs and seeds where it says no other."""

    cell: CellKey
    likelier_share: float
    """Share of pairs whose chosen reply is the likelier one, whatever it was before training."""
    margin_nats: float
    """How much likelier the chosen reply has become against the rejected one."""
    chosen_gain_nats: float
    """How much likelier than under the bare base the chosen reply is, all its tokens together."""
    rejected_gain_nats: float
    kl_nats: float | None
    """Estimate of the KL divergence a token from the bare base at the end of training, on trained
    pairs; None where training held nothing against a reference."""

    @property
    def is_displaced(self) -> bool:
        """Whether margins rose though the chosen reply became less likely: both did, the rejected
        one more (Razin et al. 2024, arXiv 2410.08847)."""
        return self.margin_nats > 0 > self.chosen_gain_nats


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
    seeds = _items(data.scored, study)
    judged = all(item.margin_nats is not None for items in seeds for item in items)
    if not seeds or not judged or not base:
        return None
    bare = {item.item: item for item in base[0]}
    pairs = [(item, bare[item.item]) for items in seeds for item in items if item.item in bare]
    return PreferenceScore(
        cell=data.cell,
        likelier_share=fmean(
            item.loss_nats < (item.rejected_loss_nats or 0.0) for item, _ in pairs
        ),
        margin_nats=fmean(item.margin_nats or 0.0 for item, _ in pairs),
        chosen_gain_nats=fmean(before.loss_nats - item.loss_nats for item, before in pairs),
        rejected_gain_nats=fmean(
            (before.rejected_loss_nats or 0.0) - (item.rejected_loss_nats or 0.0)
            for item, before in pairs
        ),
        kl_nats=_divergence(data),
    )


def _items(scored: Sequence[Scored], study: Study) -> list[list[ItemResult]]:
    """Test items of each seed that has some."""
    tables = [study.items.get(one.evaluation.identity, {}).get("test") for one in scored]
    return [list(table) for table in tables if table]


def _divergence(data: CellData) -> float | None:
    last = [s.trial.result.losses[-1].metrics for s in data.scored if s.trial and s.trial.result]
    known = [metrics["kl"] for metrics in last if "kl" in metrics]
    return fmean(known) if known else None
