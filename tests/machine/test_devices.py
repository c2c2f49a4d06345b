"""What the processor is said to have."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorascope.files.layout import Layout
from lorascope.machine.devices import multiplies_bfloat16
from lorascope.stages import check
from tests.conftest import compose_one


@pytest.mark.parametrize(
    ("description", "has"),
    [
        ("model name\t: some\nflags\t\t: fpu avx512f avx512_bf16 amx_bf16\n", True),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("model name\t: one with bf16 in its name\nflags\t\t: fpu avx512f\n", False),
        ("", False),
    ],
)
def test_bfloat16_is_read_from_the_flags(tmp_path: Path, description: str, has: bool) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(description)
    assert multiplies_bfloat16(file) is has
    assert not multiplies_bfloat16(tmp_path / "not there")


def test_float32_on_such_a_processor_is_said_of_large_bases(project: Layout) -> None:
    auto = compose_one(project, "runtime.device=cpu")
    chosen = compose_one(project, "runtime.device=cpu", "quant.compute=bfloat16")
    (said,) = check.slow_compute([auto, chosen], 106_000_000, True)
    assert "quant.compute=bfloat16" in said
    assert not list(check.slow_compute([chosen], 106_000_000, True))
    assert not list(check.slow_compute([auto], 700_000, True))
    assert not list(check.slow_compute([auto], 106_000_000, False))
