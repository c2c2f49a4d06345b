"""params.yaml and the files of conf/: what is broken in them is named by file, line and remedy."""

from __future__ import annotations

import re

import pytest
import yaml

from lorascope.config import EngineKind
from lorascope.config.bounds import is_name
from lorascope.errors import ConfigError, LorascopeError
from lorascope.files.layout import Layout
from lorascope.study.grid import expand, with_overrides
from lorascope.study.params import FILE_KEYS, PARAMETER_KEYS, declared_overrides
from lorascope.study.request import trains_here
from tests.conftest import PARAMS, REPOSITORY

TAG = "!!python/object/apply:os.mkdir ['tagged']"


@pytest.mark.parametrize(
    ("text", "part"),
    [("rankk: 3\n", "rankk"), ("lora:\n  rank: 3\n", "lora.alpha")],
)
def test_params_with_unknown_or_missing_keys_are_refused(
    bare_project: Layout, text: str, part: str
) -> None:
    if text.startswith("rankk"):
        text = bare_project.params.read_text() + text
    bare_project.params.write_text(text)
    with pytest.raises(LorascopeError, match=part):
        declared_overrides(bare_project)


@pytest.mark.parametrize(("wrong", "right"), [("sede", "seed"), ("rnak", "lora.rank")])
def test_the_key_nearest_to_a_misspelt_one_is_named(
    bare_project: Layout, wrong: str, right: str
) -> None:
    bare_project.params.write_text(PARAMS.replace(f"{right.rpartition('.')[2]}:", f"{wrong}:"))
    with pytest.raises(LorascopeError, match=rf"unknown key .*{wrong}\. Did you mean {right}\?"):
        declared_overrides(bare_project)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "holds nothing"),
        ("- model\n", "holds list"),
        ("model: [", "line 1"),
        ("lora:\n\t- b\n", "line 2"),
        (f"model: {TAG}\n", "line 1, column 8: could not determine a constructor"),
        (f"{PARAMS}model: tiny\n", 'line 16, column 1.*duplicate key "model"'),
        (f"{PARAMS}---\n{PARAMS}", "another document"),
        (PARAMS.encode("utf-16"), "not UTF-8"),
        (PARAMS.encode() + b"# \xe9\n", "not UTF-8"),
        ("x\0y", "unacceptable character"),
    ],
)
def test_params_that_are_no_yaml_mapping_are_refused_by_line(
    bare_project: Layout, content: str | bytes, told: str
) -> None:
    bare_project.params.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(LorascopeError, match=rf"params\.yaml: .*{told}"):
        declared_overrides(bare_project)
    assert not (bare_project.root / "tagged").exists()


@pytest.mark.parametrize("content", [PARAMS.replace("\n", "\r\n"), "\ufeff" + PARAMS])
def test_line_ends_and_marks_of_other_editors_change_nothing(
    bare_project: Layout, content: str
) -> None:
    before = declared_overrides(bare_project)
    bare_project.params.write_bytes(content.encode())
    assert declared_overrides(bare_project) == before


def with_value(layout: Layout, key: str, value: str) -> list[str]:
    text = re.sub(rf"(?m)^( *{key}): .*$", lambda found: f"{found[1]}: {value}", PARAMS)
    layout.params.write_text(text)
    return declared_overrides(layout)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rank", "[1, 4]"), ("rank", ""), ("rank", '"{a: 1}\'"'), ("seed", "[0, 1]"),
        ("alpha", "~"), ("quant", "fp16"), ("quant", "[]"), ("quant", "[base]"),
        ("quant", "[[fp16]]"), ("model", "[small]"), ("model", "small,tiny"), ("model", "../small"),
        ("model", '"small "'), ("targets", "q_v,all_linear"), ("train", ""), ("ship", ""),
    ],
)  # fmt: skip
def test_forms_that_dvc_cannot_put_into_a_path_or_a_command_are_refused(
    bare_project: Layout, key: str, value: str
) -> None:
    with pytest.raises(LorascopeError, match=rf"params\.yaml: (lora\.)?{key}=.* Write "):
        with_value(bare_project, key, value)


@pytest.mark.parametrize(
    ("value", "ranks"),
    [('"1, 4"', "1, 4"), ('"range(1,3)"', "range(1,3)"), ("010", "10"), ("8", "8")],
)
def test_params_are_read_as_dvc_reads_them(bare_project: Layout, value: str, ranks: str) -> None:
    assert f"lora.rank={ranks}" in with_value(bare_project, "rank", value)


