"""A small project in a folder with a space in its name: own model, own data, every mode stored."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.real import save_word_tokenizer
from lorascope.cli import run_named
from lorascope.config import Config
from lorascope.files.layout import Layout
from lorascope.stages.commands import COMMANDS
from lorascope.study.grid import expand
from lorascope.study.request import grid_points

REPOSITORY = Path(__file__).parents[1]
SHARED = REPOSITORY.parent / "shared"
MODES = ("fp16", "int8", "nf4", "nf4_dq", "int4_sym")
COLORS = ("red", "green", "blue", "black", "white", "brown", "pink", "grey")
TRIAL = ("quant=nf4", "lora.rank=4", "ship=nf4-r0004")
"""The trial of the fixtures `trained` and `study`. Six steps are not shown to beat the bare base:
auto would ship nothing."""
TEST_DEVICE = os.environ.get("LORASCOPE_TEST_DEVICE")
"""Device that tests marked gpu run on, where one is asked for; see tests/devices.py."""
# As the command does, before torch is imported: kernels run as they do there, and no process that a
# test starts imports a compiler.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
BASE_OVERRIDES = (
    "model=small", "data=toy", "train=few", "runtime.tracking=false",
    *([f"runtime.device={TEST_DEVICE}"] if TEST_DEVICE else []),
)  # fmt: skip
LONGEST = (
    "pipeline", "plan", "seed_simulation", "stopping", "lone_kinds", "capacity", "simulation",
    "benchmarks", "gpu_check", "early_stopping", "prediction", "packing", "slots", "tracking",
    "html_page", "rounded_merge", "merging", "kills", "bare_base", "training", "needed",
    "disk_faults", "grid", "inits_that_read", "inits", "reproducing", "export", "sweeps", "damage",
    "files", "scored", "sweep_simulation", "merged_folder", "report_without_torch",
)  # fmt: skip
"""Files of more than 15 seconds, by their names without test_, the longest first."""

PASSED_OVER: set[str] = set()
"""Names of modules that the garbage collector passes over."""
MANY_MODULES = 50

SMALL_MODEL = "name: small\nkind: local\npath: models/raw/small\n"
TOY_DATA = """\
name: toy
kind: local
format: prompt_completion
train: data/raw/toy.jsonl
max_tokens: 32
validation_fraction: 0.2
test_fraction: 0.2
scoring: answer
"""
FEW_STEPS = """\
name: few
steps: 6
batch_size: 8
micro_batch_size: 8
learning_rate: 1e-2
log_every_steps: 2
"""
NO_EXAMPLES = "batch_size: 64\nexamples: 0\n"
"""Answers that are kept take time, and a model; tests of them ask for some."""
OWN_CONF = {
    "model/small.yaml": SMALL_MODEL,
    "data/toy.yaml": TOY_DATA,
    "train/few.yaml": FEW_STEPS,
    "evaluate/default.yaml": NO_EXAMPLES,
}
PARAMS = """\
model: small
data: toy
quant: [fp16, nf4]
lora:
  targets: all_linear
  rank: "2,4"
  alpha: "8"
train: few
seed: "0"
serve: apart
evaluate: default
merge: default
decide: default
search: grid
ship: auto
"""


def pytest_configure(config: pytest.Config) -> None:
    """Hear SIGINT, which a shell lets its background jobs ignore: tests press Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()


def pytest_collection_finish() -> None:
    """From here on the garbage collector passes over what is there: the libraries that the tests
    import. To look through all of it again and again was a sixth of the suite's time, and two
    thirds of that of libraries that collect at each step, such as auto-round."""
    gc.enable()
    pass_over()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """The same for what a test imported, and for what the tests of a file left."""
    imported = len(sys.modules) - len(PASSED_OVER)
    if imported > MANY_MODULES or (nextitem is not None and nextitem.path != item.path):
        pass_over()


def pass_over() -> None:
    """Leave all that is there and no garbage out of later collections."""
    gc.collect()
    gc.freeze()
    PASSED_OVER.update(sys.modules)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, then those with most slow tests: two processes share whole
    files, and a long one that begins last keeps the other waiting."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))

    def turn(item: pytest.Item) -> tuple[int, int]:
        name = item.path.stem.removeprefix("test_")
        longest = LONGEST.index(name) if name in LONGEST else len(LONGEST)
        return longest, -slow[item.path]

    items.sort(key=turn)


