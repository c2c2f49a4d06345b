"""Memory of scoring predicted from shapes, against real scoring measured operation by operation."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from lorascope.adapters.attach import attach
from lorascope.adapters.lora.kind import LoraConfig
from lorascope.bases.folder import read_json
from lorascope.config import Config, EvaluateConfig, QuantConfig, Scoring, Storage
from lorascope.data.calibration import CalibrationRows
from lorascope.data.rows import PreparedRow
from lorascope.errors import DeviceError
from lorascope.execution import sweep
from lorascope.files.layout import Layout
from lorascope.machine.memory import MemoryLimit
from lorascope.meters.tracker import TensorTracker, persistent_tensors
from lorascope.planning.scored import (
    ScoredSubject,
    score_bytes,
    scored_subject,
    scoring_refusal,
)
from lorascope.quantizers.loading import load_base, quantize_base
from lorascope.scoring.distributions import token_distributions
from lorascope.scoring.lm_eval_model import largest_rows
from lorascope.scoring.score import score_rows
from lorascope.stages import evaluate, plan
from tests.devices import CPU
from tests.scoring.test_evaluation import EOS, build_tokenizer, make_row

SHAPE = LlamaConfig(
    vocab_size=1100,
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    bos_token_id=None,
    eos_token_id=1,
    pad_token_id=0,
)
"""Six layers, of which two and three are traced; a vocabulary whose words are grouped."""
MODES = {
    "fp16": QuantConfig("fp16", Storage.float16),
    "int8": QuantConfig("int8", Storage.int8),
    "nf4": QuantConfig("nf4", Storage.nf4),
    "w8a8_dynamic": QuantConfig("w8a8_dynamic", Storage.w8a8_dynamic),
    "w8a8_static": QuantConfig("w8a8_static", Storage.w8a8_static),
}
CALIBRATION = CalibrationRows([list(range(3, 40))], "digest")
NEW_TOKENS = 3


def rows_of(lengths: Sequence[tuple[int, int]]) -> list[PreparedRow]:
    """Rows with so many tokens of a prompt and of a completion."""
    rng = np.random.default_rng(0)
    words = ["".join(f" w{i}" for i in rng.integers(0, 60, sum(pair) - 1)) for pair in lengths]
    rows = []
    for number, (text, (prompt, _)) in enumerate(zip(words, lengths, strict=True)):
        parts = text.split(" ")[1:]
        completion = "".join(f" {word}" for word in parts[prompt:]) + EOS
        answer = " ".join(parts[prompt:])
        rows.append(make_row(str(number), " ".join(parts[:prompt]), completion, answer=answer))
    return rows


def scored(
    folder: Path, mode: str, batch_size: int, rows: Sequence[PreparedRow], scoring: Scoring
) -> tuple[PeftModel, ScoredSubject]:
    """A random base with an adapter, and whose memory is predicted."""
    AutoModelForCausalLM.from_config(SHAPE).save_pretrained(folder / "base")
    given = CALIBRATION if MODES[mode].reads_rows else None
    quantize_base(folder / "base", MODES[mode], CPU, folder / "stored", given)
    adapter = LoraConfig(rank=8)
    config = Config(
        quant=MODES[mode], adapter=adapter, evaluate=EvaluateConfig(batch_size=batch_size)
    )
    model = attach(load_base(folder / "stored", config.quant, CPU), adapter, seed=0)
    largest = largest_rows(build_tokenizer(), rows, scoring, NEW_TOKENS)
    values = read_json(folder / "stored/config.json")
    return model, scored_subject(config, values, "cpu", largest)


@pytest.mark.parametrize(
    ("mode", "batch_size", "lengths"),
    [
        ("fp16", 4, [(199, 56)] + [(200, 56)] * 5),
        ("nf4", 8, [(20, 4)] * 9),
        ("int8", 4, [(30, 10)] * 5),
        ("w8a8_dynamic", 4, [(30, 10)] * 5),
        ("w8a8_static", 4, [(30, 10)] * 5),
        # Four rows that fill a batch, and three longer ones that do not.
        ("nf4", 4, [(236, 20)] * 3 + [(235, 20)] + [(280, 9)] * 2 + [(279, 9)]),
    ],
)
def test_plan_equals_the_tracked_peak_of_log_likelihoods_and_distributions(
    tmp_path: Path, mode: str, batch_size: int, lengths: list[tuple[int, int]]
) -> None:
    rows, tokenizer = rows_of(lengths), build_tokenizer()
    model, subject = scored(tmp_path, mode, batch_size, rows, Scoring.loss)
    tracker = TensorTracker()
    tracker.add(persistent_tensors(model))
    held = tracker.live_bytes
    with tracker:
        score_rows(model, tokenizer, rows, Scoring.loss, None, batch_size, NEW_TOKENS)
        token_distributions(model, tokenizer, rows, batch_size)
    assert tracker.peak_bytes > 1.3 * held
    assert score_bytes(subject) == pytest.approx(tracker.peak_bytes, rel=0.02)


@pytest.mark.parametrize("mode", ["fp16", "nf4"])
def test_plan_is_the_upper_bound_of_a_generation(tmp_path: Path, mode: str) -> None:
    rows, tokenizer = rows_of([(250, 4)] * 8), build_tokenizer()
    model, subject = scored(tmp_path, mode, 8, rows, Scoring.answer)
    tracker = TensorTracker()
    tracker.add(persistent_tensors(model))
    with tracker:
        score_rows(model, tokenizer, rows, Scoring.answer, None, 8, NEW_TOKENS)
    assert tracker.peak_bytes <= score_bytes(subject) < 1.05 * tracker.peak_bytes


def test_without_a_trace_of_scoring_the_rest_is_planned(
    project: Layout,
    compose: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A model that keeps no keys and values, as some do not."""
    forward = LlamaForCausalLM.forward

    @wraps(forward)
    def uncached(self: Any, *given: Any, use_cache: bool | None = None, **named: Any) -> Any:
        if use_cache:
            raise NotImplementedError("no cache here")
        return forward(self, *given, use_cache=use_cache, **named)

    monkeypatch.setattr(LlamaForCausalLM, "forward", uncached)
    (planned,) = plan.command([compose("quant=nf4")], project).plans
    assert set(planned.peak_bytes) == {"load", "train", "evaluate", "merge"}
    shown = capsys.readouterr().out
    assert re.search(r"the memory of scoring small in nf4 is not predicted: .*no cache here", shown)
    assert " 8 GB" in shown


