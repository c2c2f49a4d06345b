"""What is known of a study before anything is trained: what it cannot show, and what it need not
try."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from lorascope.adapters.kinds import DEFAULT_KIND, rank_of
from lorascope.adapters.targets import select
from lorascope.config import Config, DataConfig, Scoring, Search
from lorascope.records import ModelParts
from lorascope.statistics.accuracy import accuracy_difference
from lorascope.statistics.error_parts import CHOOSING, items_to_settle
from lorascope.statistics.power import items_to_show


def too_few_items(
    data: DataConfig, margin: float, clusters: Sequence[str | None], candidates: int = 1
) -> Iterator[str]:
    """A sentence where the validation items could not show an accuracy inside the margin even if
    not one answer differed from the reference's, or not where several candidates are compared
    at once; and how many would do.

    Args:
        margin: `decide.margin_accuracy`.
        clusters: of each validation row, None where rows have none.
        candidates: that are compared, at the most.
    """
    if data.scoring is Scoring.loss:
        return
    there, clusters = len(clusters), clusters[: data.max_validation_rows]
    count = items = len(clusters)
    labels = None
    if None not in clusters:
        names, labels = np.unique([str(name) for name in clusters], return_inverse=True)
        count = len(names)
        if count < 2:
            return
    reach = _reach_without_changes(items, labels)
    enough = items_to_show(margin, max(1, candidates))
    if reach < margin and count >= enough:
        return
    worth = "" if labels is None else f" in {count:,} clusters"
    near = (
        f"that an accuracy is within {100 * margin:g} points of the reference's "
        f"(decide.margin_accuracy={margin:g})"
    )
    if reach >= margin:
        told = (
            f"{items:,} validation items{worth} cannot show {near}: were not one answer different, "
            f"the 95 % interval would still reach {100 * reach:.1f}"
        )
    else:
        told = (
            f"{items:,} validation items{worth} are few: where {candidates:,} candidates are "
            f"compared, they show of none {near}, were not one answer different"
        )
    apart = "" if labels is None else " that share no cluster"
    yield f"{told}. {_wanted(data, enough, there, candidates, apart)}, or a wider margin."


def _wanted(data: DataConfig, items: int, there: int, candidates: int, apart: str) -> str:
    """How many validation items would do, and how many rows that takes; `there` are there."""
    place = f"conf/data/{data.name}.yaml"
    several = f"For {candidates:,} candidates it" if candidates > 1 else "It"
    takes = f"{several} takes some {items:,} or more{apart}"
    is_capped = data.max_validation_rows is not None and data.max_validation_rows < items
    cap = ["another max_validation_rows"] if is_capped else []
    rows = []
    if there < items and data.validation is None:
        rows = [
            f"{math.ceil(items / data.validation_fraction):,} rows, another validation_fraction"
        ]
    ways = " and ".join([*rows, *cap])
    return f"{takes}: {ways} ({place})" if ways else takes


def judged_at_once(configs: Sequence[Config]) -> int:
    """Configurations of a grid that may be held against its reference, whatever their seeds: what
    they cost, which is to be less, is not known yet."""
    if configs[0].search is Search.settle:
        # They come one after the other, each with its part of the error.
        return 1
    return max(1, len({repr(replace(config, seed=0)) for config in configs}) - 1)


def too_few_to_settle(configs: Sequence[Config], there: int) -> Iterator[str]:
    """A sentence where `search=settle` could accept nothing, as too few items would judge: one in
    `CHOOSING` chooses the reference where several may be it.

    Args:
        there: validation rows.
    """
    first = configs[0]
    data, rule = first.data, first.decide
    if first.search is not Search.settle or data.scoring is Scoring.loss:
        return
    forms = {repr(replace(config, seed=0)): config for config in configs}.values()
    references = [
        one
        for one in forms
        if one.quant.name == rule.reference_quant
        and rule.reference_rank in (None, rank_of(one.adapter))
    ]
    items = min(there, data.max_validation_rows or there)
    judging = items - items // CHOOSING if len(references) > 1 else items
    least = items_to_settle(rule.margin_accuracy, rule.error, len(forms) - 1)
    if judging < least:
        told = f"{judging:,} validation items"
        if judging < items:
            told = (
                f"about {told} of {items:,} (the others choose the reference, unless "
                "decide.reference_rank names it)"
            )
        yield (
            f"search=settle: {told} judge, and fewer than {least:,} show nothing within "
            f"decide.margin_accuracy={rule.margin_accuracy:g}, were not one answer different. Name "
            f"more rows, or raise validation_fraction (conf/data/{data.name}.yaml)."
        )


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
