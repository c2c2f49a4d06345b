"""The words that a setting of conf/ can take, where it takes one of a few."""

from __future__ import annotations

from enum import StrEnum


class ModelKind(StrEnum):
    """Where a base model comes from."""

    tiny = "tiny"
    hub = "hub"
    local = "local"


class DataKind(StrEnum):
    """Where rows come from."""

    biographies = "biographies"
    hub = "hub"
    local = "local"


class Format(StrEnum):
    """How a source row is laid out."""

    prompt_completion = "prompt_completion"
    alpaca = "alpaca"
    chat = "chat"
    turns = "turns"
    source_target = "source_target"
    question_answer = "question_answer"
    rendered = "rendered"


class TemplateKind(StrEnum):
    """How a conversation becomes text."""

    plain = "plain"
    chat = "chat"
    llama2 = "llama2"


class Scoring(StrEnum):
    """What counts as right on an item, beside the completion loss that is always measured."""

    choices = "choices"
    answer = "answer"
    loss = "loss"


class Storage(StrEnum):
    """How the base's linear weights are stored."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    int8 = "int8"
    nf4 = "nf4"
    fp4 = "fp4"


class Precision(StrEnum):
    """A floating-point type, or the choice of the best one that the device has."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Targets(StrEnum):
    """Which linear layers get an adapter."""

    q_v = "q_v"
    attention = "attention"
    all_linear = "all_linear"
    modules = "modules"


class Cost(StrEnum):
    """What makes one configuration cheaper than another."""

    serving_bytes = "serving_bytes"
    """Stored base of the mode and adapter: what a server keeps in memory."""
    training_peak_bytes = "training_peak_bytes"
    adapter_bytes = "adapter_bytes"
    train_seconds = "train_seconds"
    money = "money"
    """train_seconds at price_per_hour."""
    energy = "energy"
    """train_seconds at power_watts."""


class DeviceKind(StrEnum):
    """Which device to use."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
