"""From a trained pack to the result of each of its trials."""

from __future__ import annotations

from dataclasses import dataclass

from lorascope.adapters.lora.stack import AdapterWeights
from lorascope.records import PhaseMemory, TrainingResult
from lorascope.training.adapter_check import CheckedAdapter
from lorascope.training.early_stopping import best_of
from lorascope.training.log import PackLog, TrainingWatch


@dataclass(frozen=True)
class TrainedPack:
    """A pack after its last step."""

    weights: list[AdapterWeights]
    optimizer_bytes: list[int]
    """Of each trial's moments, padding apart."""
    steps: int
    patience: int
    """Validations; 0 where the last step's weights are those that count."""
    log: PackLog
    watch: TrainingWatch
    data_orders: list[str]
    """Of each trial, as an expression."""


@dataclass(frozen=True)
class SharedFacts:
    """What all results of a pack say alike."""

    model_bytes: int
    compute_dtype: str
    attention: str
    arithmetic: str | None
    load_seconds: float
    pack_ranks: list[int]
    memory: dict[str, PhaseMemory]
    largest_batch: tuple[int, int] | None
    largest_evaluation_batch: tuple[int, int] | None


def result_of(
    shared: SharedFacts, trained: TrainedPack, index: int, checked: CheckedAdapter
) -> TrainingResult:
    """What is recorded of the trial at `index` of the pack."""
    log = trained.log
    effort = trained.watch.effort(index, trained.steps)
    best = best_of(log.validations[index]) if trained.patience else None
    return TrainingResult(
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
        **vars(shared),
    )
