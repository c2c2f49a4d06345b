"""A model of the size that people train: the shape of SmolLM2-135M with random weights, and rows as
long as instructions, in a project of its own.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.measure import TOOLS, Command, run
from benchmarks.workload import (
    BARE_LM_EVAL,
    BARE_SCRIPT,
    PARAMS,
    REPOSITORY,
    environment,
    project_over,
)

SHAPE = REPOSITORY / "src" / "lorascope" / "bases" / "known_configs" / "smollm2-135m.json"
MODES = ("nf4", "fp16")
EVALUATION_BATCH_SIZE = 8
SHORTEST_TOKENS, LONGEST_TOKENS = 100, 500
REPLY_SHARE = 0.2
"""Of a row's tokens, which are those that are trained."""
SPECIAL = ("<unk>", "<pad>", "<eos>")
MODEL = "name: real\nkind: local\npath: models/raw/real\n"
DATA = """\
name: real
kind: local
format: prompt_completion
train: data/raw/real.jsonl
max_tokens: 512
validation_fraction: 0.1
test_fraction: 0.4
max_validation_rows: {validation_items}
max_test_rows: {items}
scoring: loss
"""
TRAIN = """\
name: real
steps: {steps}
batch_size: {batch}
micro_batch_size: {batch}
learning_rate: 2e-4
"""


@dataclass(frozen=True)
class RealSize:
    """How much is run."""

    ranks: tuple[int, ...] = (8, 16, 32, 64)
    steps: int = 20
    batch: int = 8
    """Rows a step."""
    timed_steps: int = 3
    """Where a step is timed."""
    items: int = 200
    """Of the test split."""
    validation_items: int = 64
    rounds: int = 1


REAL_QUICK = RealSize((8, 64), 1, 1, 1, 8, 8)


@dataclass(frozen=True)
class RealWorkload:
    """The project, and the commands of both sides."""

    folder: Path
    size: RealSize
    threads: int

    @cached_property
    def prepared(self) -> Path:
        """With base, data and both modes in place, by lorascope's own commands."""
        root = self.folder / "real"
        make_project(root, self.size)
        run(self.lorascope(root, "prepare-base", "model=real"))
        run(self.lorascope(root, "prepare-data", "model=real", "data=real"))
        for mode in MODES:
            run(self.lorascope(root, "quantize-base", "model=real", "data=real", f"quant={mode}"))
        return root

    def fresh_project(self, name: str) -> Path:
        """A project without trials or scores over the prepared base and data."""
        return project_over(self.prepared, self.folder / name)

    def overrides(self, mode: str, ranks: tuple[int, ...], compute: str) -> tuple[str, ...]:
        """What declares the trials."""
        return (
            "model=real", "data=real", "train=real", f"quant={mode}", f"quant.compute={compute}",
            f"lora.rank={','.join(map(str, ranks))}", "lora.alpha=16", "lora.targets=all_linear",
            "seed=0", "runtime.tracking=false",
        )  # fmt: skip

    def lorascope(self, root: Path, *words: str) -> Command:
        """A lorascope command in the project `root`."""
        return Command((str(TOOLS / "lorascope"), *words), root, environment(self.threads))

    def bare_training(
        self, mode: str, rank: int, compute: str, output: Path, threads: int
    ) -> Command:
        """The bare script on the same base, rows and settings."""
        words = (
            str(TOOLS / "python"), str(BARE_SCRIPT), "--base", str(self.stored_base(mode)),
            "--data", str(self.rows / "train.jsonl"), "--rank", str(rank), "--alpha", "16",
            "--steps", str(self.size.steps), "--batch-size", str(self.size.batch),
            "--learning-rate", "2e-4", "--seed", "0", "--compute", compute,
            "--output", str(output),
        )  # fmt: skip
        return Command(words, self.folder, environment(threads))

    def bare_evaluation(self, mode: str, adapter: Path, output: Path) -> Command:
        """One lm-eval run of one adapter on the test split."""
        words = (
            str(TOOLS / "python"), str(BARE_LM_EVAL), "--base", str(self.stored_base(mode)),
            "--adapter", str(adapter), "--data", str(self.rows / "test.jsonl"),
            "--batch-size", str(EVALUATION_BATCH_SIZE), "--output", str(output),
        )  # fmt: skip
        cache = {"HF_DATASETS_CACHE": str(self.folder / "datasets_cache")}
        return Command(words, self.folder, environment(self.threads) | cache)

    def stored_base(self, mode: str) -> Path:
        """The mode's folder of the prepared project."""
        return self.prepared / "models" / "real" / mode

    @property
    def rows(self) -> Path:
        """The prepared rows' folder."""
        return self.prepared / "data" / "real" / "real"


def make_project(root: Path, size: RealSize) -> None:
    """conf/ as it is, with this model, data and training beside."""
    shutil.copytree(REPOSITORY / "conf", root / "conf")
    texts = {
        "model": MODEL,
        "data": DATA.format(items=size.items, validation_items=size.validation_items),
        "train": TRAIN.format(steps=size.steps, batch=size.batch),
    }
    for group, text in texts.items():
        (root / "conf" / group / "real.yaml").write_text(text)
    (root / "params.yaml").write_text(PARAMS.format(name="real"))
    words = save_random_model(root / "models" / "raw" / "real")
    rows = root / "data" / "raw" / "real.jsonl"
    rows.parent.mkdir(parents=True)
    # Enough for steps without repetition, and items of both other splits.
    count = max(4 * size.items, 2 * size.steps * size.batch) + 8
    rows.write_text("".join(json.dumps(row) + "\n" for row in random_rows(words, count)))


def save_random_model(folder: Path) -> list[str]:
    """Weights as training would begin with, a token a word; returns the words."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = json.loads(SHAPE.read_text(encoding="utf-8"))
    words = [f"w{number}" for number in range(shape["vocab_size"] - len(SPECIAL))]
    save_word_tokenizer(folder, words)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**shape)).to(torch.bfloat16).save_pretrained(folder)
    return words


def save_word_tokenizer(folder: Path, words: Sequence[str]) -> int:
    """A token a word, after `SPECIAL`; returns how many tokens there are."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [*SPECIAL, *(f"▁{word}" for word in words)]
    tokenizer = Tokenizer(
        models.WordLevel({piece: index for index, piece in enumerate(pieces)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="first")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="<eos>"
    ).save_pretrained(folder)
    return len(pieces)


def random_rows(words: list[str], count: int) -> list[dict[str, str]]:
    """Prompts and replies whose lengths lie evenly between the shortest and the longest."""
    drawn = random.Random(0)
    rows = []
    for _ in range(count):
        tokens = drawn.randint(SHORTEST_TOKENS, LONGEST_TOKENS)
        reply = round(REPLY_SHARE * tokens)
        texts = (" ".join(drawn.choices(words, k=n)) for n in (tokens - reply, reply))
        rows.append(dict(zip(("prompt", "completion"), texts, strict=True)))
    return rows
