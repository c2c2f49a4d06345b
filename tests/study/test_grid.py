"""params.yaml and overrides as a grid; bad values are named with their key and a remedy."""

from __future__ import annotations

import pickle
import re
import shlex
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from lorascope.adapters.kinds import KINDS, dials_of, rank_of
from lorascope.config import Config
from lorascope.config.setting_rules import RULES
from lorascope.config.task_rules import ONE_TASK
from lorascope.errors import ConfigError, LorascopeError
from lorascope.files.disk_faults import is_full_disk
from lorascope.files.layout import Layout
from lorascope.study.collect import collect
from lorascope.study.declared import declare_trial
from lorascope.study.grid import expand, recipe_axes, with_overrides
from lorascope.study.habits import HABITS
from lorascope.study.overrides import choices, groups, known_keys
from lorascope.study.params import declared_overrides
from lorascope.study.request import grid_points, run_stage
from tests.command_line import lorascope
from tests.conftest import REPOSITORY, compose_one, save_small_model

# Its revision is left to the user, who can read it off the hub.
PINNED = "data.revision=" + "0" * 40
LORASCOPE = Path(sys.executable).parent / "lorascope"


@pytest.mark.parametrize(
    ("later", "points"), [("lora.rank=8", 2), ("quant=nf4", 2), ("lora.rank=8,9", 4)]
)
def test_of_overrides_of_one_key_the_last_counts(
    bare_project: Layout, later: str, points: int
) -> None:
    declared = declared_overrides(bare_project)
    twice = expand(bare_project, [*declared, later])
    assert twice == expand(bare_project, with_overrides(declared, [later]))
    assert len({(config.quant.name, rank_of(config.adapter)) for config in twice}) == points


def test_params_become_every_point_of_the_grid(bare_project: Layout) -> None:
    configs = expand(bare_project, declared_overrides(bare_project))
    points = [
        (c.quant.name, rank_of(c.adapter), dials_of(c.adapter)["alpha"], c.seed) for c in configs
    ]
    assert points == [("fp16", 2, 8, 0), ("fp16", 4, 8, 0), ("nf4", 2, 8, 0), ("nf4", 4, 8, 0)]
    assert all(type(c) is Config for c in configs)


@pytest.mark.parametrize("alpha", ["8", "${lora.rank}"])
def test_a_point_of_a_grid_is_the_one_that_is_composed_alone(
    bare_project: Layout, alpha: str
) -> None:
    alone = [
        config
        for rank in (2, 4)
        for steps in (5, 7)
        for config in expand(
            bare_project, [f"lora.rank={rank}", f"train.steps={steps}", f"lora.alpha={alpha}"]
        )
    ]
    swept = ["lora.rank=2,4", "train.steps=5,7", f"lora.alpha={alpha}"]
    assert expand(bare_project, swept) == alone
    assert alone[0] != alone[1] != alone[2] != alone[3]


def test_a_recipe_sets_what_is_planned_in_place_of_params() -> None:
    declared = declared_overrides(Layout(REPOSITORY))
    (config,) = expand(Layout(REPOSITORY), with_overrides(declared, ["recipe=gemma2b_alpaca"]))
    assert (config.model.name, config.data.name, config.train.name) == (
        "gemma_2b", "alpaca", "one_epoch",
    )  # fmt: skip
    assert (config.quant.name, rank_of(config.adapter), dials_of(config.adapter)["alpha"]) == (
        "nf4",
        8,
        16,
    )


@pytest.mark.slow
def test_a_study_older_than_a_group_is_told_the_line_that_it_lacks(bare_project: Layout) -> None:
    path = bare_project.conf / "config.yaml"
    path.write_text(path.read_text().replace("  - engine: local\n", ""))
    with pytest.raises(LorascopeError, match=r"Add the line `- engine: local` to its defaults"):
        compose_one(bare_project, "engine=slurm")


