"""docs/quantization.md says what the code counts, of the modes that conf/ has."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.grids import MODES, PAGE, TRAINED, bits_table, ways_table
from lorascope.config import Config


def test_the_page_has_the_bits_and_bytes_of_each_mode(compose: Callable[..., Config]) -> None:
    assert [compose(f"quant={mode.name}").quant for mode in MODES] == list(MODES)
    assert "\n".join(bits_table()) in PAGE.read_text()


def test_the_page_about_training_has_the_figures_of_the_committed_report() -> None:
    assert "\n".join(ways_table()) in TRAINED.read_text()
