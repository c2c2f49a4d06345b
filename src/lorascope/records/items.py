"""Scored items: one row of a split under one evaluation, and all of them column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, overload


@dataclass(frozen=True)
class ItemResult:
    """One scored item, for item-by-item comparison."""

    item: str
    """Hash of the row."""
    prompt_sha256: str
    target_sha256: str
    correct: bool | float | None
    """Of pairs 0.5 where the trial is neither better nor worse than the bare base."""
    loss_nats: float
    """Loss summed over the completion's tokens."""
    tokens: int
    cluster: str | None = None
    """Hash of what this item shares with others (a person, a document); None where it shares
    nothing."""
    correct_norm: bool | None = None
    """Whether the choice with the highest log-likelihood a character is right (lm-eval's
    `acc_norm`)."""
    stock_encoding: bool | None = None
    """Whether stock lm-eval splits this item into the same tokens. If not, its scores differ: it
    encodes the prompt by itself, which cuts a token that reaches into the completion. None in older
    items."""
    label: int | None = None
    """Number of the row's class; None for rows without classes."""
    predicted: int | None = None
    """Number of the class that the model gave it."""
    rejected_loss_nats: float | None = None
    """Loss summed over the rejected reply's tokens; None without scoring=preference. `loss_nats` is
    then the chosen reply's."""
    margin_nats: float | None = None
    """How much likelier, against the rejected reply, training made the chosen one: its logarithm of
    odds less that of the bare base in the same mode. DPO's reward margin, but for beta. None for
    the bare base."""
    group: str | None = None
    """What kind of row it is; None where the data has no kinds."""

    @property
    def shared(self) -> str | None:
        """What this item shares with others, which then count as one draw: its cluster, and of a
        pair of replies without one its prompt; None where nothing."""
        if self.cluster is None and self.rejected_loss_nats is not None:
            return self.prompt_sha256
        return self.cluster


FIELDS = tuple(field.name for field in fields(ItemResult))


class ItemTable(Sequence[ItemResult]):
    """Items held as columns: an item is made where somebody asks for it.

    A thousand evaluations have a million items, which take longer to make than all their tests.
    """

    def __init__(self, columns: Mapping[str, Sequence[Any]], sha256: str | None = None) -> None:
        """`columns` has each field of `ItemResult` [items]; `sha256` is of the file that holds
        exactly these."""
        self.columns, self.sha256 = columns, sha256

    def __len__(self) -> int:
        return len(self.columns["item"])

    @overload
    def __getitem__(self, place: int) -> ItemResult: ...
    @overload
    def __getitem__(self, place: slice) -> list[ItemResult]: ...
    def __getitem__(self, place: int | slice) -> ItemResult | list[ItemResult]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        return ItemResult(*(self.columns[name][place] for name in FIELDS))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def item_column(items: Sequence[ItemResult], name: str) -> Sequence[Any]:
    """One field of all items [items]."""
    if isinstance(items, ItemTable):
        return items.columns[name]
    return [getattr(item, name) for item in items]