def test_a_generation_is_planned_no_longer_than_the_context(
    project: Layout, compose: Callable[..., Config]
) -> None:
    """What is longer is refused row by row, with the setting that is too large."""
    config = compose("quant=nf4", "runtime.device=cpu", "evaluate.max_new_tokens=100000")
    (planned,) = plan.command([config], project).plans
    limit = MemoryLimit(planned.peak_bytes["score"], "what is planned")
    assert scoring_refusal(config, project, "cpu", limit) is None


def test_what_does_not_fit_is_refused_with_a_batch_size_that_does(
    project: Layout, compose: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    config = compose("quant=nf4", "seed=93", "runtime.device=cpu")
    sweep.run(config, project)
    (planned,) = plan.command([config], project).plans
    assert "Score peak" in capsys.readouterr().out
    (least,) = plan.command(
        [compose("quant=nf4", "runtime.device=cpu", "evaluate.batch_size=1")], project
    ).plans
    least_bytes, most_bytes = (one.peak_bytes["score"] for one in (least, planned))
    assert least_bytes < most_bytes
    limit = f"runtime.memory_limit_gb={(least_bytes + most_bytes) / 2e9}"
    with pytest.raises(DeviceError) as refused:
        evaluate.command([compose("quant=nf4", "seed=93", limit)], project)
    told = re.fullmatch(
        r"evaluate\.batch_size=64: needs (\S+) GB to score, and there are \S+ GB "
        r"\(runtime\.memory_limit_gb=\S+\)\. Set (evaluate\.batch_size=\d+), which needs \S+ GB, "
        r"for all that is compared\.",
        str(refused.value),
    )
    assert told is not None
    # Choices and prompts of a data card are taken as long as a row's completion and all of it.
    assert float(told[1]) * 1e9 <= 1.001 * most_bytes
    assert not (project.evaluations("nf4") / "base-nf4").exists()
    (record,) = evaluate.command([compose("quant=nf4", "seed=93", limit, told[2])], project)
    assert record is not None