def test_output_that_nobody_reads_on_ends_quietly(bare_project: Layout) -> None:
    # Unbuffered, so that it is written to while it runs; `true` reads nothing.
    command = f"{shlex.quote(str(LORASCOPE))} count model.known_config=llama-2-7b"
    line = f"PYTHONUNBUFFERED=1 {command} | (exec <&-; true)"
    done = subprocess.run(
        ["bash", "-c", f"{line}; echo ${{PIPESTATUS[0]}}"],
        cwd=bare_project.root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == str(128 + signal.SIGPIPE)
    assert done.stderr == ""


def test_overrides_replace_axes(bare_project: Layout) -> None:
    declared = declared_overrides(bare_project)
    configs = expand(bare_project, with_overrides(declared, ["lora.rank=range(1,4)", "quant=int8"]))
    assert [(c.quant.name, rank_of(c.adapter)) for c in configs] == [
        ("int8", 1),
        ("int8", 2),
        ("int8", 3),
    ]


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("lora.rank=0", ["lora.rank=0", "from 1 to 512"]),
        ("lora.rank=-1", ["lora.rank=-1"]),
        ("lora.rank=513", ["lora.rank=513"]),
        ("lora.rank=1.5", ["lora.rank", "1.5", "integer"]),
        ("lora.rank=abc", ["lora.rank", "abc", "integer"]),
        ("lora.alpha=0", ["lora.alpha=0"]),
        ("lora.alpha=nan", ["lora.alpha"]),
        ("train.learning_rate=0", ["train.learning_rate=0"]),
        ("train.learning_rate=-1e-4", ["train.learning_rate=-0.0001"]),
        ("lora.rnak=8", ["rnak", "lora"]),
        ("loar.rank=8", ["loar.rank", "Did you mean lora.rank?"]),
        ("+lora.rnak=8", ["lora.rnak", "none can be added", "Did you mean lora.rank?"]),
        ("lora_r=8", ["Did you mean lora.rank?"]),
        ("train.lr=1e-4", ["Did you mean train.learning_rate?"]),
        ("load_in_4bit=true", ["Did you mean quant=nf4?"]),
        ("++lora.rank=8", ["every key is there already", "lora.rank=value"]),
        ("~seed", ["every key is there already"]),
        ("+foo.bar=1", ["no key 'foo.bar'"]),
        ("=8", ["no key ''"]),
        ("quant=nf5", ["conf/quant/nf5.yaml", "Did you mean", "nf4_dq"]),
        ("quant=NF4", ["Did you mean nf4?"]),
        ("quant=", ["conf/quant", "nf4_dq"]),
        ("quant=null", ["conf/quant"]),
        ("quant=[fp16,nf4]", ["without brackets"]),
        ("quant=../quant/nf4", ["'../quant/nf4'", "conf/quant"]),
        ("quant=..\\quant\\nf4", ["conf/quant"]),
        ("quant=/etc/passwd", ["'/etc/passwd'"]),
        ("quant=nf4.yaml", ["conf/quant/nf4.yaml.yaml", "Did you mean nf4"]),
        ("quant=base", ["stages make a folder called base"]),
        ("quant=glob(zz*)", ["no file of conf/quant", "nf4"]),
        ("quant@data=nf4", ["Write quant=value"]),
        ("lora=8", ["8 is a number to Hydra"]),
        ("merge=true", ["true is no name of a file"]),
        ("recipe=nope", ["conf/recipe/nope.yaml", "gemma2b_alpaca"]),
        ("model.name=x", ["the name is that of the file"]),
        ("lora.rank=glob(*)", ["lora.rank is a value"]),
        ("lora.rank=interval(1,2)", ["range"]),
        ("lora.rank=shuffle(range(1,100000000))", ["more than 100,000 trials"]),
        ("lora.rank=null", ["lora.rank: is empty", "a whole number"]),
        ("train.steps=1e6", ["a whole number, or null"]),
        ("ship=é", ['ship="é"', "quotes"]),
        ("seed=-1", ["seed=-1", "from 0 to 4294967295"]),
        ("seed=100000000000000000000", ["seed=100000000000000000000", "4294967295"]),
        ("data.seed=-1", ["data.seed=-1"]),
        ("model.pretrain_seed=4294967296", ["model.pretrain_seed=4294967296"]),
        ("train.weight_decay=nan", ["train.weight_decay=nan"]),
        ("runtime.threads=-1", ["runtime.threads=-1"]),
        ("runtime.trial_timeout_seconds=0", ["runtime.trial_timeout_seconds=0"]),
        ("engine=slrm", ["engine=slrm", "did you mean slurm"]),
        ("engine=local,slurm", ["engine=local,slurm", "one engine", "Name one value"]),
        ("engine.cpus=1,2", ["engine.cpus=1,2", "one set of settings"]),
        ("engine.minutes=2", ["engine.minutes=2", "90 seconds", "4 or more"]),
        ("engine.options=['mem=3']", ["engine.options=['mem=3']", "engine.memory_gb"]),
        ("merge.max_loss_gap_nats=nan", ["merge.max_loss_gap_nats=nan"]),
        ("decide.price_per_hour=-1", ["decide.price_per_hour=-1"]),
        ("quant.int8_outlier_threshold=-1", ["quant.int8_outlier_threshold=-1"]),
        ("lora.modules=[q_proj]", ["lora.modules", "targets=modules"]),
        ("train.epochs=1", ["train.steps=6", "train.epochs"]),
        ("train.micro_batch_size=7", ["train.micro_batch_size=7", "divide batch_size"]),
        ("model.kind=nowhere", ["nowhere", "model.kind"]),
        ("lora.rank=1,0", ["lora.rank=0"]),
        ("lora.rank=[", ["lora.rank=[", "override"]),
        ("train.schedule=lineal", ["train.schedule='lineal'", "linear"]),
    ],
)
def test_a_bad_value_is_named_with_its_key_before_anything_starts(
    bare_project: Layout, override: str, parts: list[str]
) -> None:
    declared = declared_overrides(bare_project)
    with pytest.raises(LorascopeError) as caught:
        expand(bare_project, with_overrides(declared, [override]))
    message = str(caught.value).lower()
    for part in parts:
        assert part.lower() in message, message
    # Hydra's advice, which would lead nowhere.
    assert "to append" not in message
    assert "search path" not in message


