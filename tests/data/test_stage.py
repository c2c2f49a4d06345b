"""prepare-data as a stage: all or nothing, with its record. And every file of conf/data/."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lorascope.config import Config, DataConfig, DataKind, ModelConfig, ModelKind, TemplateKind
from lorascope.config.rules import validate
from lorascope.data.answers import check_settings
from lorascope.data.prepare import check_rendering, check_source
from lorascope.errors import ConfigError, DataError, RecordError
from lorascope.files.layout import Layout
from lorascope.files.store import read_record, sha256_of_files, write_record
from lorascope.records import BaseRecord, DataCard
from lorascope.stages import check
from lorascope.stages import prepare_data as stage
from tests.data.samples import PROVENANCE, letter_tokenizer, small

CONF = Path(__file__).parents[2] / "conf" / "data"


def project(root: Path, data: DataConfig) -> tuple[Config, Layout]:
    """A project whose base is a tokenizer and a record."""
    layout, config = Layout(root), Config(model=ModelConfig(name="letters", path="x"), data=data)
    letter_tokenizer().save_pretrained(layout.base("letters"))
    record = BaseRecord(
        model="letters", source="test", architecture="none", parameters=1, vocabulary=261,
        context_tokens=64, tied_head=False, linear_shapes=[],
        content_sha256=sha256_of_files(layout.base("letters")), seconds=0.0,
        pretraining=None, provenance=PROVENANCE,
    )  # fmt: skip
    write_record(layout.base("letters"), record)
    return config, layout


def test_stage_writes_rows_and_record_as_a_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, layout = project(tmp_path, small(tmp_path))
    card = stage.command([config], layout)
    folder = layout.data("letters", "x")
    assert sorted(path.name for path in folder.iterdir()) == [
        "record.json", "test.jsonl", "train.jsonl", "validation.jsonl",
    ]  # fmt: skip
    assert read_record(folder, DataCard) == card
    assert (card.max_tokens, card.splits["train"].rows) == (64, 2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "x for letters: 2 train, 1 validation, 1 test (6 rows read)"
    assert len(lines) == 3


def test_stage_that_fails_leaves_the_old_folder_alone(tmp_path: Path) -> None:
    config, layout = project(tmp_path, small(tmp_path))
    stage.command([config], layout)
    before = (layout.data("letters", "x") / "record.json").read_bytes()
    (tmp_path / "train.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="line 1"):
        stage.command([config], layout)
    folder = layout.data("letters", "x")
    assert (folder / "record.json").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["letters"]


def test_stage_without_a_base_says_what_to_run(tmp_path: Path) -> None:
    config = Config(model=ModelConfig(name="letters"), data=small(tmp_path))
    with pytest.raises(RecordError, match="Run `lorascope prepare-base model=letters` first"):
        stage.command([config], Layout(tmp_path))


def test_stage_refuses_people_that_contradict_the_base(tmp_path: Path) -> None:
    model = ModelConfig(name="tiny", kind=ModelKind.tiny, pretrain_seed=0)
    data = DataConfig(name="biographies", kind=DataKind.biographies, seed=1)
    with pytest.raises(ConfigError, match=r"data\.seed=1.*pretrain_seed=0.*same seed"):
        stage.command([Config(model=model, data=data)], Layout(tmp_path))


def loaded(path: Path) -> DataConfig:
    merged = OmegaConf.merge(OmegaConf.structured(DataConfig), OmegaConf.load(path))
    config = OmegaConf.to_object(merged)
    assert isinstance(config, DataConfig)
    return config


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_data_file_is_named_like_its_dataset_and_fits_the_schema(path: Path) -> None:
    config = loaded(path)
    assert config.name == path.stem
    check_settings(config)


def whole(data: DataConfig) -> Config:
    config = Config(data=data, model=ModelConfig(name="m", path="p"))
    config.train.epochs = 1
    return config


def test_unpinned_hub_data_is_refused_and_the_pinned_files_pass() -> None:
    with pytest.raises(ConfigError, match=r"data\.revision=None.*40 hex digits"):
        validate(whole(loaded(CONF / "guanaco_llama2.yaml")))
    for name in ("alpaca", "e2e_nlg", "gsm8k", "guanaco"):
        validate(whole(loaded(CONF / f"{name}.yaml")))


def test_check_says_what_prepare_data_would_of_tokenizer_and_template(
    project: Layout, compose: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    config = compose("quant=fp16")
    check.command([config], project)
    chat = replace(config, data=replace(config.data, template=TemplateKind.chat))
    for run in (lambda: check.command([chat], project), lambda: stage.command([chat], project)):
        with pytest.raises(ConfigError, match=r"data\.template='chat'.*has no chat template"):
            run()
    raw = project.root / "data/raw/toy.jsonl"
    whole = raw.read_text()
    capsys.readouterr()
    raw.write_text(whole + '{"prompt": "a \\ud800", "completion": "b"}\n')
    try:
        check.command([config], project)
    finally:
        raw.write_text(whole)
    assert "warning: toy: train: 1 of " in capsys.readouterr().err


def test_rows_are_tried_before_anything_is_downloaded(tmp_path: Path) -> None:
    config = replace(small(tmp_path), template=TemplateKind.chat)
    refusing = letter_tokenizer(chat_template="{{ raise_exception('No system role') }}")
    with pytest.raises(DataError, match=r"none of 3 train rows .*line \d: .*No system role"):
        check_rendering(config, check_source(config, tmp_path), refusing)
    check_rendering(small(tmp_path), check_source(config, tmp_path), letter_tokenizer())
