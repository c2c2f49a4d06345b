"""`lorascope count`, where it reads a model's configuration from, and the printed tables."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorascope.bases.config_json import model_config_dict, own_code_folder
from lorascope.bases.known_configs import known_config
from lorascope.bases.tiny.pretraining import build_tiny_model
from lorascope.cli import main
from lorascope.config import Config, ModelConfig, ModelKind
from lorascope.counting.architectures import table_shape
from lorascope.errors import ConfigError, ModelError
from lorascope.files.layout import Layout
from lorascope.reporting.tables.counts import METHODS, method_table
from lorascope.reporting.tables.printed import classroom_table, paper_table
from lorascope.stages import count as count_stage
from tests.conftest import REPOSITORY
from tests.counting.published_models import PUBLISHED

TINY = ModelConfig(name="tiny", kind=ModelKind.tiny)
HUB = ModelConfig(
    name="far", kind=ModelKind.hub, repository="somebody/far", revision="0" * 40
)  # fmt: skip


def count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """Exit status, output and errors of `lorascope count`."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sys, "argv", ["lorascope", "count", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    code = ended.value.code
    return code if isinstance(code, int) else 0, captured.out, captured.err


def table_lines(text: str) -> list[list[str]]:
    """Lines that start with a number, in words."""
    return [line.split() for line in text.splitlines() if line.strip()[:1].isdigit()]


