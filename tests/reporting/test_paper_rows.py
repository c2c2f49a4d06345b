"""The LoRA paper's table beside the trials that are its rows."""

from __future__ import annotations

from pathlib import Path

from lorascope.comparing.results import cell_of
from lorascope.counting.printed_tables import LORA_PAPER
from lorascope.files.layout import Layout
from lorascope.reporting.tables.paper_rows import is_row
from lorascope.study.declared import trial_key
from lorascope.study.grid import expand, recipe_axes, with_overrides

WORDS = ["recipe=lora_table"]


def test_the_recipe_trains_every_printed_row_but_bitfits() -> None:
    layout = Layout(Path(__file__).parents[2])
    points = expand(layout, with_overrides([], recipe_axes(WORDS, layout) + WORDS))
    cells = {cell_of(trial_key(point)) for point in points}
    found = [sum(is_row(printed, cell) for cell in cells) for printed in LORA_PAPER]
    assert [p.method for p, n in zip(LORA_PAPER, found, strict=True) if n != 1] == ["BitFit"]
    # Ranks that the paper has not for these matrices ride along in the same packs.
    assert len(cells) - sum(found) == 5
