"""Adapter counts against section 1 of the oracles, and against PEFT at real sizes."""

from __future__ import annotations

import peft
import pytest

from lorascope.adapters.lora.kind import LoraConfig
from lorascope.adapters.targets import select
from lorascope.bases.known_configs import known_config
from lorascope.config import Targets
from lorascope.counting.architectures import ModelShape, WeightMatrix, table_shape
from lorascope.counting.parameters import (
    adamw_bytes,
    adapter_bytes,
    lora_parameters,
    square_matrix_rule,
)
from lorascope.counting.printed_tables import CLASSROOM, LORA_PAPER, ClassroomCell, PaperRow
from tests.counting.architecture_cases import peft_count


def adapter(name: str, targets: Targets, rank: int, dora: bool = False) -> int:
    """Trainable parameters on a known configuration."""
    parts = table_shape(known_config(name)).parts
    return lora_parameters(select(parts, LoraConfig(targets=targets)), rank, dora)


# Tables 4 and 15 of the LoRA paper: method, setting, millions as printed, exact by the formula.
# Full fine-tuning and BitFit are those of GPT-2's architecture in GPT-3's geometry.
LORA_PAPER_GPT3 = [
    ("Fine-tune", "", 175_255.8, 174_604_259_328),
    ("BitFit", "", 14.2, 12_988_416),
    ("PrefixEmbed", "l_p=32, l_i=8", 0.4, 491_520),
    ("PrefixEmbed", "l_p=64, l_i=8", 0.9, 884_736),
    ("PrefixEmbed", "l_p=128, l_i=8", 1.7, 1_671_168),
    ("PrefixEmbed", "l_p=256, l_i=8", 3.2, 3_244_032),
    ("PrefixEmbed", "l_p=512, l_i=8", 6.4, 6_389_760),
    ("PrefixLayer", "l_p=2, l_i=2", 5.1, 4_718_592),
    ("PrefixLayer", "l_p=8, l_i=0", 10.1, 9_437_184),
    ("PrefixLayer", "l_p=8, l_i=8", 20.2, 18_874_368),
    ("PrefixLayer", "l_p=32, l_i=4", 44.1, 42_467_328),
    ("PrefixLayer", "l_p=64, l_i=0", 76.1, 75_497_472),
    ("Adapter-H", "r=1", 7.1, 7_078_080),
    ("Adapter-H", "r=4", 21.2, 21_234_432),
    ("Adapter-H", "r=8", 40.1, 40_109_568),
    ("Adapter-H", "r=16", 77.9, 77_859_840),
    ("Adapter-H", "r=64", 304.4, 304_361_472),
    ("LoRA", "r_v=2", 4.7, 4_718_592),
    ("LoRA", "r_q=r_v=1", 4.7, 4_718_592),
    ("LoRA", "r_q=r_v=2", 9.4, 9_437_184),
    ("LoRA", "r_q=r_k=r_v=r_o=1", 9.4, 9_437_184),
    ("LoRA", "r_q=r_v=4", 18.8, 18_874_368),
    ("LoRA", "r_q=r_k=r_v=r_o=2", 18.8, 18_874_368),
    ("LoRA", "r_q=r_v=8", 37.7, 37_748_736),
    ("LoRA", "r_q=r_k=r_v=r_o=4", 37.7, 37_748_736),
    ("LoRA", "r_q=r_v=64", 301.9, 301_989_888),
    ("LoRA", "r_q=r_k=r_v=r_o=64", 603.8, 603_979_776),
]
CUT_OFF = {"l_p=32, l_i=8", "r_q=r_v=4", "r_q=r_k=r_v=r_o=2", "r_q=r_v=64"}
OTHERWISE = {"", "r_q=r_k=r_v=r_o=64"}
"""Settings whose print follows from the formula neither rounded nor cut off, PrefixLayer aside."""


def test_the_papers_table_is_reproduced_row_by_row() -> None:
    rows = [(row.method, row.setting, row.printed_millions, row.computed) for row in LORA_PAPER]
    assert rows == LORA_PAPER_GPT3