def test_the_engine_may_be_left_out_and_stays_beside_a_recipe(bare_project: Layout) -> None:
    assert trains_here(["engine.cpus=2"], bare_project)
    bare_project.params.write_text(f"{PARAMS}engine: slurm\n")
    declared = declared_overrides(bare_project)
    assert declared[-1] == "engine=slurm"
    assert "engine=slurm" in with_overrides(declared, ["recipe=methods"])
    assert not trains_here([], bare_project)
    assert trains_here(["engine=local"], bare_project)
    assert expand(bare_project, declared)[0].engine.kind is EngineKind.slurm
    for value in ("[slurm]", "~", "a/b"):
        bare_project.params.write_text(f"{PARAMS}engine: {value}\n")
        with pytest.raises(LorascopeError, match=r"params\.yaml: engine=.* Write the name"):
            declared_overrides(bare_project)


def test_what_may_sweep_stands_in_quotes_in_dvc_yaml() -> None:
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    swept = set(PARAMETER_KEYS) - {*FILE_KEYS, "quant", "search", "ship"}
    assert swept == {"lora.rank", "lora.alpha", "seed", "serve"}
    for stage in ("train-lora", "evaluate"):
        # Forms concern what comes after training.
        for key in swept - ({"serve"} if stage == "train-lora" else set()):
            assert f"'{key}=${{{key}}}'" in stages[stage]["cmd"]


CONF = [
    ("model/mine", "name: other\nkind: tiny\n", "must be 'mine'.*name: mine"),
    ("model/mine", "name: ../../victim/x\nkind: tiny\n", "must be 'mine'"),
    ("model/mine", "name: [", "conf/model/mine.yaml, line 1"),
    ("model/mine", "a:\n\t- b\n", "conf/model/mine.yaml, line 2"),
    ("model/mine", "name: mine\nname: mine\n", "line 2.*duplicate key"),
    ("model/mine", f"name: {TAG}\n", "conf/model/mine.yaml, line 1.*constructor"),
    ("model/mine", "3\n", "conf/model/mine.yaml"),
    ("model/mine", "- a\n", "conf/model/mine.yaml"),
    ("model/mine", "defaults: 3\nname: mine\n", "model/mine.*defaults must be a list"),
    ("model/mine", b"name: mine\npath: \xe5\n", "conf/model/mine.yaml.*UTF-8"),
    ("model/mine", "kind: tiny\n", "model.name: Missing.*conf/model"),
    ("model/mine", "name: mine\nkindd: tiny\n", "conf/model/mine.yaml.*Did you mean model.kind"),
    ("model/mine", "name: mine\nkind: lokal\n", "conf/model/mine.yaml: model.kind.*tiny, hub"),
    ("lora/mine", "rank: abc\n", "conf/lora/mine.yaml: lora.rank.*a whole number"),
    ("quant/base", "name: base\n", "stages make a folder called base"),
    ("quant/Merged", "name: Merged\n", "stages make a folder called Merged"),
    ("data/raw", "name: raw\nkind: biographies\n", "stages make a folder called raw"),
    ("quant/8", "name: 8\n", "8 is a number to Hydra"),
    ("decide/mine", "name: default\n", "decide.name='default'.*must be 'mine'"),
    ("train/mine", "name: few\nsteps: 3\n", "train.name='few'.*must be 'mine'"),
]


@pytest.mark.parametrize(("file", "content", "told"), CONF)
def test_a_file_of_conf_that_cannot_be_used_is_named_with_what_to_do(
    bare_project: Layout, file: str, content: str | bytes, told: str
) -> None:
    path = bare_project.conf / f"{file}.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    choice = file.replace("/", "=")
    declared = with_overrides(declared_overrides(bare_project), [choice])
    with pytest.raises(LorascopeError) as caught:
        expand(bare_project, declared)
    message = str(caught.value)
    assert re.search(told, message), message
    assert "search path" not in message
    assert not (bare_project.root / "tagged").exists()


def test_two_files_of_one_name_never_share_folders(bare_project: Layout) -> None:
    rows = (bare_project.conf / "data/toy.yaml").read_text()
    (bare_project.conf / "data/b.yaml").write_text(rows)
    with pytest.raises(ConfigError, match=r"data\.name='toy': must be 'b', as conf/data/b\.yaml"):
        expand(bare_project, ["data=b", "model=small", "train=few"])


@pytest.mark.parametrize("name", ["a", "7b", "Nf4.1-x_y", "x" * 64])
def test_names(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "../x", "a/b", "a\\b", ".hidden", "-x", "_x", "a b", "é", "a\n", "x" * 65,
        "base", "merged", "raw", "BASE", "Raw",
    ],
)  # fmt: skip
def test_what_is_no_name(name: str) -> None:
    assert not is_name(name)
