"""What is known of a study before anything is trained: what it cannot show, and what it need not
try."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lorascope.adapters.kinds import DEFAULT_KIND, rank_of
from lorascope.adapters.targets import select
from lorascope.config import Config, Scoring
from lorascope.data.conversations import Conversation
from lorascope.records import ModelParts
from lorascope.statistics.accuracy import accuracy_difference

MOST_ITEMS = 10**6


def too_few_items(config: Config, validation: Sequence[Conversation]) -> Iterator[str]:
    """A sentence where the validation items could not show an accuracy inside the margin even if
    not one answer differed from the reference's. Corrections for several candidates ask for more.
    """
    if config.data.scoring is Scoring.loss:
        return
    validation = validation[: config.data.max_validation_rows]
    margin, items = config.decide.margin_accuracy, len(validation)
    names = [c.cluster for c in validation]
    clusters = None if None in names else np.unique([str(name) for name in names])
    if clusters is not None and len(clusters) < 2:
        return
    labels = None if clusters is None else np.searchsorted(clusters, [str(n) for n in names])
    reach = _reach_without_changes(items, labels)
    if reach < margin:
        return
    worth = "" if clusters is None else f" in {len(clusters):,} clusters"
    enough = (n for n in _more_items(items) if _reach_without_changes(n, None) < margin)
    wanted = next(enough, MOST_ITEMS)
    yield (
        f"{items:,} validation items{worth} cannot show that an accuracy is within "
        f"decide.margin_accuracy={margin:g} of the reference's: if not one answer differed, the "
        f"95 % interval would still reach {100 * reach:.1f} points. Name more rows "
        f"(validation_fraction, max_validation_rows in conf/data/{config.data.name}.yaml), some "
        f"{wanted:,} or more"
        f"{'' if clusters is None else ' that share no cluster'}, or a wider margin."
    )


def _more_items(items: int) -> Iterator[int]:
    """More items than these, a tenth at a time."""
    while items < MOST_ITEMS:
        items = max(items + 10, items * 11 // 10)
        yield items


def _reach_without_changes(items: int, clusters: np.ndarray | None) -> float:
    same = np.zeros((1, items))
    return accuracy_difference(same, same, clusters).high


def needless_ranks(configs: Sequence[Config], parts: ModelParts) -> Iterator[str]:
    """A sentence where LoRA's rank is above the smaller side of every matrix that it adapts."""
    found: dict[int, int] = {}
    for config in configs:
        rank = rank_of(config.adapter)
        if config.adapter.kind != DEFAULT_KIND:
            continue
        shapes = select(parts, config.adapter)
        widest = max(min(shape.in_features, shape.out_features) for shape in shapes)
        if rank > widest:
            found[rank] = max(widest, found.get(rank, 0))
    if found:
        widest = max(found.values())
        yield (
            f"lora.rank={','.join(map(str, sorted(found)))} is above the smaller side of every "
            f"adapted matrix: rank {widest} can already change all of each. Leave it out."
        )
