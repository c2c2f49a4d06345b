"""Builds studies with given scores, on a small Llama's real shapes: no torch, no files.

make_study([Trial("nf4", rank=8, accuracy=0.91)], base_accuracy=0.4)
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from lorascope.adapters.lora.kind import LoraConfig
from lorascope.adapters.targets import select
from lorascope.config import QuantConfig, Storage, Targets
from lorascope.counting.architectures import table_shape
from lorascope.counting.parameters import lora_parameters, matrix_parameters
from lorascope.quantizers.bits import linear_bytes, weight_bytes
from lorascope.quantizers.kinds import QUANTIZERS
from lorascope.records import (
    BaseRecord,
    DataCard,
    DialValue,
    EvaluationRecord,
    FootprintRecord,
    ItemResult,
    LayerError,
    LinearShape,
    LossPoint,
    MergeRecord,
    PhaseMemory,
    Provenance,
    SplitCard,
    SplitScore,
    Status,
    Study,
    TrainingResult,
    TrialKey,
    TrialRecord,
)

VOCABULARY = 512
TINY = table_shape(
    {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "tie_word_embeddings": True,
    }
)
STORAGE = {
    "fp32": ("float32", False),
    "fp16": ("float16", False),
    "bf16": ("bfloat16", False),
    "int8": ("int8", False),
    "nf4": ("nf4", False),
    "nf4_dq": ("nf4", True),
}
"""Mode -> storage and double quantization."""
RELATIVE_RMSE = {"float32": 0.0, "bfloat16": 1.7e-3, "float16": 2.1e-4, "int8": 7e-3, "nf4": 9e-2}


@dataclass(frozen=True)
class Trial:
    """The facts that a test gives of one trial; the rest is made up consistently."""

    quant: str
    rank: int = 8
    alpha: float = 16.0
    seed: int = 0
    accuracy: float | None = 0.9
    """Accuracy on the test split; the validation split has it rounded to its number of items."""
    loss_nats: float = 0.3
    status: Status = Status.completed
    reason: str | None = None
    evaluated: bool = True
    targets: Targets = Targets.all_linear
    modules: tuple[str, ...] = ()
    dora: bool = False
    rslora: bool = False
    method: str = field(default="lora", repr=False)
    dials: tuple[tuple[str, DialValue], ...] | None = field(default=None, repr=False)
    """Of another method than LoRA."""
    peak_bytes: int = 240_000_000
    """Growth of the process while training."""


def make_study(
    trials: Sequence[Trial],
    base_accuracy: Mapping[str, float | None] | float | None = 0.4,
    *,
    base_loss_nats: float = 2.0,
    items: int = 1000,
    validation_items: int = 200,
    merged: Trial | None = None,
    missing: Sequence[str] = (),
    choices: int | None = None,
) -> Study:
    """A study of these trials. Modes come from the trials, in order; each has a bare base.

    Args:
        base_accuracy: of all modes, or mode by mode; None where scoring is by loss only.
        merged: the trial that was shipped, if any.
        choices: of every item, where items are choices.
    """
    quants = list(dict.fromkeys(trial.quant for trial in trials))
    if isinstance(base_accuracy, Mapping):
        bases = dict(base_accuracy)
    else:
        bases = dict.fromkeys(quants, base_accuracy)
    evaluated = [t for t in trials if t.evaluated and t.status is Status.completed]
    scoring = "choices" if choices else "answer"
    scoring = "loss" if all(score is None for score in bases.values()) else scoring
    evaluations = [
        *(
            _base_evaluation(q, bases[q], base_loss_nats, (items, validation_items), scoring)
            for q in quants
        ),
        *(_evaluation(trial, (items, validation_items), scoring) for trial in evaluated),
    ]
    return Study(
        data=data_card(scoring, 1 / choices if choices else None),
        base=base_record(),
        footprints=[footprint(quant) for quant in quants],
        trials=[trial_record(trial) for trial in trials],
        evaluations=evaluations,
        merge=merge_record(merged) if merged else None,
        missing={name: _key_of(name) for name in missing},
        items={evaluation.identity: scored_items(evaluation) for evaluation in evaluations},
    )


def scored_items(evaluation: EvaluationRecord) -> dict[str, list[ItemResult]]:
    """Items that sum up to the evaluation's scores. Some are harder than others whoever answers,
    so that two evaluations agree on most of them; five in a row belong together."""
    return {split: _items_of(evaluation, split) for split in evaluation.splits}


def _items_of(evaluation: EvaluationRecord, split: str) -> list[ItemResult]:
    score = evaluation.splits[split]
    common, own = random.Random(split), random.Random(evaluation.identity + split)
    hardness = [common.random() + 0.3 * own.random() for _ in range(score.items)]
    by_hardness = sorted(range(score.items), key=lambda index: hardness[index])
    right = set(by_hardness[: round((score.accuracy or 0) * score.items)])
    middle = sum(hardness) / score.items
    return [
        ItemResult(
            item=digest(f"{split} {index}"),
            prompt_sha256=digest(f"prompt {split} {index}"),
            target_sha256=digest(f"target {split} {index}"),
            correct=None if score.accuracy is None else index in right,
            # The deviations from the middle cancel out.
            loss_nats=2 * score.completion_loss_nats * (1 + 0.5 * (hardness[index] - middle)),
            tokens=2,
            cluster=digest(f"cluster {split} {index // 5}"),
        )
        for index in range(score.items)
    ]


def example_study() -> Study:
    """Four modes x ranks 1, 4, 16, 64, with one diverged and one missing trial, and a merge."""
    ceilings = {"fp16": 0.972, "int8": 0.969, "nf4": 0.951, "nf4_dq": 0.949}
    trials = [
        Trial(
            quant, rank, accuracy=round(top - 0.42 * math.exp(-rank / 3.2), 3),
            loss_nats=round(0.06 + 1.1 * math.exp(-rank / 3.2) + 2 * (0.98 - top), 4),
            peak_bytes=180_000_000 + 400_000 * rank + (0 if quant == "fp16" else 25_000_000),
        )
        for quant, top in ceilings.items()
        for rank in (1, 4, 16, 64)
    ]  # fmt: skip
    trials[11] = Trial("nf4", 64, status=Status.diverged, reason="loss is nan at step 120")
    bases = {"fp16": 0.031, "int8": 0.032, "nf4": 0.028, "nf4_dq": 0.029}
    return make_study(
        trials, bases, base_loss_nats=4.1, items=800, merged=trials[2],
        missing=["nf4_dq-r0128-a0016-s0-0123456789"],
    )  # fmt: skip


def provenance() -> Provenance:
    """The same for every record."""
    return Provenance(
        git_commit="4383e6971a1bd7565a945bd9aa562e472c851364",
        git_dirty=False,
        dvc_lock_sha256=digest("lock"),
        versions={"bitsandbytes": "0.50.2", "peft": "0.21.2", "torch": "2.13.0"},
        python="3.11.9",
        platform="Linux-6.8-x86_64",
        device="cpu: x86_64",
        threads=2,
        created_utc="2026-11-21T22:30:00+00:00",
    )


def digest(text: str) -> str:
    """A hash that looks like one."""
    return hashlib.sha256(text.encode()).hexdigest()


def linear_shapes() -> list[LinearShape]:
    """Linear layers of the tiny Llama."""
    return TINY.linear_shapes


def data_card(scoring: str = "answer", chance: float | None = None) -> DataCard:
    """Three small splits."""
    rows = {"train": 2400, "validation": 200, "test": 800}
    lengths = {"p0": 7, "p50": 11, "p90": 14, "p99": 16, "p100": 18}
    return DataCard(
        name="biographies",
        model="tiny",
        source="generated",
        template="plain",
        template_sha256=digest("template"),
        tokenizer_sha256=digest("tokenizer"),
        splits={
            name: SplitCard(n, digest(name), 11 * n, 2 * n, lengths, 1.0, 0.0, chance)
            for name, n in rows.items()
        },
        rows_read=3400,
        dropped_rows={"duplicate": 0},
        scoring=scoring,
        answer_pattern=None,
        max_tokens=64,
        content_sha256=digest("data"),
        warnings=[],
        provenance=provenance(),
    )


def base_record() -> BaseRecord:
    """The tiny Llama."""
    return BaseRecord(
        model="tiny",
        source="pre-trained here",
        architecture="LlamaForCausalLM",
        parameters=TINY.total_parameters,
        vocabulary=VOCABULARY,
        context_tokens=64,
        tied_head=True,
        linear_shapes=linear_shapes(),
        vectors=list(TINY.vectors),
        content_sha256=digest("base"),
        seconds=151.0,
        pretraining={"steps": 800.0, "loss_nats": 0.01, "recall": 1.0},
        provenance=provenance(),
    )


def footprint(quant: str) -> FootprintRecord:
    """The tiny Llama in one mode, to the byte."""
    storage, double = STORAGE[quant]
    shapes = linear_shapes()
    linear = matrix_parameters(shapes)
    mode = QuantConfig(quant, Storage(storage), double)
    stored = QUANTIZERS[mode.storage].bits(mode)
    weights, both = weight_bytes(linear, stored), linear_bytes(shapes, stored)
    rest = (4 if storage == "float32" else 2) * (TINY.total_parameters - linear)
    error = RELATIVE_RMSE[storage]
    return FootprintRecord(
        model="tiny",
        quant=quant,
        storage=storage,
        base_sha256=digest("base"),
        content_sha256=digest(quant),
        quantized_parameters=linear,
        quantized_weight_bytes=weights,
        quantization_constant_bytes=both - weights,
        unquantized_bytes=rest,
        total_bytes=both + rest,
        bits_per_quantized_parameter=8 * both / linear,
        layers=[LayerError(shape.name, error, 8 * both / linear) for shape in shapes],
        seconds=0.8,
        provenance=provenance(),
        double_quantization=double,
    )


def trial_name(trial: Trial) -> str:
    """A trial's folder name: readable part and a short hash."""
    if trial.dials is not None:
        short = digest(repr((trial, trial.method, trial.dials)))[:10]
        return f"{trial.quant}-{trial.method}-s{trial.seed}-{short}"
    short = digest(repr(trial))[:10]
    return f"{trial.quant}-r{trial.rank:04d}-a{trial.alpha:04.0f}-s{trial.seed}-{short}"


