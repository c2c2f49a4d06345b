"""What is stored is used as what it is: settings that it was not made with are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from lorascope.bases.config_json import config_label
from lorascope.config import (
    Config,
    DataConfig,
    ModelConfig,
    ModelKind,
    QuantConfig,
    TemplateKind,
)
from lorascope.errors import RecordError
from lorascope.execution.sweep import run_sweep
from lorascope.files.layout import RECORD, Layout
from lorascope.files.made_with import base_settings, data_settings, require_made_with
from lorascope.files.store import read_record, write_record
from lorascope.quantizers.kinds import mode_settings
from lorascope.records import DataCard, FootprintRecord
from lorascope.stages import evaluate, merge, prepare_data, quantize_base, report
from lorascope.stages.prepare_base import _source
from lorascope.study.collect import collect
from lorascope.study.declared import declare_trial
from lorascope.study.intact import unprepared
from tests.conftest import BASE_OVERRIDES, compose_one

REVISION = "0" * 40
READERS: dict[str, Callable[[list[Config], Layout], object]] = {
    "train-lora": run_sweep,
    "evaluate": evaluate.command,
    "merge": merge.command,
    "report": report.command,
    "collect": collect,
    "declare_trial": lambda configs, layout: declare_trial(configs[0], layout),
}


@pytest.mark.parametrize("stage", READERS)
@pytest.mark.parametrize(
    ("override", "again"),
    [
        ("quant.storage=int8", "quantize-base model=small quant=nf4 quant.storage=int8"),
        ("quant.double_quantization=true", "quant.double_quantization=true"),
        ("data.cluster=person", "prepare-data model=small data=toy data.cluster=person"),
        ("data.max_tokens=31", "data.max_tokens=31"),
        ("data.train_on_prompt=true", "data.train_on_prompt=true"),
        ("model.path=models/raw/other", "prepare-base model=small model.path=models/raw/other"),
    ],
)
def test_what_a_stored_output_was_not_made_with_is_refused_and_nothing_is_written(
    project: Layout, stage: str, override: str, again: str
) -> None:
    config = compose_one(project, "quant=nf4", "lora.rank=3", override)
    trials = set(project.trials("nf4").glob("*"))
    with pytest.raises(RecordError) as caught:
        READERS[stage]([config], project)
    told = str(caught.value)
    assert override.partition("=")[0] in told
    assert again in told
    assert set(project.trials("nf4").glob("*")) == trials


@pytest.mark.parametrize("stage", [prepare_data, quantize_base])
def test_stages_that_read_the_base_refuse_another(project: Layout, stage: ModuleType) -> None:
    config = compose_one(project, "quant=nf4", "model.path=models/raw/other")
    with pytest.raises(RecordError, match=r"model\.path='models/raw/other'.*prepare-base"):
        stage.command([config], project)


def test_how_a_base_computes_is_asked_of_each_trial(project: Layout) -> None:
    plain = compose_one(project, "quant=nf4", "lora.rank=3")
    for override in ("quant.compute=bfloat16", "model.attention=eager", "train.steps=7"):
        other = compose_one(project, "quant=nf4", "lora.rank=3", override)
        assert declare_trial(other, project).identity != declare_trial(plain, project).identity


def test_the_command_that_makes_it_anew_is_named(project: Layout) -> None:
    overrides = [*BASE_OVERRIDES, "quant=nf4", "quant.storage=int8"]
    config = compose_one(project, "quant=nf4", "quant.storage=int8")
    (missing,) = unprepared([config], project, overrides)
    assert "quantize-base model=small quant=nf4 " in missing.command
    assert missing.command.endswith(" quant.storage=int8")


def test_records_that_kept_no_settings_still_tell_their_storage(
    project: Layout, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "p")
    shutil.copytree(project.root, layout.root)
    folder = layout.quantized("small", "nf4")
    write_record(folder, replace(read_record(folder, FootprintRecord), settings=None))
    card = read_record(layout.data("small", "toy"), DataCard)
    write_record(layout.data("small", "toy"), replace(card, settings=None))
    declare_trial(compose_one(layout, "quant=nf4", "data.max_tokens=31"), layout)
    with pytest.raises(RecordError, match=r"quant\.storage='int8'.*nf4 was made with"):
        declare_trial(compose_one(layout, "quant=nf4", "quant.storage=int8"), layout)


def test_settings_left_over_from_another_kind_count_for_nothing() -> None:
    local = ModelConfig(name="m", kind=ModelKind.local, path="models/raw/m")
    left = replace(local, repository="a/b", revision=REVISION, pretrain_steps=3)
    assert base_settings(left) == base_settings(local)
    assert base_settings(replace(local, path="./models//raw/m/")) == base_settings(local)
    assert base_settings(replace(left, kind=ModelKind.hub)) != base_settings(local)
    rows = DataConfig(name="d", train="data/raw/d.jsonl")
    assert data_settings(replace(rows, repository="a/b", subset="s")) == data_settings(rows)
    unused = replace(rows, max_dropped_fraction=0.2, date="2031-01-02")
    assert data_settings(unused) == data_settings(rows)
    chat = replace(rows, template=TemplateKind.chat)
    assert data_settings(replace(chat, date="2031-01-02")) != data_settings(chat)


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        (ModelKind.local, "local: models/raw/gen"),
        (ModelKind.hub, f"hub: meta-llama/Llama-2-7b@{REVISION}"),
        (ModelKind.tiny, "pre-trained here, seed 0"),
    ],
)
def test_a_base_is_reported_as_of_its_kind(kind: ModelKind, source: str) -> None:
    everything = ModelConfig("lie", kind, "meta-llama/Llama-2-7b", REVISION, "models/raw/gen")
    assert _source(Config(model=everything)) == source


def test_a_remedy_can_be_typed_as_it_is() -> None:
    asked = {"data.system": "Say it's so", "data.cluster": None, "data.train_on_prompt": True}
    made = {"data.system": None, "data.cluster": "x", "data.train_on_prompt": False}
    with pytest.raises(RecordError) as caught:
        require_made_with(asked, made, Path("f"), "again")
    assert str(caught.value).endswith(
        "`again 'data.system=\"Say it'\"'\"'s so\"' data.cluster=null data.train_on_prompt=true`."
    )


def test_a_prepared_base_of_other_settings_is_not_counted_as_what_is_asked_for(
    project: Layout,
) -> None:
    model = compose_one(project, "quant=nf4").model
    assert config_label(model, project) == "small"
    assert (project.base("small") / RECORD).is_file()
    tiny = replace(model, kind=ModelKind.tiny, path=None, known_config="gpt2")
    assert config_label(tiny, project) == "gpt2"


def test_modes_differ_in_what_is_stored_alone() -> None:
    assert mode_settings(QuantConfig("a")) == {"quant.storage": "float16"}
    assert mode_settings(QuantConfig("a", int8_outlier_threshold=3)) == mode_settings(
        QuantConfig("b")
    )


def test_settings_read_as_conf_has_them(compose: Callable[..., Config]) -> None:
    """A message that shows them must not show Python's own form of a choice."""
    values = data_settings(compose().data)
    assert "<" not in repr(values)
