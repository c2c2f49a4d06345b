"""What is measured on: a small project made from conf/, and the commands of both sides."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.measure import TOOLS, Command, run

REPOSITORY = Path(__file__).parents[1]
BARE_SCRIPT = REPOSITORY / "benchmarks" / "bare_script.py"
BARE_LM_EVAL = REPOSITORY / "benchmarks" / "bare_lm_eval.py"

MODE = "nf4"
ALPHA, BATCH_SIZE, LEARNING_RATE, EVALUATION_BATCH_SIZE = 16, 8, 2e-3, 64
RANKS = (1, 2, 4, 8, 16, 32, 64, 128)
SHARED_FOLDERS = ("conf", "params.yaml", "models", "data")

MODEL = "name: bench\nkind: tiny\npretrain_steps: 20\n"
DATA = """\
name: bench
kind: local
format: prompt_completion
train: data/raw/bench.jsonl
max_tokens: 64
validation_fraction: 0.2
test_fraction: 0.2
max_validation_rows: 200
max_test_rows: 200
scoring: loss
"""
TRAIN = f"""\
name: bench
steps: 100
batch_size: {BATCH_SIZE}
micro_batch_size: {BATCH_SIZE}
learning_rate: {LEARNING_RATE}
"""
PARAMS = f"""\
model: {{name}}
data: {{name}}
quant: [{MODE}]
lora:
  targets: all_linear
  rank: "4"
  alpha: "{ALPHA}"
train: {{name}}
seed: "0"
evaluate: default
merge: default
decide: default
serve: apart
search: grid
ship: auto
"""


@dataclass(frozen=True)
class Size:
    """How much is run: the numbers of a full or a quick benchmark."""

    steps: int = 100
    long_steps: int = 200
    """Where the time of a step is compared."""
    ranks: tuple[int, ...] = RANKS
    stored_trials: int = 32
    """Trials that are there before one more is added."""
    stored_steps: int = 10
    """Of trials that are only to be there."""
    rounds: int = 2
    short_rounds: int = 3
    """For what takes less than half a minute."""
    startup_rounds: int = 5
    many_seeds: int = 25
    """Of each of eight ranks, in the sweep of many trials."""


QUICK = Size(4, 8, (1, 8), 3, 2, 1, 1, 2, 2)


@dataclass(frozen=True)
class Workload:
    """One benchmark's scratch folder, and all that its rows have in common."""

    folder: Path
    size: Size
    threads: int
    """Of lorascope's processes."""
    bare_threads: int
    """Of the baseline's processes. One is its best on the small model: two took 7 % longer."""

    @cached_property
    def prepared(self) -> Path:
        """A project with base, data and the mode in place, by lorascope's own commands."""
        root = self.folder / "prepared"
        make_project(root)
        for stage in ("prepare-base", "prepare-data", "quantize-base"):
            run(self.lorascope(root, stage, "model=bench", "data=bench", f"quant={MODE}"))
        return root

    def fresh_project(self, name: str) -> Path:
        """A project without trials or scores over the prepared base and data."""
        return project_over(self.prepared, self.folder / name)

    @cached_property
    def trained(self) -> Path:
        """A project with one briefly trained trial of each rank."""
        root = self.fresh_project("trained")
        run(self.train(root, self.size.ranks, self.size.stored_steps))
        return root

    def train(
        self,
        root: Path,
        ranks: tuple[int, ...],
        steps: int | None = None,
        seed: int = 0,
        tracking: bool = False,
        batch: int = BATCH_SIZE,
    ) -> Command:
        """`lorascope train-lora -m` over `ranks`."""
        own = (f"train.batch_size={batch}", f"train.micro_batch_size={batch}")
        on = f"runtime.tracking={str(tracking).lower()}"
        overrides = self.trial_overrides(ranks, steps, seed)
        return self.lorascope(root, "train-lora", "-m", *overrides, *own, on)

    def trial_overrides(
        self, ranks: tuple[int, ...], steps: int | None = None, seed: int = 0
    ) -> tuple[str, ...]:
        """What train-lora and evaluate must agree on to mean the same trials."""
        return (
            "model=bench", "data=bench", "train=bench", f"quant={MODE}", f"lora.alpha={ALPHA}",
            f"lora.rank={','.join(str(rank) for rank in ranks)}", f"seed={seed}",
            f"train.steps={steps or self.size.steps}",
        )  # fmt: skip

    def lorascope(self, root: Path, *words: str, exit_code: int = 0) -> Command:
        """A lorascope command in the project `root`."""
        tool = str(TOOLS / "lorascope")
        return Command((tool, *words), root, environment(self.threads), exit_code)

    def bare_training(
        self, output: Path, rank: int, seed: int = 0, batch: int = BATCH_SIZE
    ) -> Command:
        """B0: the bare script on the same base, rows and settings."""
        words = (
            str(TOOLS / "python"), str(BARE_SCRIPT), "--base", str(self.stored_base),
            "--data", str(self.rows / "train.jsonl"), "--rank", str(rank), "--alpha", str(ALPHA),
            "--steps", str(self.size.steps), "--batch-size", str(batch),
            "--learning-rate", str(LEARNING_RATE), "--seed", str(seed), "--output", str(output),
        )  # fmt: skip
        return Command(words, self.folder, environment(self.bare_threads))

    def bare_evaluation(self, adapter: Path, output: Path) -> Command:
        """One lm-eval run of one adapter on the test split."""
        words = (
            str(TOOLS / "python"), str(BARE_LM_EVAL), "--base", str(self.stored_base),
            "--adapter", str(adapter), "--data", str(self.rows / "test.jsonl"),
            "--batch-size", str(EVALUATION_BATCH_SIZE), "--output", str(output),
        )  # fmt: skip
        # Kept between the runs, as it is for a user.
        cache = {"HF_DATASETS_CACHE": str(self.folder / "datasets_cache")}
        return Command(words, self.folder, environment(self.bare_threads) | cache)

    @property
    def stored_base(self) -> Path:
        """The mode's folder of the prepared project."""
        return self.prepared / "models" / "bench" / MODE

    @property
    def rows(self) -> Path:
        """The prepared rows' folder."""
        return self.prepared / "data" / "bench" / "bench"


