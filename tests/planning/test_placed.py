"""Layers placed over several devices: where each tensor lies, and what each device needs.

To tensors without data cpu and cpu:1 are two devices, and torch refuses to mix them as it refuses
two GPUs'.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate.hooks import remove_hook_from_module
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lorascope.adapters.decoder import decoder_layers
from lorascope.adapters.lora.kind import LoraConfig
from lorascope.adapters.placement import balanced
from lorascope.bases.known_configs import known_config
from lorascope.config import (
    Config,
    DataConfig,
    Format,
    ModelConfig,
    QuantConfig,
    Storage,
    TrainConfig,
)
from lorascope.config.schema import RuntimeConfig
from lorascope.counting.scored_batches import LargestRows, Sample
from lorascope.errors import ConfigError
from lorascope.objectives.evaluation import forward_of
from lorascope.objectives.kinds import Places, TokenBatch
from lorascope.planning.depth import training_trace
from lorascope.planning.fake_mode import FakeTracker, fake_tensors
from lorascope.planning.fake_model import fake_adapted, fake_pack
from lorascope.planning.placed import device_specs
from lorascope.planning.plan import plan_memory
from lorascope.planning.scored import ScoredSubject, score_bytes
from lorascope.planning.subject import PlanSubject, SampleLengths, subject_of
from lorascope.planning.trace import trace_evaluation, trace_training
from lorascope.quantizers.kinds import QUANTIZERS

aten = torch.ops.aten
MOVES = {aten._to_copy.default, aten.copy_.default, torch.ops.prim.device.default}
MODES = {
    "fp16": QuantConfig("fp16", Storage.float16),
    "int8": QuantConfig("int8", Storage.int8),
    "nf4": QuantConfig("nf4", Storage.nf4),
    "nf4_dq": QuantConfig("nf4_dq", Storage.nf4, double_quantization=True),
    "int4_sym": QuantConfig("int4_sym", Storage.int4_sym),
}
LAYERS = 4
LLAMA: dict[str, object] = {
    **known_config("llama-2-7b"),
    "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4,
    "num_key_value_heads": 2, "num_hidden_layers": LAYERS, "vocab_size": 512,
}  # fmt: skip
COUNTER = 4
"""AdamW's, of its steps."""


class OneDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses what a GPU refuses and fake tensors let pass, such as sums in place; counts moves."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.moves = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [own for own in tree_leaves((args, kwargs, result)) if isinstance(own, Tensor)]
        found = {str(own.device) for own in tensors if own.dim() or own is result}
        if len(found) > 1:
            assert func in MOVES, f"{func} mixes {found}"
            self.moves += 1
        return result


def subject(quant: QuantConfig, places: int = 1, **train: Any) -> PlanSubject:
    config = Config(
        quant=quant,
        adapter=LoraConfig(rank=8),
        train=TrainConfig(micro_batch_size=2, steps=4, **train),
        runtime=RuntimeConfig(place=places),
    )
    return subject_of(config, LLAMA, "cuda", SampleLengths(32, equal=False))


def elsewhere(quant: QuantConfig, rank: int = 8, **train: Any) -> PlanSubject:
    """All layers on the second device, and two trials."""
    own = subject(quant, **train)
    beside = (LoraConfig(rank=2 * rank, dropout=0.1),)
    return replace(own, spec=replace(own.spec, elsewhere=True, beside=beside))


@pytest.mark.parametrize("train", [{}, {"gradient_checkpointing": True, "layer_drop": 0.1}])
@pytest.mark.parametrize("mode", MODES)
def test_all_that_a_step_and_a_validation_compute_with_lies_on_one_device(
    mode: str, train: dict[str, Any]
) -> None:
    own = elsewhere(MODES[mode], **train)
    with OneDevice() as step:
        trace_training(own, None)
    with OneDevice() as validation:
        trace_evaluation(own, None, own.evaluation)
    # Of each layer rotary embeddings, two tables, come from the first device at least.
    assert step.moves > 2 * LAYERS
    assert validation.moves > 2 * LAYERS


CLASSES = ["a", "b", "c"]
OTHER: dict[str, Config] = {
    "classification": Config(
        model=ModelConfig("m", classes=3),
        data=DataConfig("d", format=Format.labelled, classes=CLASSES),
        train=TrainConfig(micro_batch_size=2, steps=4, objective="classification"),
    ),
    "dpo": Config(
        data=DataConfig("d", format=Format.pairs),
        train=TrainConfig(micro_batch_size=2, steps=4, objective="dpo"),
    ),
}


@pytest.mark.parametrize("objective", OTHER)
def test_so_it_is_with_classes_preferences_and_dora(objective: str) -> None:
    values = dict(LLAMA)
    if objective == "classification":
        names = {str(number): name for number, name in enumerate(CLASSES)}
        values |= {"architectures": ["LlamaForSequenceClassification"], "id2label": names,
                   "pad_token_id": 0}  # fmt: skip
    adapter = LoraConfig(rank=8, dora=objective == "dpo")
    config = replace(OTHER[objective], quant=MODES["nf4"], adapter=adapter)
    own = subject_of(config, values, "cuda", SampleLengths(32, equal=False))
    own = replace(own, spec=replace(own.spec, elsewhere=True))
    with OneDevice() as step:
        trace_training(own, None)
        trace_evaluation(own, None, own.evaluation)
    assert step.moves > 2 * LAYERS