def test_count_prints_every_power_of_two_up_to_512(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text, _ = count(monkeypatch, capsys, "model=llama2_7b_chat", "lora=all_linear")
    rows = {int(words[0]): words[1] for words in table_lines(text)}
    assert status == 0
    assert list(rows) == [2**power for power in range(10)]
    assert rows[8] == "19,988,480"
    assert rows[512] == "1,279,262,720"
    assert "6,738,415,616 parameters" in text
    assert "the model has no biases" in text


def test_count_takes_ranks_methods_and_overrides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("model=gemma_2b", "--ranks", "64,3", "lora.dora=true", "--methods", "ia3")
    _, text, _ = count(monkeypatch, capsys, *arguments)
    assert [words[0] for words in table_lines(text)] == ["3", "64"]
    assert "DoRA on all_linear" in text
    assert "IA3 (PEFT)" in text
    assert "BitFit" not in text


@pytest.mark.parametrize(("arguments", "named"), [
    (["--ranks", "0,8"], "--ranks='0,8': 0 is no rank from 1 to 512"),
    (["--ranks", "eight"], "eight is no rank"),
    (["--ranks"], "--ranks lacks its value"),
    (["--rank", "8"], "unknown flag --rank"),
    (["--methods", "ia3,magic"], "--methods='magic': no such method. There are: full, bitfit"),
    (["--target-parameters", "experts"], "This model has: none"),
    (["model=nowhere"], "there is no conf/model/nowhere.yaml"),
    (["lora=modules", "lora.modules=[c_attn]"], "This model has: down_proj"),
    (["model.known_config=llama-9"], "There are: bloom-7b1"),
])  # fmt: skip
def test_count_names_what_it_cannot_use(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    named: str,
) -> None:
    # Prepared bases of this working tree would come before a known configuration.
    monkeypatch.setattr(Layout, "base", lambda layout, name: layout.root / "nowhere")
    status, text, error = count(monkeypatch, capsys, "model=tiny", *arguments)
    assert status == 2
    assert named in error
    assert not text


def test_count_tells_known_configurations_apart(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Layout, "base", lambda layout, name: layout.root / "nowhere")
    arguments = ["model=tiny", "model.known_config=gpt2,llama-2-7b", "--ranks", "8"]
    _, text, _ = count(monkeypatch, capsys, *arguments)
    assert "gpt2: gpt2, 12 layers, 124,439,808 parameters" in text
    assert "llama-2-7b: llama, 32 layers, 6,738,415,616 parameters" in text
    assert "tiny" not in text


def test_count_says_that_a_vision_tower_is_left_out(
    project: Layout, compose: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    text = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34}
    write_config(project.root / "models/gemma", {"model_type": "gemma3", "text_config": text})
    config = compose()
    config.model = ModelConfig(name="seeing", path="models/gemma")
    count_stage.command([config], project, {}, [])
    shown = capsys.readouterr().out
    assert shown.startswith("models/gemma: its language model alone; the vision tower is left out")
    assert "gemma3_text, 34 layers, 3,880,263,168 parameters" in shown


def test_count_builds_what_has_no_table_and_says_what_does_not_fit(
    project: Layout, compose: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    _, values = PUBLISHED["deepseek-v2-lite"]
    write_config(project.root / "models/deep", values)
    config = compose()
    config.model = ModelConfig(name="deep", path="models/deep")
    count_stage.command([config], project, {"--ranks": "8"}, [])
    shown = capsys.readouterr().out
    assert "deepseek_v2, 27 layers, 15,706,484,224 parameters" in shown
    assert "(q_proj, kv_a_proj_with_mqa, kv_b_proj, o_proj)" in shown
    assert "Adapters do not reach 94 % of the weights in this model's matrices: experts" in shown
    (lora,) = table_lines(shown)
    matrices = (2048 + 3072) + (2048 + 576) + (512 + 4096) + (2048 + 2048)
    assert lora[:2] == ["8", f"{27 * 8 * matrices:,}"]
    rows = [line.split("  ") for line in shown.splitlines()]
    (prefix,) = [row for row in rows if row[0] == "Prefix tuning (PEFT)"]
    assert [cell for cell in prefix if cell.strip()][1:] == ["PEFT's does not fit this model"]


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_count_prints_its_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    status, text, _ = count(monkeypatch, capsys, "model=tiny", flag)
    assert status == 0
    assert "--target-parameters" in text


def test_count_adapts_experts_and_router_by_parameter_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["model=tinyllama_1b", "model.known_config=mixtral-8x7b", "--ranks", "8"]
    monkeypatch.setattr(Layout, "base", lambda layout, name: layout.root / "nowhere")
    _, text, _ = count(monkeypatch, capsys, *arguments)
    names = "experts.gate_up_proj,experts.down_proj,gate.weight"
    _, bare, _ = count(monkeypatch, capsys, *arguments, "--target-parameters", names)
    (attention,), (with_experts,) = table_lines(text), table_lines(bare)
    added = 32 * 8 * (8 * (4096 + 2 * 14336) + 8 * (14336 + 4096) + 4096 + 8)
    assert int(with_experts[1].replace(",", "")) == int(attention[1].replace(",", "")) + added
    assert "with experts" in text


def test_count_loads_no_torch_and_takes_two_seconds_at_most() -> None:
    code = (
        "import sys; sys.argv = ['lorascope', 'count', 'model=llama2_7b_chat']\n"
        "from lorascope.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code in (0, None), end.code\n"
        "print({'torch', 'transformers', 'peft'} & set(sys.modules))"
    )
    started = time.perf_counter()
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert answer.stdout.strip().endswith("set()"), answer.stderr
    # Alone it takes 0.7 s; the machine may be busy.
    assert time.perf_counter() - started < 10


def test_the_tiny_models_configuration_is_that_of_the_model_built_from_it(tmp_path: Path) -> None:
    model = build_tiny_model()
    values = model_config_dict(TINY, Layout(tmp_path))
    assert values.items() <= {**model.config.to_dict(), "dtype": "float32"}.items()
    assert table_shape(values).total_parameters == model.num_parameters()


def write_config(folder: Path, values: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))


def test_a_models_configuration_is_looked_up_in_order(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    model = ModelConfig(name="m", path="models/raw/m", known_config="gpt2")
    assert model_config_dict(model, layout) == known_config("gpt2")
    write_config(tmp_path / "models/raw/m", {"model_type": "of the local folder"})
    assert model_config_dict(model, layout) == {"model_type": "of the local folder"}
    write_config(layout.base("m"), {"model_type": "of the base"})
    assert model_config_dict(model, layout) == {"model_type": "of the base"}


def test_a_hub_models_configuration_comes_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    write_config(
        cache / "models--somebody--far" / "snapshots" / ("0" * 40), {"model_type": "cached"}
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    assert model_config_dict(HUB, Layout(tmp_path)) == {"model_type": "cached"}


def test_a_hub_model_that_is_not_here_names_the_command_that_fetches_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hf download somebody/far config.json --revision 0000"):
        model_config_dict(HUB, Layout(tmp_path))


def test_code_of_a_models_own_is_taken_where_it_is_trusted_and_there(tmp_path: Path) -> None:
    folder, layout = tmp_path / "models/raw/m", Layout(tmp_path)
    model = ModelConfig(name="m", path="models/raw/m", trust_remote_code=True)
    write_config(folder, {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}})
    assert own_code_folder(model, layout) is None
    (folder / "own.py").touch()
    assert own_code_folder(model, layout) == folder
    assert own_code_folder(replace(model, trust_remote_code=False), layout) is None
    write_config(folder, {"model_type": "olmo"})
    assert own_code_folder(model, layout) is None


def test_a_local_model_without_configuration_is_named(tmp_path: Path) -> None:
    model = ModelConfig(name="m", path="models/raw/m")
    with pytest.raises(ConfigError, match=r"model.path='models/raw/m'"):
        model_config_dict(model, Layout(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_configuration_is_named(tmp_path: Path, text: str) -> None:
    folder = Layout(tmp_path).base("tiny")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json"):
        model_config_dict(TINY, Layout(tmp_path))


def test_every_method_has_a_row_at_usual_sizes() -> None:
    shape = table_shape(known_config("mixtral-8x7b"))
    for method in METHODS:
        assert method_table(shape, [method]).rows, method


def test_printed_tables_show_print_formula_and_real_models_side_by_side() -> None:
    paper, classroom = (
        list(csv.DictReader(io.StringIO(table.csv())))
        for table in (paper_table(), classroom_table())
    )
    lora = next(row for row in paper if row["setting"] == "r_q=r_v=4")
    assert (lora["printed_millions"], lora["computed_parameters"]) == ("18.8", "18874368")
    assert lora["difference"] == "cut off, not rounded"
    # Falcon-180B's fused matrix: 14848 in, 14848 + 2 x 8 x 64 out.
    assert int(lora["real_parameters"]) == 80 * 4 * (14848 + 14848 + 1024)
    cells = {(row["rank"], row["size"]): row for row in classroom}
    small = cells["1", "7B"]
    assert (small["printed"], small["rule_parameters"]) == ("167K", "167332")
    assert small["query_value_parameters"] == "524288"
    assert small["all_linear_parameters"] == "2498560"
    assert cells["512", "180B"]["query_value_modules"] == "query_key_value"


def test_printed_tables_are_the_same_every_time() -> None:
    first, second = ([paper_table().csv(), classroom_table().csv()] for _ in range(2))
    assert first == second