def project_over(prepared: Path, root: Path) -> Path:
    """`root`, a project without trials or scores over the base and data of another."""
    root.mkdir()
    for shared in SHARED_FOLDERS:
        (root / shared).symlink_to(prepared / shared)
    return root


def environment(threads: int) -> dict[str, str]:
    """Threads said outright, and nothing that reaches for a network."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DVC_NO_ANALYTICS": "true",
    }


def make_project(root: Path) -> None:
    """conf/ as it is, with the benchmark's model, data and training beside."""
    shutil.copytree(REPOSITORY / "conf", root / "conf")
    for group, text in (("model", MODEL), ("data", DATA), ("train", TRAIN)):
        (root / "conf" / group / "bench.yaml").write_text(text)
    (root / "params.yaml").write_text(PARAMS.format(name="bench"))
    (root / "models" / "raw").mkdir(parents=True)
    (root / "data" / "raw").mkdir(parents=True)
    lines = [json.dumps(row) + "\n" for row in told_lives()]
    (root / "data" / "raw" / "bench.jsonl").write_text("".join(lines))


def told_lives() -> list[dict[str, str]]:
    """Rows of about 32 tokens: four facts about an invented person, and the fifth to complete."""
    from lorascope.data.biographies import ATTRIBUTES, make_biographies

    told = make_biographies(40, 200, 80, 0).train
    per_person = sum(len(attribute.statements) for attribute in ATTRIBUTES)
    wordings = per_person // len(ATTRIBUTES)
    rows = []
    for start in range(0, len(told), per_person):
        for wording in range(wordings):
            facts = told[start + wording : start + per_person : wordings]
            for last in range(len(facts)):
                others = [fact for index, fact in enumerate(facts) if index != last]
                before = " ".join(f"{fact.prompt}{fact.completion}" for fact in others)
                prompt = f"{before} {facts[last].prompt}"
                rows.append({"prompt": prompt, "completion": facts[last].completion.strip()})
    return rows
