"""Subject of a memory plan: a trial's configuration, as a trace takes it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from lorascope.adapters.kinds import kind_of, require_roundable
from lorascope.bases.transformers_config import stored_dtype
from lorascope.config import AdapterConfig, Config, DeviceKind, QuantConfig, TrainConfig
from lorascope.config.rules import require_one_task
from lorascope.errors import ConfigError
from lorascope.machine.devices import TORCH_DTYPES
from lorascope.meters.batches import Batch
from lorascope.objectives.evaluation import samples_at_once
from lorascope.objectives.kinds import objective_of
from lorascope.planning.fake_model import FakeModelSpec
from lorascope.quantizers.kinds import QUANTIZERS, precision_on, require_readable
from lorascope.quantizers.loading import unquantized_dtype
from lorascope.records import DataCard


@dataclass(frozen=True)
class SampleLengths:
    """Lengths of the samples of several splits."""

    longest: int
    """Tokens of the longest sample."""
    equal: bool
    """Whether each split has samples of one length only, so that no batch is padded."""
    trained: int | None = None
    """Trained tokens of the sample with the most; None where that may be all of them."""


def sample_lengths(card: DataCard, names: Sequence[str] = ("train", "validation")) -> SampleLengths:
    """The lengths that a data card tells of splits."""
    splits = [card.splits[name] for name in names]
    lengths = [split.length_percentiles_tokens for split in splits]
    trained = [split.most_trained_tokens for split in splits]
    return SampleLengths(
        longest=max(length["p100"] for length in lengths),
        equal=all(length["p0"] == length["p100"] for length in lengths),
        trained=None if None in trained else max(tokens for tokens in trained if tokens),
    )


@dataclass(frozen=True)
class PlanSubject:
    """A trial or, where `spec` names several adapters, a pack, whose memory is predicted."""

    spec: FakeModelSpec
    device: str
    """cpu or cuda."""
    training: TrainConfig
    train: Batch
    evaluation: tuple[Batch, ...]
    """The first two batches of the validation loss: the first is the longest."""
    shards: int = 1
    """Devices that divide base and batches; batches here are one device's."""
    places: int = 1
    """Devices over which the base's layers are placed."""


def subject_of(
    config: Config, model_config: Mapping[str, object], kind: str, lengths: SampleLengths
) -> PlanSubject:
    """A trial as it is declared, in the worst case: every batch holds longest samples with the most
    trained tokens, and is padded where there are several samples of other lengths.

    Args:
        model_config: the values of the base's config.json.
        kind: of device, cpu or cuda.

    Raises:
        ConfigError: there is no such kind of device, or the adapter cannot begin on such a base.
    """
    require_readable(config.adapter, config.quant)
    require_roundable(config.adapter, config.train)
    require_one_task(config)
    if kind not in (DeviceKind.cpu, DeviceKind.cuda):
        raise ConfigError("kind", kind, "no such kind of device", "Choose cpu or cuda.")
    train, tokens, trained = config.train, lengths.longest, lengths.trained
    labelled = None if trained is None else min(trained, tokens - 1)
    sequences = objective_of([train]).sequences
    shards = config.runtime.shard
    at_once = samples_at_once(config.evaluate.batch_size, sequences * tokens)
    samples = sequences * math.ceil(at_once / shards)
    rows = sequences * math.ceil(train.micro_batch_size / shards)
    batch = Batch(
        samples=rows,
        tokens=tokens,
        padded=rows > 1 and not lengths.equal,
        optimizer_state=train.steps != 1,
        labelled=labelled,
    )
    padded = samples > 1 and not lengths.equal
    evaluated = Batch(samples, tokens, padded, labelled=labelled)
    return PlanSubject(
        spec=spec_of(config.quant, config.adapter, config.model.attention, model_config, kind),
        device=kind,
        training=train,
        train=batch,
        evaluation=(evaluated, evaluated),
        shards=shards,
        places=config.runtime.place,
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
    stored = unquantized_dtype(quant, stored_dtype(model_config))
    backward = QUANTIZERS[quant.storage].backward_dtype(kind, compute, stored)
    return FakeModelSpec(model_config, quant, adapter, compute, backward, attention, tuple(beside))


def memory_settings(config: Config) -> str:
    """The settings that a trial's memory follows from, as text: scale and seed take none, nor
    does what becomes of it after training."""
    values = {**asdict(config), "kind": config.adapter.kind}
    scales = [d.name for d in kind_of(config.adapter).method.dials if d.times_learning_rate]
    for name in ("learning_rate_factor", *scales):
        del values["adapter"][name]
    del values["seed"], values["serve"]
    return json.dumps(values, sort_keys=True)
