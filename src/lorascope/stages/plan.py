"""plan: what every trial of the grid needs, before it runs, and on which GPUs it fits."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from lorascope.config import Config, DeviceKind
from lorascope.layout import RECORD, Layout
from lorascope.library_noise import quiet_libraries
from lorascope.maths.memory import GIGABYTE, GPU_SIZES_GB
from lorascope.memory_capacity import capacity_of, largest_micro_batch, largest_rank
from lorascope.memory_plan import Prediction, needed_bytes, predict_ranks
from lorascope.model_config import model_config_dict
from lorascope.plan_subject import PlanSubject, subject_of
from lorascope.records import DataCard, MemoryPlan
from lorascope.reporting import units
from lorascope.reporting.table import Column, Table
from lorascope.store import read_record

PARTS = (
    ("base_bytes", "base, constants included"),
    ("constant_bytes", "  quantization constants"),
    ("adapter_bytes", "adapter"),
    ("gradient_bytes", "gradients"),
    ("optimizer_bytes", "optimizer state"),
    ("activation_bytes", "activations saved"),
    ("logits_bytes", "logits, where they peak"),
    ("dequantization_bytes", "largest dequantized weight"),
)


@dataclass(frozen=True)
class PlanRow:
    """One trial of the grid."""

    quant: str
    rank: int
    alpha: float
    seed: int
    base_bytes: int
    states_bytes: int
    """Adapter, gradients and optimizer state."""
    activation_bytes: int
    logits_bytes: int
    load_bytes: int
    train_bytes: int
    evaluate_bytes: int
    merge_bytes: int
    fits: str
    """The smallest of GPU_SIZES_GB, or of runtime.memory_limit_gb whether it does."""


@dataclass(frozen=True)
class CapacityRow:
    """What fits in one memory size."""

    memory_gb: float
    fits: bool
    largest_micro_batch: int
    largest_rank: int


def run(configs: list[Config], layout: Layout) -> list[MemoryPlan]:
    """Print the plans of `configs`, one line a trial; of a single one the details too.

    Raises:
        ModelError: the model's memory cannot be traced.
        ConfigError: the model's configuration is nowhere to be found, or targets match no layer.
    """
    quiet_libraries()
    predictions = _predictions(configs, layout)
    plans = [prediction.plan for prediction in predictions]
    subject = _subject(configs[0], layout)
    print(_conditions(configs[0], subject))
    print(_table(configs, plans).plain(), end="")
    if len(configs) == 1:
        print()
        print(_details(plans[0]))
        print(_capacities(configs[0], subject, predictions[0]).plain(), end="")
    return plans


def _predictions(configs: list[Config], layout: Layout) -> list[Prediction]:
    """Ranks of otherwise equal trials are predicted together; alpha and seed take no memory."""
    ranks: dict[str, dict[int, Config]] = {}
    for config in configs:
        ranks.setdefault(_but_rank(config), {})[config.lora.rank] = config
    found = {
        key: predict_ranks(_subject(next(iter(group.values())), layout), list(group))
        for key, group in ranks.items()
    }
    return [found[_but_rank(config)][config.lora.rank] for config in configs]


def _but_rank(config: Config) -> str:
    values = asdict(config)
    for irrelevant in ("rank", "alpha"):
        del values["lora"][irrelevant]
    del values["seed"]
    return json.dumps(values, sort_keys=True)


def _subject(config: Config, layout: Layout) -> PlanSubject:
    model_config = model_config_dict(config.model, layout)
    return subject_of(config, model_config, _kind(config), _tokens(config, layout, model_config))


def _kind(config: Config) -> str:
    """GPUs are what people plan for, unless they say cpu."""
    return "cpu" if config.runtime.device is DeviceKind.cpu else "cuda"


def _tokens(config: Config, layout: Layout, model_config: dict[str, object]) -> int:
    """The longest sample where the data are prepared, else the most that the config lets in."""
    folder = layout.data(config.model.name, config.data.name)
    if (folder / RECORD).is_file():
        splits = read_record(folder, DataCard).splits
        lengths = [splits[name].length_percentiles_tokens for name in ("train", "validation")]
        return max(length["p100"] for length in lengths)
    context = model_config.get("max_position_embeddings") or model_config.get("n_positions")
    return min(config.data.max_tokens, context if isinstance(context, int) else 2**31)


def _conditions(config: Config, subject: PlanSubject) -> str:
    train, settings = subject.train, subject.settings
    compute = str(subject.spec.compute).removeprefix("torch.")
    return (
        f"{config.model.name} on {settings.device}, computing in {compute}; micro-batch "
        f"{train.samples} x {train.tokens} tokens, evaluation {subject.evaluation[0].samples} x "
        f"{train.tokens}, {'with' if settings.checkpointing else 'without'} gradient checkpointing"
    )


def _table(configs: list[Config], plans: list[MemoryPlan]) -> Table[PlanRow]:
    rows = [_row(config, plan) for config, plan in zip(configs, plans, strict=True)]
    sizes = ("base", "states", "activation", "logits", "load", "train", "evaluate", "merge")
    headers = dict(zip(sizes[:4], ("Base", "States", "Activations", "Logits"), strict=True))
    return Table(
        (
            Column("quant", "Mode", right=False),
            Column("rank", "Rank"),
            Column("alpha", "Alpha", units.number),
            Column("seed", "Seed"),
            *(
                Column(f"{name}_bytes", headers.get(name, f"{name.capitalize()} peak"), units.size)
                for name in sizes
            ),
            Column("fits", "Trains on", right=False),
        ),
        rows,
    )


def _row(config: Config, plan: MemoryPlan) -> PlanRow:
    return PlanRow(
        quant=config.quant.name,
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        seed=config.seed,
        base_bytes=plan.base_bytes,
        states_bytes=plan.adapter_bytes + plan.gradient_bytes + plan.optimizer_bytes,
        activation_bytes=plan.activation_bytes,
        logits_bytes=plan.logits_bytes,
        load_bytes=plan.peak_bytes["load"],
        train_bytes=plan.peak_bytes["train"],
        evaluate_bytes=plan.peak_bytes["evaluate"],
        merge_bytes=plan.peak_bytes["merge"],
        fits=_fits(needed_bytes(plan), config.runtime.memory_limit_gb),
    )


def _fits(needed: int, limit_gb: float | None) -> str:
    if limit_gb is not None:
        return f"{limit_gb:g} GB" if needed <= limit_gb * GIGABYTE else f"not {limit_gb:g} GB"
    fitting = [size for size in GPU_SIZES_GB if needed <= size * GIGABYTE]
    return f"{fitting[0]} GB" if fitting else "none listed"


def _details(plan: MemoryPlan) -> str:
    width = max(len(words) for _, words in PARTS)
    lines = [f"{words:<{width}}  {units.size(getattr(plan, key)):>8}" for key, words in PARTS]
    return "\n".join(lines) + "\n"


def _capacities(config: Config, subject: PlanSubject, prediction: Prediction) -> Table[CapacityRow]:
    """For the memory that the configuration names the answers are traced, for others on a line."""
    limit = config.runtime.memory_limit_gb
    capacity = capacity_of(subject, prediction.training)
    rows = [
        CapacityRow(
            memory_gb=size,
            fits=needed_bytes(prediction.plan) <= size * GIGABYTE,
            largest_micro_batch=largest_micro_batch(capacity, size * GIGABYTE, limit is not None),
            largest_rank=largest_rank(capacity, size * GIGABYTE, limit is not None),
        )
        for size in ([limit] if limit is not None else GPU_SIZES_GB)
    ]
    return Table(
        (
            Column("memory_gb", "Memory, GB", units.number),
            Column("fits", "Fits", units.yes_no, right=False),
            Column("largest_micro_batch", "Largest micro-batch"),
            Column("largest_rank", "Largest rank (up to 512)"),
        ),
        rows,
    )
