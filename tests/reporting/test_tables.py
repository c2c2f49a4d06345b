"""Tables: every declared trial is a row, cells equal the records, the unknown is blank."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from typing import Any

import pytest
from scipy.stats import binomtest

from lorascope.comparing.findings import compare
from lorascope.comparing.shipping import choose
from lorascope.config import Targets
from lorascope.records import PhaseMemory, Status
from lorascope.reporting import units
from lorascope.reporting.tables.accuracy import (
    accuracy_rows,
    accuracy_table,
    by_validation_score,
    modes,
)
from lorascope.reporting.tables.memory import mode_memory_table, trial_memory_table
from lorascope.reporting.tables.parameters import parameter_rows, parameter_table
from lorascope.reporting.tables.table import Column, Table
from tests.study_factory import TINY, Trial, example_study, lora_dials, make_study, trial_name


@dataclass(frozen=True)
class Cells:
    name: str | None
    size: float | None
    flag: bool | None = None


COLUMNS = (
    Column("name", "Name", right=False),
    Column("size", "Size", lambda size: f"{size:.1f}"),
    Column("flag", "Flag", units.yes_no, right=False),
)


def read(table: Table[Any]) -> list[dict[str, str]]:
    """The CSV's rows."""
    return list(csv.DictReader(io.StringIO(table.csv())))


def test_markdown_aligns_numbers_right_and_drops_columns_that_nobody_fills() -> None:
    table = Table(COLUMNS, [Cells("a", 1.25), Cells("a longer one", 1234.0), Cells("c", None)])
    assert table.markdown() == (
        "| Name         |   Size |\n"
        "| ------------ | -----: |\n"
        "| a            |    1.2 |\n"
        "| a longer one | 1234.0 |\n"
        "| c            |        |\n"
    )


def test_markdown_keeps_a_reason_with_bars_and_newlines_in_one_cell() -> None:
    text = Table(COLUMNS, [Cells("a | b\n\nc", None)]).markdown()
    assert "| a \\| b c |" in text
    assert text.count("\n") == 3


def test_csv_keeps_all_columns_exact_and_leaves_unknown_blank() -> None:
    table = Table(COLUMNS, [Cells("a, b", 0.1 + 0.2, True), Cells(None, None, False)])
    assert table.csv() == 'name,size,flag\n"a, b",0.30000000000000004,true\n,,false\n'


def test_table_without_rows_has_its_header() -> None:
    assert Table(COLUMNS, []).csv() == "name,size,flag\n"
    assert Table(COLUMNS, []).markdown().splitlines()[0] == "| Name | Size | Flag |"


@pytest.mark.parametrize(("number", "text"), [
    (0, "0 B"), (999, "999 B"),
    (132864, "133 kB"), (1410816, "1.41 MB"), (13_476_831_232, "13.5 GB"),
])  # fmt: skip
def test_size_has_three_digits_and_decimal_units(number: int, text: str) -> None:
    assert units.size(number) == text


@pytest.mark.parametrize(("value", "text"), [
    (0.0371, "0.0371"), (0.12, "0.120"), (19.0, "19.0"), (557.4, "557"), (1114.2, "1,114"),
    (0, "0"),
])  # fmt: skip
def test_small_percent_has_three_digits(value: float, text: str) -> None:
    assert units.small_percent(value) == text


def test_accuracy_rows_hold_every_base_trial_and_missing_trial() -> None:
    study = example_study()
    rows = accuracy_rows(study)
    assert len(rows) == 4 + len(study.trials) + len(study.missing)
    assert [row.cell.quant for row in rows if row.cell.base] == ["fp16", "int8", "nf4", "nf4_dq"]
    diverged = next(row for row in rows if row.status == "diverged")
    assert (diverged.test, diverged.reason) == (None, "loss is nan at step 120")
    assert [row.trial for row in rows if row.status == "missing"] == list(study.missing)
    assert rows[-1].cell.quant == "nf4_dq"
    assert rows[-1].cell.dial("rank") == 128