def toy_rows() -> list[dict[str, str]]:
    """96 questions with one-word answers."""
    return [
        {"prompt": f"thing {number} has the color", "completion": COLORS[number * 5 % len(COLORS)]}
        for number in range(96)
    ]


def save_small_model(folder: Path, intermediate: int = 128) -> None:
    """A random two-layer Llama with grouped-query attention and a tied head, and its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    words = ["thing", "has", "the", "color", *COLORS, *(str(number) for number in range(96))]
    vocabulary = save_word_tokenizer(folder, words)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=intermediate,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=1,
    )
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        # Large enough for logits that differ, so that a wrong weight shows.
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.12)
    model.save_pretrained(folder)


def make_project(root: Path) -> Layout:
    """conf/ as it is, with a small model, toy data and a brief training beside."""
    shutil.copytree(REPOSITORY / "conf", root / "conf")
    for name, text in OWN_CONF.items():
        (root / "conf" / name).write_text(text)
        # As old in each project: equal files are composed once.
        os.utime(root / "conf" / name, ns=(0, 0))
    (root / "params.yaml").write_text(PARAMS)
    (root / "data/raw").mkdir(parents=True)
    lines = "".join(json.dumps(row) + "\n" for row in toy_rows())
    (root / "data/raw/toy.jsonl").write_text(lines)
    return Layout(root)


@pytest.fixture
def bare_project(tmp_path: Path) -> Layout:
    """A project with nothing prepared, and no model yet."""
    root = tmp_path / "a project"
    root.mkdir()
    return make_project(root)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A project with base and data prepared and the four modes stored. Tests add trials only."""
    from lorascope.stages import prepare_base, prepare_data, quantize_base

    root = tmp_path_factory.mktemp("work") / "a project"
    root.mkdir()
    layout = make_project(root)
    save_small_model(root / "models/raw/small")
    for mode in MODES:
        config = compose_one(layout, f"quant={mode}")
        if mode == MODES[0]:
            prepare_base.command([config], layout)
            prepare_data.command([config], layout)
        quantize_base.command([config], layout)
    return layout


def run_command(layout: Layout, name: str, *arguments: str) -> int:
    """A command that looks at the grid, as the command line runs it."""
    row = COMMANDS[name]
    one_study = row.points == "study"
    points, flags, overrides = grid_points(name, arguments, row.flags, one_study, layout)
    return run_named(name, points, layout, flags, overrides)


def compose_one(layout: Layout, *overrides: str) -> Config:
    """One configuration of the small project."""
    keys = {override.partition("=")[0] for override in overrides}
    kept = [base for base in BASE_OVERRIDES if base.partition("=")[0] not in keys]
    return expand(layout, [*kept, *overrides])[0]


@pytest.fixture(scope="session")
def trained(project: Layout, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A copy of the prepared project with one trial: trained, scored, merged and reported."""
    from lorascope.execution import sweep
    from lorascope.scoring.evaluation import LoadedBase
    from lorascope.stages import evaluate, merge, report

    layout = Layout(tmp_path_factory.mktemp("trained") / "a project")
    shutil.copytree(project.root, layout.root)
    # Whatever tests that ran before left in the shared project.
    for left in (layout.root / "experiments", layout.private):
        shutil.rmtree(left, ignore_errors=True)
    config = compose_one(layout, *TRIAL)
    LoadedBase.key = None
    sweep.run(config, layout)
    evaluate.command([config], layout)
    merge.command([config], layout)
    report.command([config], layout)
    return layout


@pytest.fixture
def study(trained: Layout, tmp_path: Path) -> Layout:
    """The same project, in a copy for this test."""
    from lorascope.scoring.evaluation import LoadedBase

    shutil.copytree(trained.root, tmp_path / "a project")
    # What another test loaded has another folder.
    LoadedBase.key = None
    return Layout(tmp_path / "a project")


@pytest.fixture(scope="session")
def compose(project: Layout) -> Callable[..., Config]:
    """A function that composes one configuration of the prepared project."""
    return lambda *overrides: compose_one(project, *overrides)


@pytest.fixture(scope="session")
def recorded_template(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A project that holds records only; tests use a copy."""
    from tests.recorded_project import make_recorded

    return make_recorded(tmp_path_factory.mktemp("recorded") / "a project")


@pytest.fixture
def recorded(recorded_template: Layout, tmp_path: Path) -> Layout:
    """Four completed and scored trials that params.yaml names, in a copy for this test."""
    shutil.copytree(recorded_template.root, tmp_path / "a project")
    return Layout(tmp_path / "a project")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many threads as the claim is made for."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