@pytest.mark.parametrize(
    ("override", "ranks"),
    [
        ("lora.rank=1, 4", [1, 4]),
        ("lora.rank=range(1,3)", [1, 2]),
        ("lora.rank=choice(4,1)", [4, 1]),
        ("lora.rank=sort(4,1)", [1, 4]),
        ("lora.rank='8'", [8]),
    ],
)
def test_sweeps_are_read_as_hydra_reads_them(
    bare_project: Layout, override: str, ranks: list[int]
) -> None:
    declared = declared_overrides(bare_project)
    configs = expand(bare_project, with_overrides(declared, ["quant=fp16", override]))
    assert [rank_of(c.adapter) for c in configs] == ranks


def test_a_glob_chooses_among_the_files_of_a_group(bare_project: Layout) -> None:
    declared = declared_overrides(bare_project)
    configs = expand(bare_project, with_overrides(declared, ["quant=glob(nf*)", "lora.rank=2"]))
    assert [c.quant.name for c in configs] == ["nf4", "nf4_dq"]


def test_a_bad_value_ends_the_command_with_one_line_and_no_traceback(bare_project: Layout) -> None:
    done = lorascope(bare_project, "train-lora", "-m", "quant=nf4", "lora.rank=8,0")
    assert done.returncode == 2
    assert done.stderr.startswith("lorascope: error: lora.rank=0")
    assert "Traceback" not in done.stderr
    assert not (bare_project.root / "experiments").exists()


