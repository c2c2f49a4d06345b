"""Kinds of rows: a column that is kept, and nothing that changes where none is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.config import DataConfig
from lorascope.data.conversations import group_of
from lorascope.data.files import RawRow
from lorascope.data.rows import PreparedRow, Segment, read_rows, write_rows
from lorascope.data.unfit_rows import RowError
from lorascope.records import ItemResult
from lorascope.scoring.items import read_items, write_items

ROW = PreparedRow("i", [Segment("a", False), Segment(" b", True)], "a", " b")
ITEM = ItemResult("i", "p", "t", True, 0.5, 2)


def test_a_row_and_an_item_keep_their_group_and_without_one_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [ROW])
    # As they were written before there were groups.
    assert path.read_text() == (
        '{"answer": null, "choices": null, "cluster": null, "completion": " b", "item": "i", '
        '"prompt": "a", "segments": [{"text": "a", "trained": false}, '
        '{"text": " b", "trained": true}]}\n'
    )
    write_rows(path, [replace(ROW, group="maths")])
    assert read_rows(path) == [replace(ROW, group="maths")]
    write_items(path, [ITEM])
    assert "group" not in json.loads(path.read_text())
    write_items(path, [replace(ITEM, group="maths")])
    assert read_items(path) == [replace(ITEM, group="maths")]


def test_the_group_is_the_columns_value_and_a_row_without_one_is_unfit() -> None:
    row = RawRow({"prompt": "a", "level": 3, "subject": " "}, "rows.jsonl, line 1")
    assert group_of(row, None) is DataConfig().group is None
    assert group_of(row, "level") == "3"
    with pytest.raises(RowError, match=r"subject is empty, and data.group names it"):
        group_of(row, "subject")
    with pytest.raises(RowError, match=r"no value in column 'topic', which data.group names"):
        group_of(row, "topic")