def dials_of(trial: Trial) -> dict[str, DialValue]:
    """What a record says of the method's settings."""
    if trial.dials is not None:
        return dict(trial.dials)
    return lora_dials(trial.rank, trial.alpha, trial.rslora, trial.dora)


def lora_dials(
    rank: int, alpha: float = 16.0, rslora: bool = False, dora: bool = False
) -> dict[str, DialValue]:
    """As a record says them."""
    return {"rank": rank, "alpha": alpha, "rslora": rslora, "dora": dora}


def trial_key(trial: Trial) -> TrialKey:
    """Settings as `study.identity` makes them."""
    targets = "+".join(sorted(trial.modules)) or trial.targets.value
    return TrialKey(
        "tiny", "biographies", trial.quant, trial.method, targets, dials_of(trial), trial.seed
    )


def trial_record(trial: Trial) -> TrialRecord:
    """The record of a trial, with a result where it completed."""
    lora = _lora(trial)
    return TrialRecord(
        trial=trial_name(trial),
        identity=digest(trial_name(trial)),
        key=trial_key(trial),
        settings={"lora": asdict(lora), "quant": {"storage": STORAGE[trial.quant][0]}},
        status=trial.status,
        reason=trial.reason,
        last_lines=[],
        result=training_result(trial) if trial.status is Status.completed else None,
        tracking="off",
        provenance=provenance(),
    )


