"""Steps of lorascope's own training: a pack of trials, by the loop that trains them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.gpu_check.cases import Case
from benchmarks.gpu_check.plans import adapters_of, train_config
from benchmarks.gpu_check.random_base import LoadedBase
from lorascope.adapters.layers import model_parts
from lorascope.adapters.lora.kind import LoraConfig
from lorascope.adapters.lora.stack import LoraStack
from lorascope.adapters.stack import PackShape
from lorascope.adapters.targets import select
from lorascope.meters.batches import BatchMemory
from lorascope.objectives.kinds import objective_of
from lorascope.training.batches import PackData
from lorascope.training.log import PackLog
from lorascope.training.loop import Observer
from lorascope.training.loop import train as run
from lorascope.training.optimizer import schedule_of
from lorascope.training.pack import PackedModel, stacked_pack
from lorascope.training.run import step_parts
from lorascope.training.trial_plan import PackPlan, TrialPlan


class NothingLearned(Exception):
    """The optimizer passed over every step, as it does while FP16's loss scale is sought."""


ANY_PATH = Path()
"""For what a plan names and these steps neither read nor write."""


def packed_steps(base: LoadedBase, case: Case, steps: int, clock: Observer) -> int | None:
    """Take so many steps, of which `clock` hears; on a CPU the peak of live tensors in bytes.

    Raises:
        NothingLearned: the optimizer made no step.
    """
    memory, train = BatchMemory(base.device), train_config(case, steps)
    adapters, seeds = adapters_of(case), range(case.trials)
    trials = zip(adapters, seeds, strict=True)
    plan = PackPlan(
        base=ANY_PATH, base_name="random", data=ANY_PATH, checkpoints=None, quant=base.quant,
        attention="auto", evaluate_batch_size=1,
        trials=[TrialPlan(own, train, seed, ANY_PATH) for own, seed in trials],
    )  # fmt: skip
    objective = objective_of([trial.train for trial in plan.trials])
    samples = [(ids, ids) for ids in random_samples(base, case, steps)]
    data = PackData(samples, seeds, train, objective, pad_token_id=0)
    with random_pack(base, adapters) as pack:
        parts = step_parts(plan, pack, objective, base.device, memory)
        schedule = schedule_of(train, parts.optimizer, steps)
        log = PackLog(case.trials, base.device.kind, every=steps)
        try:
            run(parts, data, schedule, log.has_stopped, [log, clock], 0)
        finally:
            pack.base.activation_checkpointing_disable()
        if not parts.optimizer.state:
            raise NothingLearned("no step had finite gradients, so that none was a whole one")
    return memory.train_peak_bytes


@contextmanager
def random_pack(base: LoadedBase, adapters: list[LoraConfig]) -> Iterator[PackedModel]:
    """The base with random adapters, without PEFT, which would make each of them layer by layer;
    the base has its own layers again at the end."""
    chosen = select(model_parts(base.model), adapters[0])
    stack = LoraStack(adapters, chosen, base.model.device)
    for row in stack.rows:
        row.data.normal_(std=0.01)
    pack = stacked_pack(base.model, stack, chosen, PackShape(list(range(len(adapters)))))
    try:
        yield pack
    finally:
        pack.unpack()


def random_samples(base: LoadedBase, case: Case, steps: int) -> list[list[int]]:
    """Token ids of all steps' samples; all of them are trained on."""
    generator = torch.Generator().manual_seed(0)
    size = (steps * case.samples, case.tokens)
    ids: list[list[int]] = torch.randint(
        base.model.config.vocab_size, size, generator=generator
    ).tolist()
    if case.padded:
        ids = [own[: case.tokens // 2] if n % 4 == 0 else own for n, own in enumerate(ids)]
    return ids
