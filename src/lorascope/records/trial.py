"""One trial: what it is, how it ended, what it measured, and the memory predicted for it; and what
every record says of code, versions and device.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

from lorascope.config import OWN_SETTINGS
from lorascope.records.dials import DialValue

RECORD_FORMAT = 2
"""Version of the records on disk: 2 since the key of a trial names its method and dials."""


@dataclass(frozen=True)
class Provenance:
    """Code, versions and device that a result was made with."""

    git_commit: str | None
    git_dirty: bool | None
    dvc_lock_sha256: str | None
    versions: dict[str, str]
    python: str
    platform: str
    device: str
    """Readable device name, e.g. 'cpu: Intel Xeon' or 'cuda: NVIDIA H200'."""
    threads: int
    created_utc: str
    deterministic: bool = False
    """Whether torch was held to algorithms that give the same bits each time."""
    shards: int = 1
    """Devices that divided a trial's base and its batches: equal but for rounding."""
    placed: int = 1
    """Devices over which the layers of a trial's base were placed, one after the other."""


def mixed_versions(made: Collection[Provenance]) -> list[str]:
    """Libraries of which `made` name several versions."""
    names = sorted({name for provenance in made for name in provenance.versions})
    return [name for name in names if len({p.versions.get(name) for p in made}) > 1]


class Status(StrEnum):
    """The end of a trial. Every status but `completed` comes with a reason."""

    completed = "completed"
    diverged = "diverged"
    out_of_memory = "out_of_memory"
    killed = "killed"
    timeout = "timeout"
    refused = "refused"
    failed = "failed"


LASTING = (Status.completed, Status.diverged)
"""Statuses that a second run would only repeat; trials with the others are tried again."""


@dataclass(frozen=True)
class LossPoint:
    """One logged training loss: the mean over the steps since the point before, or a resume."""

    step: int
    loss_nats: float
    learning_rate: float
    gradient_norm: float | None
    metrics: dict[str, float] = field(default_factory=dict)
    """What the objective shows beside its loss, such as rewards/margins, as the loss is averaged;
    empty for completions."""


@dataclass(frozen=True)
class ValidationPoint:
    """A validation while a trial was trained."""

    step: int
    loss_nats: float | None
    """Mean loss of a completion token on the whole split; None where it is not finite."""


@dataclass(frozen=True)
class TrialKey:
    """The settings that people know a trial by and that tables are joined on. Its identity covers
    more."""

    model: str
    data: str
    quant: str
    method: str
    """Name of the adapter method: lora."""
    targets: str
    dials: dict[str, DialValue]
    """The method's settings that readers see, in its order."""
    seed: int

    def named(self) -> set[str]:
        """The settings that this key already says, such as lora.rank."""
        own = {f"{self.method}.{name}" for name in ("targets", "modules", *self.dials)}
        return {"seed", *own}


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
class DevicePlan:
    """Memory of one of the devices that a base's layers are placed over."""

    layers: int
    base_bytes: int
    states_bytes: int
    """Adapters, gradients and optimizer state: all of it on the first, copies on the others."""
    activation_bytes: int
    peak_bytes: dict[str, int]
    """As in `MemoryPlan`."""


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
    """Peak by phase: load, train, evaluate (the last validation), score where the rows to score are
    known, merge."""
    seconds: float
    """Duration of the prediction."""
    shards: int = 1
    """Devices that divide base and batches: bytes are those of each one."""
    devices: list[DevicePlan] = field(default_factory=list)
    """Each device that layers are placed over, in their order; the parts above are then those of
    the one that training fills most, and each peak is the highest. Empty where one has all."""


