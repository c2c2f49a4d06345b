"""From a trained pack to the result of each of its trials."""

from __future__ import annotations

from dataclasses import dataclass

from lorascope.adapter_check import CheckedAdapter
from lorascope.adapter_stack import AdapterWeights
from lorascope.records import PhaseMemory, TrainingResult
from lorascope.training_steps import PackLog, TrainingWatch


@dataclass(frozen=True)
class TrainedPack:
    """A pack after its last step."""

    weights: list[AdapterWeights]
    optimizer_bytes: list[int]
    """Of each trial's moments, padding apart."""
    steps: int
    log: PackLog
    watch: TrainingWatch


@dataclass(frozen=True)
class SharedFacts:
    """What all results of a pack say alike."""

    model_bytes: int
    compute_dtype: str
    attention: str
    load_seconds: float
    pack_ranks: list[int]
    memory: dict[str, PhaseMemory]
    largest_batch: tuple[int, int] | None
    largest_evaluation_batch: tuple[int, int] | None


def result_of(
    shared: SharedFacts, trained: TrainedPack, index: int, checked: CheckedAdapter
) -> TrainingResult:
    """What is recorded of the trial at `index` of the pack."""
    log, watch = trained.log, trained.watch
    tokens = log.tokens[index]
    return TrainingResult(
        trainable_parameters=checked.trainable_parameters,
        total_parameters=checked.total_parameters,
        trainable_percent=100 * checked.trainable_parameters / checked.total_parameters,
        adapter_bytes=checked.adapter_bytes,
        optimizer_bytes=trained.optimizer_bytes[index],
        steps=trained.steps,
        resumed_at_step=watch.first_step,
        processed_tokens=tokens,
        tokens_per_second=(tokens - watch.first_tokens[index]) / watch.seconds,
        train_seconds=watch.seconds,
        evaluate_seconds=checked.seconds,
        train_loss_nats=log.points[index][-1].loss_nats,
        validation_loss_nats=checked.validation_loss_nats,
        losses=log.points[index],
        adapter_sha256=checked.adapter_sha256,
        **vars(shared),
    )
