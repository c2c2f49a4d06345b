"""Memory of a trial, predicted and measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PhaseMemory:
    """Memory of one phase (load, train, evaluate) of a trial."""

    resident_growth_bytes: int | None
    """CPU: the process's resident peak in the phase, less its resident size when measuring
    began."""
    allocated_peak_bytes: int | None
    """CUDA: peak of allocated bytes since the phase began."""
    reserved_peak_bytes: int | None
    """CUDA: peak of reserved bytes since the phase began."""
    tracked_peak_bytes: int | None = None
    """Peak of the bytes of all live tensors, weights included, as seen operation by operation."""


@dataclass(frozen=True)
class MemoryPlan:
    """Memory of a trial, predicted from its configuration only, without weights or device."""

    device: str
    """Kind of device that the memory is predicted for: cpu or cuda."""
    micro_batch_size: int
    tokens: int
    """Padded tokens a sample."""
    base_bytes: int
    """Weights, quantization constants and buffers in memory, in the types that compute."""
    constant_bytes: int
    """Quantization constants alone; part of base_bytes."""
    adapter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    """Saved for the backward pass at the end of the forward pass, logits apart."""
    logits_bytes: int
    """Logits, their copies and gradient where they peak together."""
    dequantization_bytes: int
    """Largest temporary copy of a quantized weight."""
    peak_bytes: dict[str, int]
    """Peak by phase: load, train, evaluate, merge."""
    seconds: float
    """Duration of the prediction."""
