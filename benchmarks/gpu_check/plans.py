"""What lorascope makes of a case: adapters, training, and the memory that is planned for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.gpu_check.cases import (
    ALPHA,
    LEARNING_RATE,
    SUBJECTS,
    TINY_CONFIGS,
    Case,
    Subject,
    tiny,
)
from lorascope.adapters.lora.kind import LoraConfig
from lorascope.bases.known_configs import known_config
from lorascope.config import QuantConfig, Storage, TrainConfig
from lorascope.meters.batches import Batch
from lorascope.planning.depth import training_trace
from lorascope.planning.plan import peak_of
from lorascope.planning.subject import PlanSubject, spec_of

MODES = {
    "fp16": QuantConfig("fp16", Storage.float16),
    "int8": QuantConfig("int8", Storage.int8),
    "nf4": QuantConfig("nf4", Storage.nf4),
}


def plans(is_tiny: bool, device_kind: str) -> dict[str, int]:
    """Planned bytes of every case that lorascope's own steps take, by name.

    Raises:
        ModelError: a model cannot be traced.
    """
    return {
        plan_name(subject, case, device_kind): planned_bytes(
            config_of(subject, is_tiny), MODES[subject.mode], case, device_kind
        )
        for subject, case in planned_cases(is_tiny)
    }


def planned_cases(is_tiny: bool) -> Iterator[tuple[Subject, Case]]:
    """Those cases, each with its base."""
    for subject in SUBJECTS:
        for case in (tiny(subject) if is_tiny else subject).cases:
            if not case.bare and not case.profiled:
                yield subject, case


def config_of(subject: Subject, is_tiny: bool) -> dict[str, object]:
    """Values of the subject's config.json."""
    return TINY_CONFIGS[subject.shape] if is_tiny else known_config(subject.shape)


def plan_name(subject: Subject, case: Case, device_kind: str) -> str:
    """What the plan of a case is called."""
    return f"{subject.name} {case.name} on {device_kind}"


def planned_bytes(
    config: Mapping[str, object], quant: QuantConfig, case: Case, device_kind: str
) -> int:
    """What the memory plan says such a step needs.

    Raises:
        ModelError: the model cannot be traced.
    """
    # The highest rank is the trial's own; the others stand beside it.
    *beside, own = adapters_of(case)
    subject = PlanSubject(
        spec=spec_of(quant, own, "auto", config, device_kind, beside),
        device=device_kind,
        training=train_config(case, steps=2),
        train=Batch(case.samples, case.tokens, padded=case.padded),
        evaluation=(),
    )
    peak_bytes: int = peak_of(training_trace(subject), subject)
    return peak_bytes


def adapters_of(case: Case) -> list[LoraConfig]:
    """The adapter of each trial, lowest rank first, as packs are sorted."""
    return [LoraConfig(rank=rank, alpha=ALPHA) for rank in case.all_ranks]


def train_config(case: Case, steps: int) -> TrainConfig:
    """One micro-batch a step."""
    return TrainConfig(
        steps=steps, batch_size=case.samples, micro_batch_size=case.samples,
        learning_rate=LEARNING_RATE, gradient_checkpointing=case.checkpointed,
    )  # fmt: skip