def test_commands_outside_a_project_say_so(tmp_path: Path) -> None:
    done = lorascope(Layout(tmp_path), "check")
    assert done.returncode == 2
    assert "not inside a lorascope project" in done.stderr


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(28, "No space left on device"), True),
        (RuntimeError("Error while serializing: I/O error: (os error 28)"), True),
        (OSError(13, "Permission denied"), False),
        (ValueError("os error"), False),
    ],
)
def test_a_full_disk_is_recognised_however_it_is_said(error: Exception, full: bool) -> None:
    assert is_full_disk(error) is full


def test_an_unknown_command_is_refused(bare_project: Layout) -> None:
    done = lorascope(bare_project, "trian")
    assert done.returncode == 2
    assert "trian" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train-lora", "--config-dir", "elsewhere"], "conf/ alone"),
        (["train-lora", "--config-name=other"], "conf/ alone"),
        (["train-lora", "--multi", "lora.rank=1,2"], "unknown flag --multi"),
        (["train-lora", "lora.rank=1,2"], "Add -m to sweep"),
        (["quantize-base", "quant=fp16,nf4"], "Run it once for each"),
        (["quantize-base", "-m", "quant=fp16,nf4"], "leave out -m"),
        (["train-lora", "--cfg", "job", "quant=nf5"], "conf/quant/nf5.yaml"),
        (["report", "decide.margin_accuracy=0.01,0.05"], "one decide.margin_accuracy at a time"),
        (["check", "model=small,tiny"], "one model at a time"),
        (["publish", "quant=nf4"], "publish='quant=nf4': it takes no settings"),
        (["status", "+lora.rnak=8"], "Did you mean lora.rank?"),
        (["check", "--jsn"], "Did you mean --json?"),
        (["export", "to=../x", "tril=a"], "Did you mean trial?"),
    ],
)
def test_what_a_command_would_ignore_or_misread_is_refused_in_a_sentence(
    bare_project: Layout, arguments: list[str], told: str
) -> None:
    done = lorascope(bare_project, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("lorascope: error: ")
    assert told in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["train-lora", "--help"], ["report", "--help"]])
