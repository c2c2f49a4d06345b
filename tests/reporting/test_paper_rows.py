"""The LoRA paper's table beside the trials that are its rows."""

from __future__ import annotations

from pathlib import Path

from lorascope.comparing.results import CellKey, CellScore, cell_of
from lorascope.counting.printed_tables import LORA_PAPER
from lorascope.files.layout import Layout
from lorascope.reporting.tables.paper_rows import here, is_row, trained_row
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


def test_a_row_is_the_trial_with_the_papers_settings_and_says_any_others() -> None:
    printed = next(row for row in LORA_PAPER if row.setting == "r_q=r_v=2")
    plain = CellKey("fp16", "lora", "q_v", (("rank", 2),))
    other = CellKey("fp16", "lora", "q_v", (("rank", 2),), variant="lora.head=true")
    scores = [CellScore(own, (), None, None, None, {}, False, False) for own in (other, plain)]
    both, alone = trained_row(printed, scores, {}), trained_row(printed, scores[:1], {})
    assert (here(both), here(alone)) == ("LoRA, rank 2", "LoRA, rank 2, lora.head=true")