@dataclass(frozen=True)
class TrainingResult:
    """Measurements of a finished training."""

    trainable_parameters: int
    total_parameters: int
    """Base and adapter, packed weights counted by what they stand for, tied ones once."""
    trainable_percent: float
    """100 x trainable / total."""
    adapter_bytes: int
    optimizer_bytes: int
    model_bytes: int
    """Exact bytes of the base's parameters, buffers and quantization constants in memory."""
    compute_dtype: str
    attention: str
    steps: int
    """Optimizer steps of this trial: fewer than asked for where it stopped early."""
    resumed_at_step: int
    """Step at which training was resumed, from which seconds and tokens a second count; 0 where it
    was not."""
    processed_tokens: int
    """Tokens that went through the model in all steps, padding excluded."""
    tokens_per_second: float
    load_seconds: float
    train_seconds: float
    """Duration of the steps up to this trial's last, validations excluded."""
    evaluate_seconds: float
    """Duration of this trial's validations, those during training included."""
    train_loss_nats: float
    """Mean loss of the last logged interval."""
    validation_loss_nats: float
    """Mean loss on the validation split, as the objective has it, of the weights that are saved: of
    completions nats a token, of preferences nats a pair."""
    losses: list[LossPoint]
    memory: dict[str, PhaseMemory]
    """Memory by phase: load, train, evaluate."""
    adapter_sha256: str
    largest_batch: tuple[int, int] | None = None
    """(samples, padded tokens a sample) of the largest micro-batch that was trained."""
    largest_evaluation_batch: tuple[int, int] | None = None
    """(samples, padded tokens a sample) of the largest batch of the validation loss."""
    pack_ranks: list[int] = field(default_factory=list)
    """Ranks of all trials that were trained at once, this one included. `memory`, load_seconds and
    train_seconds are theirs together. Empty in a record from before packs."""
    validations: list[ValidationPoint] = field(default_factory=list)
    """Validations during training; empty without train.validate_every_steps."""
    stopped_at_step: int | None = None
    """Step at which train.patience ran out; None where it did not."""
    saved_step: int | None = None
    """Step whose weights are saved: the best validated one with train.patience, else the last. None
    in a record from before there was a choice."""
    data_order: str | None = None
    """The order of train.jsonl's rows in the epoch `epoch`, from 0, as a Python expression; a step
    takes the next batch_size of them, the last step of an epoch what is left."""
    arithmetic: str | None = None
    """Arithmetic of a quantized base's layers, in words; None for a floating-point base."""

    @property
    def trials_at_once(self) -> int:
        """Number of trials that were trained together, this one included."""
        return len(self.pack_ranks) or 1


@dataclass(frozen=True)
class TakenOver:
    """A trial's former identity, from before it was taken over."""

    trial: str
    """Former folder name."""
    identity: str
    """Former identity."""
    trained_by: str
    """The code that trained it."""
    assumed: bool
    """Whether a person vouched that the present code gives the same values; otherwise it was
    shown."""


@dataclass(frozen=True)
class TrialRecord:
    """One trial of train-lora."""

    trial: str
    """Folder name: readable part plus short hash."""
    identity: str
    """Full hash over base, data, seed, and what of settings and revisions differs from defaults."""
    key: TrialKey
    settings: dict[str, object]
    """All that decides the result, in full, and the revisions of the code."""
    status: Status
    reason: str | None
    last_lines: list[str]
    result: TrainingResult | None
    tracking: str
    """'published', 'off', or why the store could not be reached."""
    provenance: Provenance
    format: int = RECORD_FORMAT
    plan: MemoryPlan | None = None
    """Memory predicted for this trial by itself, on the batches that were trained; for a refused
    trial, before the run."""
    pack_plan: MemoryPlan | None = None
    """Memory predicted for all trials that were trained at once; None for a pack of one."""
    tracking_run: str | None = None
    """The tracking store's id of this trial's run."""
    taken_over: TakenOver | None = None
    """The trial's former identity; None where it was trained under the present one."""

    @property
    def objective(self) -> str:
        """What its training lowered, and its validation loss is of, with the settings that scale
        that."""
        train = self.settings.get("train")
        if not isinstance(train, dict):
            return ""
        name = str(train.get("objective", "completion"))
        own = [f"{key}={train[key]}" for key in OWN_SETTINGS.get(name, ()) if key in train]
        return " ".join([name, *own])