@pytest.mark.parametrize("row", LORA_PAPER, ids=lambda row: f"{row.method} {row.setting}")
def test_print_and_formula_agree_or_the_row_says_how_not(row: PaperRow) -> None:
    differs = row.method == "PrefixLayer" or row.setting in OTHERWISE
    assert row.is_cut_off == (row.setting in CUT_OFF)
    assert row.agrees == (not differs and row.setting not in CUT_OFF)


UNITS = {"K": 1e3, "M": 1e6}


@pytest.mark.parametrize("cell", CLASSROOM, ids=lambda cell: f"{cell.size} r={cell.rank}")
def test_the_square_matrix_rule_gives_every_classroom_cell(cell: ClassroomCell) -> None:
    unit = UNITS[cell.printed[-1]]
    printed = float(cell.printed[:-1])
    # All are rounded, but for 270.9M, which is cut off, and 334.7K, which doubles a rounded 167K.
    cut_off = (cell.rank, cell.size) in [(512, "70B"), (2, "7B")]
    assert printed == (cell.computed // unit if cut_off else round(cell.computed / unit))


def test_the_classroom_table_has_twenty_cells() -> None:
    assert {(c.rank, c.size) for c in CLASSROOM} == {
        (rank, size) for rank in (1, 2, 8, 16, 512) for size in ("7B", "13B", "70B", "180B")
    }


def test_square_matrix_rule_at_rank_one_of_7b_is_167332() -> None:
    assert round(square_matrix_rule(7e9, 1)) == 167_332


KNOWN_COUNTS = [
    ("llama-2-7b", Targets.q_v, 1, 524_288),
    ("llama-2-7b", Targets.all_linear, 1, 2_498_560),
    ("llama-2-7b", Targets.all_linear, 8, 19_988_480),
    ("llama-2-7b", Targets.all_linear, 64, 159_907_840),
    ("llama-2-7b", Targets.all_linear, 512, 1_279_262_720),
    ("llama-3.2-3b", Targets.q_v, 32, 9_175_040),
    ("roberta-base", Targets.q_v, 8, 294_912),
    ("roberta-large", Targets.q_v, 8, 786_432),
    ("deberta-v2-xxlarge", Targets.q_v, 16, 4_718_592),
    ("gemma-2b", Targets.all_linear, 8, 9_805_824),
    ("gemma-2b", Targets.all_linear, 64, 78_446_592),
]


@pytest.mark.parametrize(("name", "targets", "rank", "expected"), KNOWN_COUNTS)
def test_lora_parameters_of_known_models(
    name: str, targets: Targets, rank: int, expected: int
) -> None:
    assert adapter(name, targets, rank) == expected


@pytest.mark.parametrize(("rank", "dora"), [(8, False), (512, False), (8, True)])
@pytest.mark.parametrize("name", ["llama-2-7b", "gemma-2b"])
def test_lora_parameters_equal_pefts_count_at_real_size(name: str, rank: int, dora: bool) -> None:
    values = known_config(name)
    config = peft.LoraConfig(r=rank, target_modules="all-linear", use_dora=dora)
    config.task_type = "CAUSAL_LM"
    assert adapter(name, Targets.all_linear, rank, dora) == peft_count(values, config)


def gpt2(**more: object) -> ModelShape:
    return table_shape({**known_config("gpt2"), **more})


def test_the_head_counts_once_where_it_is_tied() -> None:
    untied = gpt2(tie_word_embeddings=False)
    assert untied.total_parameters - gpt2().total_parameters == 50257 * 768


def test_bytes_of_a_rank_8_adapter_on_7b_are_0_32_gb_with_weights_and_optimizer() -> None:
    count = adapter("llama-2-7b", Targets.all_linear, 8)
    assert adapter_bytes(count) == 4 * count
    assert adamw_bytes(count) == 8 * count
    gradients = adapter_bytes(count)
    assert (adapter_bytes(count) + gradients + adamw_bytes(count)) / 1e9 == pytest.approx(
        0.32, abs=0.005
    )


def test_lora_parameters_with_rank_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="rank=0"):
        lora_parameters([WeightMatrix("q", 4, 4)], 0)
