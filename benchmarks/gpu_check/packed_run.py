"""Steps of lorascope's own training: a pack of trials, by the loop that trains them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.gpu_check.records import LEARNING_RATE, LORA, LoadedBase, StepRow
from benchmarks.gpu_check.step_clock import StepClock
from lorascope.adapters.layers import linear_shapes
from lorascope.adapters.lora.stack import LoraStack
from lorascope.adapters.stack import PackShape
from lorascope.adapters.targets import select
from lorascope.config import TrainConfig
from lorascope.meters.batches import Batch, BatchMemory
from lorascope.objectives.kinds import OBJECTIVES
from lorascope.planning.depth import training_trace
from lorascope.planning.plan import peak_of
from lorascope.planning.subject import PlanSubject, spec_of
from lorascope.planning.trace import TraceSettings
from lorascope.training.batches import PackData
from lorascope.training.log import PackLog
from lorascope.training.loop import train as run
from lorascope.training.optimizer import schedule_of
from lorascope.training.pack import PackedModel, stacked_pack
from lorascope.training.run import step_parts
from lorascope.training.trial_plan import PackPlan, TrialPlan


class NothingLearned(Exception):
    """The optimizer passed over every step, as it does while FP16's loss scale is sought."""


ANY_PATH = Path()
"""For what a plan names and these steps neither read nor write."""


def packed_row(base: LoadedBase, row: StepRow, clock: StepClock) -> StepRow:
    """`row` with what steps of its trials at once took and needed.

    Raises:
        OutOfTime: the deadline came before a step was measured.
        NothingLearned: the optimizer made no step.
    """
    memory = BatchMemory(base.device)
    train, seeds = train_config(clock.steps), range(row.trials)
    plan = PackPlan(
        base=ANY_PATH, base_name=base.shape, data=ANY_PATH, checkpoints=None, quant=base.quant,
        attention="auto", evaluate_batch_size=1,
        trials=[TrialPlan(LORA, train, seed, ANY_PATH) for seed in seeds],
    )  # fmt: skip
    objective = OBJECTIVES[plan.train.objective]()
    samples = [(ids, ids) for ids in random_samples(base, row.tokens_a_trial, clock.steps)]
    data = PackData(samples, seeds, train, objective, pad_token_id=0)
    with random_pack(base, row.trials) as pack:
        parts = step_parts(plan, plan.trials, pack, objective, base.device, memory)
        schedule = schedule_of(train, parts.optimizer, clock.steps)
        log = PackLog(row.trials, base.device.kind, every=clock.steps)
        run(parts, data, schedule, log.has_stopped, [log, clock], 0, clock.steps)
        if not parts.optimizer.state:
            raise NothingLearned("no step had finite gradients, so that none was a whole one")
    measured = clock.measured(row)
    return replace(measured, peak_bytes=measured.peak_bytes or memory.train_peak_bytes)


def planned_bytes(base: LoadedBase, trials: int, tokens: int) -> int:
    """What the memory plan says such a step needs.

    Raises:
        ModelError: the model cannot be traced.
    """
    kind = base.device.kind
    subject = PlanSubject(
        spec=spec_of(base.quant, LORA, "auto", base.config, kind, [LORA] * (trials - 1)),
        settings=TraceSettings(kind, train_config(steps=2)),
        train=Batch(samples=1, tokens=tokens, padded=False),
        evaluation=(),
    )
    peak_bytes: int = peak_of(training_trace(subject), subject)
    return peak_bytes


@contextmanager
def random_pack(base: LoadedBase, trials: int) -> Iterator[PackedModel]:
    """The base with random adapters, without PEFT, which would make each of them layer by layer;
    the base has its own layers again at the end."""
    chosen = select(linear_shapes(base.model), LORA)
    stack = LoraStack([LORA] * trials, chosen, base.model.device)
    for row in stack.rows:
        row.data.normal_(std=0.01)
    pack = stacked_pack(base.model, stack, chosen, PackShape(list(range(trials))))
    try:
        yield pack
    finally:
        pack.unpack()


def random_samples(base: LoadedBase, tokens: int, samples: int) -> list[list[int]]:
    """Token ids, as many in each sample; all of them are trained on."""
    generator = torch.Generator().manual_seed(0)
    size = (samples, tokens)
    ids = torch.randint(base.model.config.vocab_size, size, generator=generator)
    listed: list[list[int]] = ids.tolist()
    return listed


def train_config(steps: int) -> TrainConfig:
    """One sample a step."""
    return TrainConfig(steps=steps, batch_size=1, micro_batch_size=1, learning_rate=LEARNING_RATE)