@pytest.mark.parametrize("layer", [0, LAYERS // 2, LAYERS - 1])
@pytest.mark.parametrize("mode", ["fp16", "nf4", "int8"])
def test_a_layer_without_its_hook_is_refused(mode: str, layer: int) -> None:
    spec = elsewhere(MODES[mode]).spec

    def run(adapted: bool, connected: bool) -> None:
        kernels = QUANTIZERS[spec.quant.storage].kernels("cuda")
        with fake_tensors(), torch.no_grad(), FakeTracker(1, kernels, fake=True):
            pack, single = fake_pack(spec), fake_adapted(spec)
            base = single.get_base_model() if adapted else pack.base
            if not connected:
                remove_hook_from_module(decoder_layers(base)[1][layer])
            ids = torch.zeros((4, 8), dtype=torch.long)
            batch = TokenBatch(ids, ids, ids, ids[0, :2], Places(ids[0], [4, 4]), [0, 0], True)
            (forward_of(single) if adapted else pack)(batch, batch.places).all()

    for adapted in (False, True):
        run(adapted, connected=True)
        with pytest.raises(RuntimeError, match="at least two devices"):
            run(adapted, connected=False)


def test_places_are_filled_so_that_the_fullest_has_least() -> None:
    """Against all divisions that there are."""
    draw = random.Random(0)
    for _ in range(200):
        layers = [draw.randint(1, 9) for _ in range(draw.randint(1, 7))]
        places, outside = draw.randint(1, len(layers)), draw.choice([0, 3, 20])
        counts = balanced(layers, outside, places)
        assert (sum(counts), len(counts), min(counts) > 0) == (len(layers), places, True)
        every = [
            fullest(layers, outside, [0, *cuts, len(layers)])
            for cuts in itertools.combinations(range(1, len(layers)), places - 1)
        ]
        assert fullest(layers, outside, [0, *itertools.accumulate(counts)]) == min(every)


def fullest(layers: list[int], outside: int, ends: list[int]) -> int:
    sizes = [sum(layers[start:end]) for start, end in itertools.pairwise(ends)]
    return max(sizes[0] + outside, *sizes)


@pytest.mark.parametrize("mode", ["fp16", "nf4_dq", "int8"])
def test_a_plan_tells_what_each_device_needs(mode: str) -> None:
    whole = plan_memory(subject(MODES[mode]))
    placed = plan_memory(subject(MODES[mode], places=2))
    first, second = placed.devices
    assert first.layers + second.layers == LAYERS
    # Code tables are shared, and there once on each device.
    tables = {"fp16": 0, "nf4_dq": 4 * (16 + 256), "int8": 0}[mode]
    assert first.base_bytes + second.base_bytes == whole.base_bytes + tables
    # Values, gradients and two moments of all layers; values and gradients of its own.
    parameters = whole.adapter_bytes // 4
    assert first.states_bytes == 4 * 4 * parameters + COUNTER
    assert second.states_bytes == 2 * 4 * parameters * second.layers // LAYERS
    assert first.activation_bytes + second.activation_bytes == pytest.approx(
        whole.activation_bytes, rel=0.05
    )
    for phase in ("load", "train", "evaluate"):
        peaks = [device.peak_bytes[phase] for device in placed.devices]
        assert placed.peak_bytes[phase] == max(peaks) < whole.peak_bytes[phase]


def test_the_second_device_is_planned_as_a_trace_of_all_its_layers_says() -> None:
    """Continued from shallow traces or traced as it is."""
    own = replace(elsewhere(MODES["nf4"]), training=TrainConfig(micro_batch_size=2, steps=4))
    deep = {**LLAMA, "num_hidden_layers": 9}
    own = replace(own, spec=replace(own.spec, config=deep))
    exact = trace_training(own, None)
    continued = training_trace(own)
    assert continued.parts == pytest.approx(exact.parts, rel=1e-6)
    assert max(continued.segments.values()) == pytest.approx(max(exact.segments.values()), rel=1e-3)


@pytest.mark.parametrize("generated", [0, 48])
def test_scoring_is_planned_too(generated: int) -> None:
    """Where answers are generated, each layer's cache lies with it."""
    rows = LargestRows(Sample(32, 8), generated)
    whole = ScoredSubject(subject(MODES["nf4"]).spec, "cuda", 8, rows)
    base_bytes = plan_memory(subject(MODES["nf4"])).base_bytes
    spared = score_bytes(whole) - score_bytes(replace(whole, places=2))
    assert 0.2 * base_bytes < spared < base_bytes


def test_more_devices_than_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match=rf"runtime.place.*has {LAYERS} layers.*={LAYERS} or"):
        device_specs(subject(MODES["nf4"]).spec, LAYERS + 1)
