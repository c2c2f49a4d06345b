"""The base that trials are scored on: one at a time, in the precision of training, in batches that
fit."""

from __future__ import annotations

import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lorascope.adapters.attach import attach
from lorascope.config import Config, Precision, Scoring, TrainConfig
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer
from lorascope.errors import DeviceError
from lorascope.files.layout import Layout
from lorascope.files.store import read_record
from lorascope.objectives.completion import completion_loss
from lorascope.planning.subject import memory_settings
from lorascope.quantizers.loading import load_base
from lorascope.records import EvaluationRecord
from lorascope.scoring.distributions import token_distributions
from lorascope.scoring.evaluation import LoadedBase, with_room
from lorascope.scoring.score import score_rows
from lorascope.stages import evaluate
from tests.conftest import TRIAL, compose_one
from tests.packs import CPU

RANK = 3
"""No other size of the small model."""


def test_a_modes_base_is_gone_before_the_next_one_is_loaded(study: Layout) -> None:
    shutil.rmtree(study.evaluations("nf4"))
    evaluate.command([compose_one(study, *TRIAL)], study)
    alone: list[bool] = []
    weakref.finalize(LoadedBase.model, lambda: alone.append(LoadedBase.model is None))
    LoadedBase.load(compose_one(study, "quant=fp16"), study)
    assert alone == [True]
    LoadedBase.let_go()


MEASURE = """
import psutil, torch
from lorascope.machine.memory import keep_freed_memory
from lorascope.scoring.evaluation import give_back_memory
resident_mb = lambda: psutil.Process().memory_info().rss // 2**20
keep_freed_memory()
held = [torch.ones(2**18) for _ in range(200)]
full_mb = resident_mb()
held.clear()
kept_mb = resident_mb()
give_back_memory()
assert full_mb - kept_mb < 20 < 180 < kept_mb - resident_mb()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc keeps what is freed")
def test_memory_that_the_c_library_keeps_is_given_back() -> None:
    """In a process of its own: what earlier tests freed would hold a part of it."""
    subprocess.run([sys.executable, "-c", MEASURE], check=True)


def test_trials_that_differ_in_seed_and_scale_are_judged_once(study: Layout) -> None:
    LoadedBase.let_go()
    shutil.rmtree(study.evaluations("nf4"))
    config = compose_one(study, *TRIAL)
    evaluate.score_bases([config], study)
    before = set(LoadedBase.fitting)
    evaluate.score_trials([config], study)
    assert before == LoadedBase.fitting
    assert len(before) == 1
    like = [compose_one(study, *TRIAL, *o) for o in (["seed=5"], ["lora.alpha=64"])]
    unlike = [
        compose_one(study, *TRIAL, o)
        for o in ("lora.rank=8", "lora.targets=q_v", "evaluate.batch_size=2", "quant=fp16")
    ]
    assert {memory_settings(replace(c, train=TrainConfig())) for c in like} == before
    assert not {memory_settings(replace(c, train=TrainConfig())) for c in unlike} & before
    LoadedBase.let_go()
    assert not LoadedBase.fitting


class ProductTypes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The types of all matrix products that have a side of RANK."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            self.seen |= {factor.dtype for factor in args[-2:] if RANK in factor.shape}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("compute", [Precision.bfloat16, Precision.float32])
def test_adapters_compute_in_the_type_that_training_computes_them_in(
    project: Layout, compose: Callable[..., Config], compute: Precision
) -> None:
    config = compose("quant=nf4", f"lora.rank={RANK}")
    config.quant.compute = compute
    stored = project.quantized("small", "nf4")
    tokenizer = load_tokenizer(stored)
    rows = read_rows(project.data("small", "toy") / "test.jsonl")[:4]
    model = attach(load_base(stored, config.quant, CPU), config.adapter, seed=0)
    for evaluation in (
        lambda: completion_loss(model, tokenizer, rows, 4),
        lambda: score_rows(model, tokenizer, rows, Scoring.answer, None, 4, 2),
        lambda: token_distributions(model, tokenizer, rows, 4),
    ):
        with ProductTypes() as products:
            evaluation()
        assert products.seen == {getattr(torch, compute.value)}


class FullMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A device without room for embeddings of more than `rows` samples."""

    def __init__(self, rows: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows, self.refused = rows, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.embedding.default and len(args[1]) > self.rows:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def unscored(study: Layout) -> Iterator[Layout]:
    shutil.rmtree(study.evaluations("nf4"))
    yield study
    LoadedBase.let_go()


def test_where_memory_runs_out_half_the_batch_is_scored_and_recorded(
    unscored: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    config = compose_one(unscored, *TRIAL, "evaluate.batch_size=16")
    with FullMemory(rows=8) as memory:
        (record,) = evaluate.command([config], unscored)
    # Once for the bare base, once for the trial.
    assert memory.refused == 2
    told = "memory ran out (CUDA out of memory. Tried to allocate 2.00 GiB.): scored again with "
    assert capsys.readouterr().out.count(f"{told}batches of 8\n") == 2
    assert record is not None
    assert record.batch_size == 8
    assert record.protocol["batches"].startswith("at most 8 samples, 2,048 padded tokens")
    halved = {split: score.completion_loss_nats for split, score in record.splits.items()}
    shutil.rmtree(unscored.evaluations("nf4"))
    asked = compose_one(unscored, *TRIAL, "evaluate.batch_size=8")
    (whole,) = evaluate.command([asked], unscored)
    assert whole is not None
    assert {s: score.completion_loss_nats for s, score in whole.splits.items()} == halved
    folder = unscored.evaluations("nf4") / whole.name
    assert read_record(folder, EvaluationRecord) == whole


def test_where_half_the_batch_is_too_much_the_setting_is_named(unscored: Layout) -> None:
    config = compose_one(unscored, *TRIAL, "evaluate.batch_size=16")
    with FullMemory(rows=4), pytest.raises(DeviceError, match=r"batch_size=16: .*batch_size=4,"):
        evaluate.command([config], unscored)


def test_one_row_has_no_half() -> None:
    asked: list[int] = []

    def fails(batch_size: int) -> None:
        asked.append(batch_size)
        raise MemoryError

    with pytest.raises(DeviceError, match="Leave the longest rows out, or free memory") as caught:
        with_room(fails, 1)
    assert isinstance(caught.value.__cause__, MemoryError)
    assert asked == [1]


def test_other_failures_are_not_tried_again() -> None:
    asked: list[int] = []

    def fails(batch_size: int) -> None:
        asked.append(batch_size)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        with_room(fails, 8)
    assert asked == [8]
