"""A pack of trials: adapters trained at once on one frozen base, saved, measured and reported."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorascope.adapters.kinds import rank_of
from lorascope.adapters.layers import model_parts
from lorascope.adapters.stack import Weights
from lorascope.adapters.targets import select
from lorascope.config import Precision
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer, pad_token_id
from lorascope.machine.devices import TORCH_DTYPES, Device, autocast
from lorascope.machine.ranks import ALONE, Ranks
from lorascope.meters.batches import BatchMemory
from lorascope.meters.phases import PhaseMeter
from lorascope.objectives.kinds import Objective, Sample, objective_of
from lorascope.quantizers.footprint import measure_footprint
from lorascope.quantizers.loading import arithmetic, base_dtype, compute_precision, load_base
from lorascope.quantizers.torchao.rounding import Rounding, require_grid, round_frozen, rounding_of
from lorascope.records import TrainingResult
from lorascope.training.batches import PackData, order_expression
from lorascope.training.checkpoint import PackCheckpoints
from lorascope.training.first_samples import first_samples
from lorascope.training.log import Diverged, PackLog, TrainingWatch
from lorascope.training.loop import Meter, Observer, StepParts, train
from lorascope.training.optimizer import LossScales, adamw, moment_bytes, schedule_of
from lorascope.training.pack import PackedModel, pack_adapters, refuse_unpackable
from lorascope.training.progress import Progress, Stopped, ValidationReport, unwatched
from lorascope.training.rates import rates_of
from lorascope.training.sharding import divide_layers
from lorascope.training.trial_plan import PackPlan
from lorascope.training.validation import (
    CheckedAdapter,
    PackValidation,
    Unsaved,
    best_of,
    check_adapter,
)


@dataclass(frozen=True)
class TrainedPack:
    """A pack after its last step."""

    weights: list[Weights]
    optimizer_bytes: list[int]
    """Optimizer bytes of each trial, padding excluded."""
    steps: int
    watch: TrainingWatch
    data_orders: list[str]
    """Order of each trial's samples, as an expression (`order_expression`)."""


def train_pack(
    plan: PackPlan,
    device: Device,
    progress: Progress = unwatched,
    memory: BatchMemory | None = None,
    ranks: Ranks = ALONE,
) -> list[TrainingResult | Diverged | Unsaved]:
    """Train all trials at once; save each one's adapter and measure it on the validation split.

    What a trial computes does not depend on the others but for rounding: see `training.pack`.

    Args:
        memory: gets to know which batches needed most.
        ranks: the processes that train the pack together, all of which call this.

    Returns:
        In the order of `plan.trials`: results, and the reason for a trial whose numbers became NaN
        or infinite, or whose adapter the disk had no room for.

    Raises:
        Unpackable: there are several trials, and this base can only train one at a time.
        ConfigError: the adapter's targets match no layer.
        Stopped: `progress` asked for it, and the pack is saved in `plan.checkpoints`.
    """
    order = sorted(range(len(plan.trials)), key=lambda index: rank_of(plan.trials[index].settings))
    by_rank = replace(plan, trials=[plan.trials[index] for index in order])
    measured = memory or BatchMemory(device, divided=ranks.count > 1)
    outcomes = _train_by_rank(by_rank, device, progress, measured, ranks)
    by_place = dict(zip(order, outcomes, strict=True))
    return [by_place[place] for place in range(len(order))]