def test_accuracy_row_carries_the_records_numbers_and_wilsons_interval() -> None:
    trial = Trial("nf4", rank=8, accuracy=0.75, loss_nats=0.4)
    study = make_study([trial], items=400)
    alone = {
        identity: {
            split: [replace(item, cluster=None) for item in items]
            for split, items in splits.items()
        }
        for identity, splits in study.items.items()
    }
    row = accuracy_rows(replace(study, items=alone))[1]
    reference = binomtest(300, 400).proportion_ci(method="wilson")
    assert row.estimate is not None
    assert row.estimate.ends == pytest.approx((reference.low, reference.high), abs=1e-6)
    assert row.test is not None
    assert (row.test.items, row.test.accuracy, row.test.completion_loss_nats) == (400, 0.75, 0.4)
    assert row.estimate.standard_error == pytest.approx((0.75 * 0.25 / 399) ** 0.5)
    assert (dict(row.cell.dials), row.seed) == (lora_dials(8), 0)
    assert row.trial == trial_name(trial)


def test_accuracy_row_has_the_interval_of_its_configuration_over_clusters() -> None:
    study = make_study([Trial("nf4", rank=8, accuracy=0.75)], items=400)
    estimate = compare(study).cells[1].accuracy
    assert estimate is not None
    assert estimate.clusters == 80
    assert accuracy_rows(study)[1].estimate == estimate


def test_trial_and_base_without_evaluation_are_rows_that_say_so() -> None:
    study = make_study([Trial("nf4", evaluated=False)])
    study = replace(study, evaluations=[])
    base, trial = accuracy_rows(study)
    assert (base.status, base.reason) == ("missing", "no evaluation record")
    assert (trial.status, trial.reason) == ("completed", "no evaluation record")


def test_modes_keep_the_order_of_the_footprints() -> None:
    study = make_study([Trial("nf4"), Trial("fp16"), Trial("int8")])
    assert modes(study) == ["nf4", "fp16", "int8"]


def test_best_is_chosen_on_validation_and_never_on_test() -> None:
    # Both are 0.90 on validation, and there the smaller adapter wins, whatever the test split says.
    low_rank, high_rank = Trial("nf4", 4, accuracy=0.898), Trial("nf4", 16, accuracy=0.902)
    study = make_study([high_rank, low_rank])
    assert [row.cell.dial("rank") for row in by_validation_score(accuracy_rows(study))] == [4, 16]
    better = make_study([low_rank, replace(high_rank, accuracy=0.91)])
    assert [row.cell.dial("rank") for row in by_validation_score(accuracy_rows(better))] == [16, 4]


def test_best_among_equal_scores_and_ranks_is_on_the_smaller_base() -> None:
    study = make_study([Trial("fp16"), Trial("nf4"), Trial("nf4_dq")])
    ranked = by_validation_score(accuracy_rows(study))
    assert [row.cell.quant for row in ranked] == ["nf4_dq", "nf4", "fp16"]


def test_first_by_validation_score_is_the_reference_of_the_rule() -> None:
    study = example_study()
    chosen, _, _ = choose("auto", study)
    assert by_validation_score(accuracy_rows(study))[0].trial == chosen.trial


def test_best_by_loss_where_nothing_can_be_right_or_wrong() -> None:
    trials = [
        Trial("nf4", rank, accuracy=None, loss_nats=loss) for rank, loss in ((1, 2.0), (8, 1.5))
    ]
    ranked = by_validation_score(accuracy_rows(make_study(trials, None)))
    assert [row.cell.dial("rank") for row in ranked] == [8, 1]


def test_not_finite_validation_loss_is_never_best() -> None:
    study = make_study([Trial("nf4", 1, loss_nats=float("nan")), Trial("nf4", 2, accuracy=0.1)])
    assert [row.cell.dial("rank") for row in by_validation_score(accuracy_rows(study))] == [2]


def test_accuracy_text_shows_adapter_settings_only_where_they_vary() -> None:
    same = accuracy_table(accuracy_rows(make_study([Trial("nf4", 1), Trial("nf4", 2)]))).markdown()
    assert "Targets" not in same
    mixed = make_study([Trial("nf4", 1), Trial("nf4", 1, targets=Targets.q_v, rslora=True)])
    header = accuracy_table(accuracy_rows(mixed)).markdown().splitlines()[0]
    assert "Targets" in header
    assert "rsLoRA" in header
    assert "DoRA" not in header


