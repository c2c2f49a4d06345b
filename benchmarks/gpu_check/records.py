"""What is measured, and what a run of the check leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PreTrainedModel

from lorascope.adapters.lora.kind import LoraConfig
from lorascope.config import QuantConfig, Storage
from lorascope.machine.devices import Device

SHAPES = ("gemma-2b", "llama-2-7b")
"""Configurations that come with lorascope, the smaller first: the time that it leaves is the
larger one's."""
MODES = (
    QuantConfig("fp16", Storage.float16),
    QuantConfig("int8", Storage.int8),
    QuantConfig("nf4", Storage.nf4),
    QuantConfig("nf4_dq", Storage.nf4, double_quantization=True),
)
LORA = LoraConfig(rank=16, alpha=16.0)
LEARNING_RATE = 1e-4
PACKED, BARE = "lorascope", "bare"
"""Who makes a step: lorascope's packs, or B0, the bare script's Trainer with PEFT."""


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    tokens: tuple[int, ...] = (16, 64, 256, 512, 1024)
    """A trial and step, as one sample; the first gives the launch floor."""
    trials: tuple[int, ...] = (1, 2, 4, 8)
    """Of a pack; the first is 1."""
    warm_up_steps: int = 5
    """They load kernels, find the loss scale of FP16 and make the optimizer's state."""
    measured_steps: int = 7
    layer_tokens: int = 2048
    """Enough for the device, not the launches, to decide what one layer takes."""
    layer_calls: int = 20
    """Of one layer between two readings of the clock."""
    deadline_seconds: float = 570.0
    """Ten minutes, less the imports before and the last row's end."""


@dataclass(frozen=True)
class LoadedBase:
    """A frozen base on its device."""

    shape: str
    config: Mapping[str, object]
    """As in its config.json."""
    quant: QuantConfig
    device: Device
    model: PreTrainedModel


@dataclass(frozen=True)
class BaseRow:
    """One base; where it could not be made, the reason."""

    shape: str
    mode: str
    base_bytes: int | None = None
    make_seconds: float | None = None
    failure: str = ""


@dataclass(frozen=True)
class StepRow:
    """One optimizer step of all trials at once: medians; where it was not measured, the reason."""

    shape: str
    mode: str
    path: str
    """PACKED or BARE."""
    trials: int
    tokens_a_trial: int
    step_seconds: float | None = None
    lowest_seconds: float | None = None
    highest_seconds: float | None = None
    tokens_a_second: float | None = None
    """Of all trials together."""
    peak_bytes: int | None = None
    """On CUDA the allocator's, on a CPU that of live tensors."""
    planned_bytes: int | None = None
    failure: str = ""

    @property
    def plan_error_percent(self) -> float | None:
        """How far the plan is above what was measured."""
        if self.peak_bytes is None or self.planned_bytes is None:
            return None
        return 100 * (self.planned_bytes / self.peak_bytes - 1)


@dataclass(frozen=True)
class LayerRow:
    """Forward passes of one quantized layer and of a 16-bit one of equal shape."""

    shape: str
    mode: str
    in_features: int
    out_features: int
    layers: int
    """Of this shape in the model."""
    tokens: int
    quantized_seconds: float | None = None
    plain_seconds: float | None = None
    failure: str = ""


@dataclass(frozen=True)
class Gain:
    """What packing gains: K steps of a trial alone over one step of K trials."""

    trials: int
    tokens_a_trial: int
    ratio: float


@dataclass(frozen=True)
class Finding:
    """What the rows of one base say; None where rows are missing."""

    shape: str
    mode: str
    launch_floor_seconds: float | None
    """A trial's step at the smallest token count."""
    fixed_seconds: float | None
    """Of a trial's step, by the least-squares line through its steps at all token counts."""
    seconds_a_token: float | None
    """The slope of that line."""
    largest_residual_percent: float | None
    """Of a step's own time: how well the line fits."""
    dequantization_seconds: float | None
    """What a forward pass of all linear layers takes beyond 16-bit ones of equal shape."""
    gains: list[Gain]
    break_even_tokens_a_trial: int | None
    """The largest token count measured at which packing the most trials still pays; 0: at none."""
    bare_ratios: list[Gain]
    """B0's step over a trial's own step."""
    largest_plan_error_percent: float | None
    """The plan against the peak, with its sign."""


@dataclass(frozen=True)
class GpuCheck:
    """All of one run."""

    device_name: str
    device_bytes: int
    cuda_version: str
    git_commit: str
    versions: str
    lora: LoraConfig
    effort: Effort
    seconds: float
    bases: list[BaseRow]
    steps: list[StepRow]
    layers: list[LayerRow]
    findings: list[Finding]
