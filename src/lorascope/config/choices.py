"""Settings of conf/ that take one of a few words."""

from __future__ import annotations

from enum import StrEnum


class ModelKind(StrEnum):
    """The source of a base model."""

    tiny = "tiny"
    hub = "hub"
    local = "local"
    trial = "trial"
    """A trained trial, merged: what a second study starts from."""


class DataKind(StrEnum):
    """The source of rows."""

    biographies = "biographies"
    known_people = "known_people"
    """The people whom the embedded base knows: its own domain."""
    hub = "hub"
    local = "local"


class Format(StrEnum):
    """The layout of a source row."""

    prompt_completion = "prompt_completion"
    alpaca = "alpaca"
    chat = "chat"
    turns = "turns"
    source_target = "source_target"
    question_answer = "question_answer"
    rendered = "rendered"
    labelled = "labelled"
    """One or two texts and their class."""
    text = "text"
    """Whole texts, without a prompt."""
    pairs = "pairs"
    """A prompt with a chosen and a rejected reply."""
    chat_pairs = "chat_pairs"
    """The same as messages."""
    alpaca_pairs = "alpaca_pairs"
    """An instruction with a chosen and a rejected reply."""


PAIRS = (Format.pairs, Format.chat_pairs, Format.alpaca_pairs)
"""Formats of rows with two replies, of which one is preferred."""


class TemplateKind(StrEnum):
    """The way from a conversation to text."""

    plain = "plain"
    chat = "chat"
    llama2 = "llama2"


class Scoring(StrEnum):
    """The rule for a right item; the completion loss is always measured too."""

    choices = "choices"
    answer = "answer"
    loss = "loss"
    preference = "preference"
    """Right where training made the chosen reply gain on the rejected one; of a bare base, where
    the chosen reply is the likelier one."""
    classes = "classes"
    """Right where the class with the highest logit is the row's."""


class Storage(StrEnum):
    """The storage of the base's linear weights."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    int8 = "int8"
    nf4 = "nf4"
    fp4 = "fp4"
    int8_sym = "int8_sym"
    """Whole numbers around zero: one scale a group of weights."""
    int4_sym = "int4_sym"
    int2_sym = "int2_sym"
    uint8_asym = "uint8_asym"
    """Whole numbers from 0 on: a scale and a zero point a group of weights."""
    uint4_asym = "uint4_asym"
    uint2_asym = "uint2_asym"
    fp8 = "fp8"
    """8-bit floats of 4 exponent and 3 mantissa bits: a scale a group of weights."""
    w8a8_dynamic = "w8a8_dynamic"
    """8 bits a weight, and inputs rounded to 8 bits as they come, a scale a token: no gradient."""
    w8a8_static = "w8a8_static"
    """The same with one scale and zero point a layer for its inputs, found by calibration."""


GROUPED = (*(one for one in Storage if one.endswith(("_sym", "_asym"))), Storage.fp8)
"""Storages with a scale a group of weights."""
GROUP_SIZES = (32, 64, 128)
SERVED = (Storage.w8a8_dynamic, Storage.w8a8_static)
"""Storages that no adapter is trained on: they round the inputs of layers in every pass."""
OBSERVED = (Storage.w8a8_static,)
"""Storages that need rows on which inputs of layers are observed."""
WHOLE = tuple(one for one in GROUPED if one is not Storage.fp8)
"""Storages of whole numbers, with a scale a group."""


class Rounding(StrEnum):
    """How codes are chosen for a merged model's weights."""

    nearest = "nearest"
    auto_round = "auto_round"
    """By signed gradient descent on the error of each block's outputs on rows of train (Cheng et
    al. 2023, arXiv 2309.05516)."""
    awq = "awq"
    """The nearest, once input channels that matter on rows of train are scaled up (Lin et al. 2023,
    arXiv 2306.00978)."""
    gptq = "gptq"
    """Column by column, what follows making up for the error (Frantar et al. 2022, arXiv
    2210.17323)."""


class Observer(StrEnum):
    """The range of a layer's inputs that 8 bits cover, of all that calibration saw."""

    min_max = "min_max"
    """From the smallest to the largest."""
    percentile = "percentile"
    """The middle `percentile` per cent, as many cut off below as above."""
    mse = "mse"
    """The share of min_max's range with the least mean squared error."""


APART = "apart"
"""The form of serving in which an adapter stays beside its base, and no mode of conf/quant."""


class Precision(StrEnum):
    """A floating-point type, or the choice of the best one that the device has."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Targets(StrEnum):
    """The layers that a method trains something of, or beside."""

    q_v = "q_v"
    attention = "attention"
    k_v_mlp = "k_v_mlp"
    """Keys, values and the last matrix of each MLP, which IA3's paper adapts."""
    sublayer_ends = "sublayer_ends"
    """The last matrix of each attention and of each MLP, behind which Adapter-H stands."""
    all_linear = "all_linear"
    modules = "modules"
    norms = "norms"
    """No linear layers, but every norm."""
    biases = "biases"
    """Every layer with a bias, norms among them."""
    sequence = "sequence"
    """No layers, but what stands in front of every sequence."""
    all = "all"
    """All that the language model has."""


BESIDE_LINEAR = (Targets.norms, Targets.biases, Targets.sequence, Targets.all)
"""Presets that take no linear layers."""
LINEAR = tuple(one for one in Targets if one not in BESIDE_LINEAR)
"""Presets of linear layers."""


class Search(StrEnum):
    """Which of the declared trials are trained."""

    grid = "grid"
    """All."""
    settle = "settle"
    """Those that the answer needs, cheapest first."""


class Cost(StrEnum):
    """The quantity by which one configuration is cheaper than another."""

    serving_bytes = "serving_bytes"
    """Stored base of the mode and adapter: what a server keeps in memory."""
    training_peak_bytes = "training_peak_bytes"
    adapter_bytes = "adapter_bytes"
    train_seconds = "train_seconds"
    money = "money"
    """train_seconds at price_per_hour."""
    energy = "energy"
    """train_seconds at power_watts."""


class EngineKind(StrEnum):
    """Where packs are trained."""

    local = "local"
    """On this computer."""
    slurm = "slurm"
    ray = "ray"


class DeviceKind(StrEnum):
    """The device to run on."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