def test_parameter_rows_of_known_models_and_of_the_study() -> None:
    study = make_study([Trial("nf4", 8), Trial("nf4", 24)])
    rows = {(row.model, row.cell.dial("rank")): row for row in parameter_rows(study)}
    assert rows["Llama-2-7B", 8].trainable_parameters == 19_988_480
    texts = {(row["model"], row["rank"]): row for row in read(parameter_table([*rows.values()]))}
    assert texts["Llama-2-7B", "512"]["adapter_bytes"] == str(4 * 1_279_262_720)
    assert texts["gemma-2b", "64"]["optimizer_bytes"] == str(8 * 78_446_592)
    assert rows["tiny", 8].measured_parameters == rows["tiny", 8].trainable_parameters == 61_440
    percent = float(texts["tiny", "8"]["percent_of_base"])
    assert percent == pytest.approx(100 * 61_440 / TINY.total_parameters)
    assert rows["tiny", 16].measured_parameters is None
    assert ("tiny", 24) in rows
    assert ("Llama-2-7B", 24) not in rows
    assert rows["Llama-2-7B", 1].rule_parameters == 164_176


def test_parameter_rows_follow_targets_dora_and_listed_modules() -> None:
    study = make_study([
        Trial("nf4", 8, targets=Targets.q_v), Trial("nf4", 8, modules=("down_proj",), dora=True),
    ])  # fmt: skip
    rows = {
        (r.cell.targets, r.cell.dial("dora")): r
        for r in parameter_rows(study)
        if (r.model, r.cell.dial("rank")) == ("tiny", 8)
    }
    assert rows["q_v", False].trainable_parameters == 3 * 2 * 8 * (128 + 128)
    assert rows["down_proj", True].trainable_parameters == 3 * (8 * (384 + 128) + 128)


def test_parameter_rows_leave_out_models_without_the_listed_modules() -> None:
    study = make_study([Trial("nf4", 8, modules=("q_proj",))])
    renamed = [replace(shape, kind="c_attn") for shape in study.base.linear_shapes]
    study = replace(study, base=replace(study.base, linear_shapes=renamed))
    assert "tiny" not in {row.model for row in parameter_rows(study)}


def test_mode_memory_components_add_up_and_bits_equal_the_arithmetic() -> None:
    rows = {row["quant"]: row for row in read(mode_memory_table(example_study()))}
    names = ("quantized_weight_bytes", "quantization_constant_bytes", "unquantized_bytes")
    for row in rows.values():
        assert sum(int(row[name]) for name in names) == int(row["total_bytes"])
        assert float(row["bits_measured"]) == pytest.approx(float(row["bits_exact"]))
    assert float(rows["nf4"]["bits_asymptotic"]) == 4.5
    assert float(rows["nf4_dq"]["bits_asymptotic"]) == pytest.approx(4.127, abs=5e-4)
    assert float(rows["fp16"]["bits_exact"]) == 16


def test_mode_memory_leaves_expected_bits_blank_where_the_format_is_not_fully_known() -> None:
    study = make_study([Trial("nf4")])
    unknown = replace(study.footprints[0], double_quantization=None)
    other_layers = replace(study.footprints[0], quantized_parameters=5)
    for row in read(mode_memory_table(replace(study, footprints=[unknown, other_layers]))):
        assert (row["bits_exact"], row["bits_asymptotic"]) == ("", "")


def test_trial_memory_rows_keep_failed_trials_blank() -> None:
    trials = [Trial("nf4", 8), Trial("nf4", 64, status=Status.out_of_memory, reason="8 GB needed")]
    done, failed = read(trial_memory_table(make_study(trials)))
    assert int(done["train_resident_growth_bytes"]) == 240_000_000
    assert int(done["optimizer_bytes"]) == 2 * int(done["adapter_bytes"])
    assert (failed["model_bytes"], failed["train_seconds"]) == ("", "")
    assert (failed["status"], failed["reason"]) == ("out_of_memory", "8 GB needed")


def test_trial_memory_shows_the_allocators_peak_on_cuda() -> None:
    study = make_study([Trial("nf4", 8)])
    result = study.trials[0].result
    assert result is not None
    memory = {phase: PhaseMemory(None, 5_000_000_000, 6_000_000_000) for phase in result.memory}
    trial = replace(study.trials[0], result=replace(result, memory=memory))
    table = trial_memory_table(replace(study, trials=[trial]))
    header, _, row = table.markdown().splitlines()
    assert "Train peak" in header
    assert "growth" not in header
    assert "5.00 GB" in row


def test_memory_csv_can_be_read_back_in_bytes() -> None:
    study = example_study()
    rows = read(mode_memory_table(study))
    assert [int(row["total_bytes"]) for row in rows] == [f.total_bytes for f in study.footprints]