def _train_by_rank(
    plan: PackPlan, device: Device, progress: Progress, memory: BatchMemory, ranks: Ranks
) -> list[TrainingResult | Diverged | Unsaved]:
    meter, trials = PhaseMeter(device), plan.trials
    started = time.perf_counter()
    with meter.phase("load"):
        tokenizer = load_tokenizer(plan.base)
        place = None if ranks.count == 1 else "cpu"
        base = load_base(plan.base, plan.quant, device, plan.attention, place)
        refuse_unpackable(base, len(trials))
        settings, seeds = [t.settings for t in trials], [t.seed for t in trials]
        rounding = served_rounding(plan, base)
        model_bytes = measure_footprint(base).total_bytes
        divide_layers(base, device, ranks)
        data = training_data(plan, tokenizer, base, ranks)
        held_out = held_out_samples(plan, tokenizer, base)
        samples = first_samples(plan, data, device)
        pack = pack_adapters(base, settings, seeds, samples)
        if rounding is not None:
            pack.round_merged(rounding)
    load_seconds = time.perf_counter() - started
    with meter.phase("train"):
        trained = _train(plan, pack, data, held_out, device, memory, progress, rounding, ranks)
        pack.unpack()
        del pack
    with meter.phase("evaluate"):
        checked = _check_all(base, plan, trained, held_out, memory, progress, rounding, ranks)
    # What all results of the pack say alike.
    result = partial(
        TrainingResult,
        model_bytes=model_bytes,
        compute_dtype=compute_precision(plan.quant, device).value,
        attention=str(base.config._attn_implementation),
        arithmetic=arithmetic(base),
        load_seconds=load_seconds,
        pack_ranks=[rank_of(trial.settings) for trial in trials],
        memory=memory.with_peaks(meter.phases),
        largest_batch=memory.largest.shape if memory.largest else None,
        largest_evaluation_batch=memory.evaluation[0].shape if memory.evaluation else None,
    )
    return [
        own if isinstance(own, Diverged | Unsaved) else _result(result, plan, trained, index, own)
        for index, own in enumerate(checked)
    ]


def _check_all(
    base: PreTrainedModel,
    plan: PackPlan,
    trained: TrainedPack,
    held_out: Sequence[Sample],
    memory: BatchMemory,
    progress: Progress,
    rounding: Rounding | None,
    ranks: Ranks,
) -> list[CheckedAdapter | Diverged | Unsaved]:
    checked: list[CheckedAdapter | Diverged | Unsaved] = []
    for index, (trial, weights) in enumerate(zip(plan.trials, trained.weights, strict=True)):
        progress(ValidationReport(index, len(plan.trials)))
        step = trained.watch.log.diverged_at[index]
        if step is not None:
            checked.append(Diverged(f"the loss was not finite at step {step}"))
            continue
        others = [other for other in trained.weights if other is not weights]
        try:
            own = check_adapter(
                base, plan, trial, weights, others, held_out, memory, rounding, ranks
            )
            checked.append(own)
        except (Diverged, Unsaved) as error:
            checked.append(error)
    progress(ValidationReport(len(plan.trials), len(plan.trials)))
    return checked


def served_rounding(plan: PackPlan, base: PreTrainedModel) -> Rounding | None:
    """What train.qat asks for, None where it is not set; layers of the base without an adapter are
    rounded at once."""
    if plan.train.qat is None:
        return None
    rounding = rounding_of(plan.train, base_dtype(plan.full_base or plan.base))
    assert rounding is not None
    require_grid(base, plan.train)
    trained = select(model_parts(base), plan.trials[0].settings)
    round_frozen(base, [layer.name for layer in trained], rounding)
    return rounding


def training_data(
    plan: PackPlan, tokenizer: PreTrainedTokenizerBase, base: PreTrainedModel, ranks: Ranks = ALONE
) -> PackData:
    """The training split as a pack's trials read it; `base` is bare."""
    objective, rows = _objective(plan), read_rows(plan.data / "train.jsonl")
    samples = objective.samples(rows, tokenizer, plan.train_on_prompt)
    samples = objective.with_reference(samples, base, plan.evaluate_batch_size)
    padding = pad_token_id(tokenizer, base.config.get_text_config().vocab_size)
    seeds = [trial.seed for trial in plan.trials]
    return PackData(samples, seeds, plan.train, objective, padding, ranks)


def held_out_samples(
    plan: PackPlan, tokenizer: PreTrainedTokenizerBase, base: PreTrainedModel
) -> list[Sample]:
    """The validation split as all trials are validated on it; `base` is bare."""
    objective, rows = _objective(plan), read_rows(plan.data / "validation.jsonl")
    samples = objective.validation_samples(rows, tokenizer)
    return objective.with_reference(samples, base, plan.evaluate_batch_size)


def _objective(plan: PackPlan) -> Objective:
    return objective_of([trial.train for trial in plan.trials])


