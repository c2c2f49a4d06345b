"""The rows of train on which the inputs of layers are observed, or codes chosen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from lorascope.data.rows import PreparedRow
from lorascope.data.tokenization import Tokenizer, tokenize_rows


@dataclass(frozen=True)
class CalibrationRows:
    """Rows as a model reads them, each alone: without padding there is none to be observed."""

    token_ids: list[list[int]]
    """[rows][tokens]"""
    sha256: str
    """Digest of each row's item and token ids."""

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(len(ids) for ids in self.token_ids)


def calibration_rows(
    train: Sequence[PreparedRow], tokenizer: Tokenizer, count: int
) -> CalibrationRows:
    """`count` rows of the train split, or all where it has fewer: those whose item comes first. An
    item is a digest, so that the choice is arbitrary, and the same whatever the order of rows."""
    chosen = sorted(train, key=lambda row: row.item)[:count]
    token_ids = [ids for ids, _ in tokenize_rows(chosen, tokenizer)]
    named = [[row.item, ids] for row, ids in zip(chosen, token_ids, strict=True)]
    return CalibrationRows(token_ids, hashlib.sha256(json.dumps(named).encode()).hexdigest())