def test_help_loads_no_heavy_library(bare_project: Layout, arguments: list[str]) -> None:
    program = (
        "import sys; sys.argv = ['lorascope', *sys.argv[1:]]\n"
        "from lorascope.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'mlflow', 'peft', 'datasets'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=bare_project.root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "lorascope" in done.stdout


def test_every_file_of_conf_composes(bare_project: Layout) -> None:
    for group in ("quant", "lora", "train", "evaluate", "merge", "model", "data"):
        for path in sorted((bare_project.conf / group).glob("*.yaml")):
            extra = ["lora.modules=[q_proj]"] if path.stem == "modules" else []
            if path.stem == "guanaco_llama2":
                extra = [PINNED]
            if path.stem == "dpo":
                extra = ["data=politeness"]
            config = expand(bare_project, [f"{group}={path.stem}", *extra])[0]
            if group not in ("lora", "evaluate", "merge"):
                assert getattr(config, group).name == path.stem


def test_every_recipe_composes(bare_project: Layout) -> None:
    recipes = sorted((bare_project.conf / "recipe").glob("*.yaml"))
    assert recipes
    for path in recipes:
        pinned = [PINNED] if path.stem == "llama2_guanaco" else []
        expand(bare_project, [f"recipe={path.stem}", *pinned])


def test_check_refuses_what_it_can_know(bare_project: Layout) -> None:
    cases = {
        "a missing model": ([], "no such folder"),
        "targets that match nothing": (
            ["lora=modules", "lora.modules=[c_attn]"], "q_proj",
        ),
        "ship names no trial": (["ship=nf4-r0099-a0008-s0-123"], "ship='nf4-r0099"),
    }  # fmt: skip
    for name, (overrides, part) in cases.items():
        if name != "a missing model" and not (bare_project.root / "models").exists():
            save_small_model(bare_project.root / "models/raw/small")
        done = lorascope(bare_project, "check", *overrides)
        assert done.returncode == 2, (name, done.stderr)
        assert part in done.stderr, name
        assert not (bare_project.root / "experiments/check.json").exists()
    assert lorascope(bare_project, "check").returncode == 0
    assert (bare_project.root / "experiments/check.json").is_file()


def test_repository_params_are_short_and_valid() -> None:
    layout = Layout(REPOSITORY)
    assert len(layout.params.read_text().splitlines()) <= 30
    assert expand(layout, declared_overrides(layout))


def test_train_lora_takes_what_it_is_not_told_from_params_as_status_does(
    project: Layout,
) -> None:
    """`train-lora -m lora.rank=1,2` trains the trials that `status lora.rank=1,2` counts."""
    asked: list[list[Config]] = []
    run_stage("train-lora", ["-m", "lora.rank=1,2"], True, project, asked.append)
    declared, _, _ = grid_points("status", ["lora.rank=1,2"], {}, False, project)
    names = [[declare_trial(c, project).name for c in configs] for configs in (*asked, declared)]
    assert names[0] == names[1]
    assert {dials_of(config.adapter)["alpha"] for config in asked[0]} == {8}
    assert {config.quant.name for config in asked[0]} == {"fp16", "nf4"}


def test_a_single_trial_names_what_params_leaves_open(project: Layout) -> None:
    asked: list[list[Config]] = []
    run_stage("train-lora", ["lora.rank=1", "quant=nf4"], True, project, asked.append)
    ((config,),) = asked
    assert (config.model.name, *list(dials_of(config.adapter).values())[:2]) == ("small", 1, 8)
    with pytest.raises(LorascopeError, match=r"lora\.rank=2,4 in params\.yaml.*or add -m"):
        run_stage("train-lora", ["quant=nf4"], True, project, asked.append)


def test_another_launcher_of_hydra_runs_each_point_as_a_job(
    project: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [])
    asked: list[list[Config]] = []
    sweep = ["-m", "quant=nf4", "lora.rank=1,2"]
    run_stage("train-lora", sweep, True, project, asked.append)
    (points,) = asked
    run_stage("train-lora", [*sweep, "hydra/launcher=basic"], True, project, asked.append)
    assert asked[1:] == [[config] for config in points]
    assert len(points) == 2
    run_stage("train-lora", [*sweep, "hydra/launcher=packed"], True, project, asked.append)
    assert asked.pop() == points
    # What is shown is what would run.
    run_stage("train-lora", ["--cfg", "job", "lora.rank=1"], True, project, asked.append)
    assert "alpha: 8" in capsys.readouterr().out
    assert len(asked) == 3


def test_a_trial_that_two_points_name_is_one_seed(recorded: Layout) -> None:
    """`lora.rank=2,2` made two seeds of one training."""
    twice = collect(
        expand(recorded, ["quant=fp16,nf4", "lora.rank=2,2", "lora.alpha=16"]), recorded
    )
    once = collect(expand(recorded, ["quant=fp16,nf4", "lora.rank=2", "lora.alpha=16"]), recorded)
    assert [trial.trial for trial in twice.trials] == [trial.trial for trial in once.trials]
    assert len(twice.evaluations) == len(once.evaluations)


def test_an_error_of_a_setting_travels_between_processes() -> None:
    """A launcher's jobs pickle what ends them."""
    error = ConfigError("lora.rank", 0, "must be 1 or more", "Use 8.")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.key, again.value) == (str(error), "lora.rank", 0)