def _train(
    plan: PackPlan,
    pack: PackedModel,
    data: PackData,
    held_out: Sequence[Sample],
    device: Device,
    memory: BatchMemory,
    progress: Progress,
    rounding: Rounding | None,
    ranks: Ranks,
) -> TrainedPack:
    objective, seeds = _objective(plan), [trial.seed for trial in plan.trials]
    pack.shape.longest_tokens = data.longest_tokens
    parts = step_parts(plan, pack, objective, device, memory, ranks)
    schedule = schedule_of(plan.train, parts.optimizer, data.steps)
    log = PackLog(len(seeds), device.kind, plan.train.log_every_steps)
    every = plan.train.checkpoint_every_steps
    checkpoints = PackCheckpoints(plan.checkpoints, every, parts, schedule, log)
    first_step = checkpoints.resume()
    watch = TrainingWatch(log, progress, first_step)
    observers: list[Observer] = [log, watch, checkpoints]
    validation = None
    if plan.train.validate_every_steps:
        validation = PackValidation(plan, parts, held_out, watch, memory, rounding)
        observers.insert(1, validation)
    step = train(parts, data, schedule, log.has_stopped, observers, first_step)
    watch.end()
    ranks.require_equal(pack.stack.rows)
    if watch.asked_to_stop:
        raise Stopped(step, data.steps)
    if validation:
        for index in log.left:
            validation.restore_best(index)
    return TrainedPack(
        weights=[pack.stack.read(index) for index in range(len(seeds))],
        optimizer_bytes=moment_bytes(pack.stack.parameters, parts.optimizer),
        steps=step,
        watch=watch,
        data_orders=[order_expression(data.samples, seed) for seed in seeds],
    )


def step_parts(
    plan: PackPlan,
    pack: PackedModel,
    objective: Objective,
    device: Device,
    meter: Meter,
    ranks: Ranks = ALONE,
) -> StepParts:
    """Optimizer, precision and limits of a pack's steps, as planned."""
    if plan.train.patience:
        pack.keep_best()
    if plan.train.gradient_checkpointing:
        pack.base.activation_checkpointing_enable()
    precision = compute_precision(plan.quant, device)
    trains = [trial.train for trial in plan.trials]
    if any(train.layer_drop for train in trains):
        pack.drop_layers([train.layer_drop for train in trains])
    return StepParts(
        pack=pack,
        objective=objective,
        optimizer=adamw(pack.stack.rows, trains, rates_of(pack.base, pack.stack, trains)),
        max_gradient_norms=[train.max_gradient_norm for train in trains],
        autocast=partial(autocast, device.kind, TORCH_DTYPES[precision.value]),
        meter=meter,
        scales=LossScales(len(trains), device.kind) if precision is Precision.float16 else None,
        ranks=ranks,
    )


def _result(
    result: Callable[..., TrainingResult],
    plan: PackPlan,
    trained: TrainedPack,
    index: int,
    checked: CheckedAdapter,
) -> TrainingResult:
    """Record of one trial: `result` has what is the pack's."""
    log, effort = trained.watch.log, trained.watch.effort(index, trained.steps)
    best = best_of(log.validations[index]) if plan.train.patience else None
    return result(
        trainable_parameters=checked.trainable_parameters,
        total_parameters=checked.total_parameters,
        trainable_percent=100 * checked.trainable_parameters / checked.total_parameters,
        adapter_bytes=checked.adapter_bytes,
        optimizer_bytes=trained.optimizer_bytes[index],
        steps=effort.step,
        resumed_at_step=effort.first_step,
        processed_tokens=effort.tokens,
        tokens_per_second=(effort.tokens - effort.first_tokens) / effort.train_seconds,
        train_seconds=effort.train_seconds,
        evaluate_seconds=checked.seconds + effort.validation_seconds,
        train_loss_nats=log.points[index][-1].loss_nats,
        validation_loss_nats=checked.validation_loss_nats,
        losses=log.points[index],
        validations=log.validations[index],
        stopped_at_step=None if log.stopped[index] is None else effort.step,
        saved_step=best.step if best else effort.step,
        adapter_sha256=checked.adapter_sha256,
        data_order=trained.data_orders[index],
    )
