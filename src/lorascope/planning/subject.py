"""Whose memory is predicted: a trial's configuration in the words of a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorascope.config import AdapterConfig, Config, QuantConfig, TrainConfig
from lorascope.machine.devices import TORCH_DTYPES
from lorascope.meters.batches import Batch
from lorascope.planning.fake_model import FakeModelSpec
from lorascope.planning.trace import TraceSettings
from lorascope.quantizers.kinds import precision_on
from lorascope.records import DataCard


@dataclass(frozen=True)
class SampleLengths:
    """How long the samples of training and validation are."""

    longest: int
    """Tokens."""
    equal: bool
    """Whether each split has samples of one length only, so that no batch is padded."""


def sample_lengths(card: DataCard) -> SampleLengths:
    """The lengths that a data card tells."""
    lengths = [card.splits[name].length_percentiles_tokens for name in ("train", "validation")]
    return SampleLengths(
        longest=max(length["p100"] for length in lengths),
        equal=all(length["p0"] == length["p100"] for length in lengths),
    )


@dataclass(frozen=True)
class PlanSubject:
    """Whose memory is predicted, and on which kind of device: a trial's or, where `spec` names
    several adapters, a pack's."""

    spec: FakeModelSpec
    settings: TraceSettings
    train: Batch
    evaluation: tuple[Batch, ...]
    """The first two batches of the validation loss: the first is the longest."""


def subject_of(
    config: Config, model_config: Mapping[str, object], kind: str, lengths: SampleLengths
) -> PlanSubject:
    """A trial as it is declared, in the worst case: every batch holds a longest sample, and is
    padded where there are several samples of other lengths."""
    train, samples, tokens = config.train, config.evaluate.batch_size, lengths.longest
    batch = Batch(
        samples=train.micro_batch_size,
        tokens=tokens,
        padded=train.micro_batch_size > 1 and not lengths.equal,
        optimizer_state=train.steps != 1,
    )
    evaluated = Batch(samples, tokens, padded=samples > 1 and not lengths.equal)
    return PlanSubject(
        spec=spec_of(config.quant, config.adapter, config.model.attention, model_config, kind),
        settings=settings_of(train, kind),
        train=batch,
        evaluation=(evaluated, evaluated),
    )


def spec_of(
    quant: QuantConfig,
    adapter: AdapterConfig,
    attention: str,
    model_config: Mapping[str, object],
    kind: str,
    beside: Sequence[AdapterConfig] = (),
) -> FakeModelSpec:
    """The model in training on a device of this kind, with one adapter or with several at once."""
    compute = TORCH_DTYPES[precision_on(quant, kind).value]
    return FakeModelSpec(model_config, quant, adapter, compute, attention, tuple(beside))


def settings_of(train: TrainConfig, kind: str) -> TraceSettings:
    """How it is trained, as far as memory goes."""
    return TraceSettings(
        device=kind,
        checkpointing=train.gradient_checkpointing,
        max_gradient_norm=train.max_gradient_norm,
        validates=train.validate_every_steps > 0,
        keeps_best=train.patience > 0,
    )