def test_a_recipe_may_name_what_is_swept_over() -> None:
    layout = Layout(REPOSITORY)
    declared = declared_overrides(layout)

    def points(*words: str) -> list[Config]:
        return expand(layout, with_overrides(declared, [*recipe_axes(words, layout), *words]))

    whole = points("recipe=methods")
    kinds = Counter(point.adapter.kind for point in whole)
    assert kinds == {
        "lora": 12, "ia3": 2, "vera": 6, "oft": 6, "miss": 6, "bottleneck": 10, "ln": 2,
    }  # fmt: skip
    assert {point.quant.name for point in whole} == {"fp16"}
    # A line of the command line replaces the recipe's.
    few = points("recipe=methods", "adapter=vera,ln", "vera.rank=8", "seed=5")
    assert [(point.adapter.kind, point.seed) for point in few] == [("vera", 5), ("ln", 5)]
    assert recipe_axes(["recipe=gemma2b_alpaca"], layout) == []


def test_a_recipe_may_be_several_grids() -> None:
    layout = Layout(REPOSITORY)
    words = ["recipe=ptq_against_qat"]
    declared = declared_overrides(layout)
    points = expand(layout, with_overrides(declared, [*recipe_axes(words, layout), *words]))
    # Six seeds of five served forms, three stored bases, three trained through the merge, NF4.
    assert len(points) == 6 * (5 + 3 + 3 + 1)
    through = [point for point in points if point.train.qat is not None]
    assert all(
        point.serve is not None and point.serve.storage is point.train.qat for point in through
    )
    # What the command line says counts in each part, and points that meet are one.
    one = expand(
        layout, with_overrides([], [*words, "lora.rank=4", "seed=1", "quant=fp16", "serve=apart"])
    )
    assert len(one) == 4
    # A stage of one configuration reads of the recipe what it reads of any study.
    asked: list[list[Config]] = []
    run_stage("prepare-data", words, False, layout, asked.append)
    assert {point.data.name for point in asked[0]} == {"biographies"}
    run_stage("quantize-base", [*words, "quant=nf4"], False, layout, asked.append)
    assert {point.quant.name for point in asked[1]} == {"nf4"}
    with pytest.raises(LorascopeError, match=r"several of quant \(fp16, int8_sym.*quant=fp16"):
        run_stage("quantize-base", words, False, layout, asked.append)
    with pytest.raises(LorascopeError, match="parts of a study stand in the file of a recipe"):
        expand(layout, ["parts=[]"])


def test_help_of_a_command_is_its_own(tmp_path: Path) -> None:
    for name, flag in (("init", "--no-scm"), ("plan", "--json"), ("count", "--ranks 1,8,64")):
        told = lorascope(Layout(tmp_path), name, "--help")
        assert told.returncode == 0
        assert told.stdout.startswith(f"usage: lorascope {name} ")
        assert flag in told.stdout
        assert "train-lora" not in told.stdout


def test_a_fault_of_ours_has_an_exit_code_of_its_own(
    bare_project: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 means what a command looked for."""
    monkeypatch.setattr("lorascope.study.status.locked_folders", lambda layout: 1 / 0)
    told = lorascope(bare_project, "status")
    assert told.returncode == 3
    assert "ZeroDivisionError" in told.stderr


def test_what_other_programs_call_otherwise_is_a_key_or_a_choice_here() -> None:
    layout = Layout(REPOSITORY)
    known = {*known_keys(), *groups(layout)}
    for name, here in HABITS.items():
        key, equals, choice = here.partition("=")
        assert key in known, name
        assert not equals or choice in choices(key, layout), name
        # What is a key here already is not read as another's.
        assert name not in known - {here}, name


def test_no_remedy_names_a_method_where_the_present_one_is_put() -> None:
    """`adapter=` in a remedy becomes the section of the method that is there: ia3=lora is no
    override."""
    for rule in (*RULES, *ONE_TASK):
        assert not KINDS.keys() & set(re.findall(r"\badapter=(\w+)", rule.remedy)), rule.remedy