def training_result(trial: Trial) -> TrainingResult:
    """Counts from shapes, a falling loss, times that do not vary."""
    trainable = lora_parameters(select(TINY.parts, _lora(trial)), trial.rank, trial.dora)
    peak = trial.peak_bytes
    return TrainingResult(
        trainable_parameters=trainable,
        total_parameters=TINY.total_parameters + trainable,
        trainable_percent=1.5,
        adapter_bytes=4 * trainable,
        optimizer_bytes=8 * trainable,
        model_bytes=footprint(trial.quant).total_bytes,
        compute_dtype="float32",
        attention="sdpa",
        steps=200,
        resumed_at_step=0,
        processed_tokens=105_600,
        tokens_per_second=9100.0,
        load_seconds=0.6,
        train_seconds=11.6,
        evaluate_seconds=0.4,
        train_loss_nats=trial.loss_nats,
        validation_loss_nats=trial.loss_nats + 0.01,
        losses=[
            LossPoint(step, trial.loss_nats + 3 * 0.98**step, 4e-3 * (1 - step / 200), 1.0)
            for step in range(20, 201, 20)
        ],
        memory={
            phase: PhaseMemory(growth, None, None)
            for phase, growth in (("load", peak // 3), ("train", peak), ("evaluate", peak // 2))
        },
        adapter_sha256=digest("adapter" + trial_name(trial)),
    )


def merge_record(trial: Trial) -> MergeRecord:
    """A merge that passed."""
    return MergeRecord(
        trial=trial_name(trial),
        quant=trial.quant,
        precision="float32",
        chosen_by="auto: highest validation accuracy",
        validation_score=trial.accuracy,
        items=64,
        largest_logit_difference=3.1e-5,
        prediction_agreement=1.0,
        adapter_loss_nats=trial.loss_nats,
        merged_loss_nats=trial.loss_nats,
        untied_head=False,
        total_bytes=4 * TINY.total_parameters,
        content_sha256=digest("merged"),
        passed=True,
        provenance=provenance(),
    )


def _lora(trial: Trial) -> LoraConfig:
    targets = Targets.modules if trial.modules else trial.targets
    return LoraConfig(
        targets=targets, modules=list(trial.modules), rank=trial.rank, alpha=trial.alpha,
        rslora=trial.rslora, dora=trial.dora,
    )  # fmt: skip


def _score(accuracy: float | None, loss_nats: float, items: int) -> SplitScore:
    if accuracy is None:
        return SplitScore(items, None, None, loss_nats)
    error = math.sqrt(accuracy * (1 - accuracy) / items)
    return SplitScore(items, accuracy, error, loss_nats)


def _splits(
    accuracy: float | None, loss_nats: float, items: int, validation_items: int
) -> dict[str, SplitScore]:
    validation = None
    if accuracy is not None:
        validation = round(accuracy * validation_items) / validation_items
    return {
        "validation": _score(validation, loss_nats + 0.01, validation_items),
        "test": _score(accuracy, loss_nats, items),
    }


def _evaluation(trial: Trial, items: tuple[int, int], scoring: str) -> EvaluationRecord:
    record = trial_record(trial)
    splits = _splits(trial.accuracy, trial.loss_nats, *items)
    return _evaluation_record(record.trial, record, trial.quant, scoring, splits)


def _base_evaluation(
    quant: str, accuracy: float | None, loss_nats: float, items: tuple[int, int], scoring: str
) -> EvaluationRecord:
    splits = _splits(accuracy, loss_nats, *items)
    return _evaluation_record("base", None, quant, scoring, splits)


def _evaluation_record(
    name: str,
    trial: TrialRecord | None,
    quant: str,
    scoring: str,
    splits: dict[str, SplitScore],
) -> EvaluationRecord:
    return EvaluationRecord(
        name=name,
        identity=digest(f"evaluate {quant} {name}"),
        quant=quant,
        trial_identity=trial.identity if trial else None,
        key=trial.key if trial else None,
        scoring=scoring,
        batch_size=64,
        splits=splits,
        lm_eval_metrics={},
        items_sha256={split: digest(split) for split in splits},
        seconds=2.0,
        provenance=provenance(),
    )


def _key_of(name: str) -> TrialKey:
    """The key behind a name such as nf4-r0008-a0016-s0-0123456789, for declared trials only."""
    quant, rank, alpha, seed, _ = name.split("-")
    return trial_key(Trial(quant, int(rank[1:]), float(alpha[1:]), int(seed[1:])))
