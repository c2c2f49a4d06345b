"""Whether a trial can be merged, stored in the form that it is served in, and scored so, here."""

from __future__ import annotations

from lorascope.bases.folder import SHARD_BYTES
from lorascope.config import Config, QuantConfig, Rounding, Storage
from lorascope.errors import DeviceError
from lorascope.files.layout import Layout
from lorascope.machine.devices import Device, choose_device
from lorascope.machine.memory import MemoryLimit
from lorascope.planning.arithmetic import GIGABYTE
from lorascope.planning.fits import memory_limit
from lorascope.planning.scored import scoring_refusal
from lorascope.records import BaseRecord, FootprintRecord
from lorascope.study.intact import read_base, read_mode, require_base, require_data, require_stored


def require_room(config: Config, layout: Layout) -> Device:
    """The device, once all that a served form is made of is as it was prepared.

    Raises:
        DeviceError: merging, storing or scoring needs more memory than there is.
        RecordError: base, mode or data are not prepared, or not what their records say.
    """
    assert config.serve is not None
    require_data(config, layout)
    require_base(config, layout)
    require_stored(config, layout)
    device = choose_device(config.runtime.device, config.runtime.place)
    limit = memory_limit(device, config.runtime.memory_limit_gb)
    base, stored = read_base(config, layout), read_mode(config, layout)
    refused = storing_refusal(base, stored, config.serve, limit)
    refused = refused or scoring_refusal(config, layout, device.kind, limit)
    if refused is not None:
        raise DeviceError(refused)
    return device


def storing_refusal(
    base: BaseRecord, stored: FootprintRecord, mode: QuantConfig, limit: MemoryLimit
) -> str | None:
    """Why a trial cannot be merged and stored in `mode` here; None where it can."""
    needed = storing_bytes(base, stored, mode)
    if needed <= limit.bytes:
        return None
    return (
        f"serve={mode.name}: needs {needed / GIGABYTE:.3g} GB to merge a trial and store it, and "
        f"there are {limit.bytes / GIGABYTE:.3g} GB ({limit.source}). Leave this form out, or set "
        "runtime.memory_limit_gb if there is more."
    )


def storing_bytes(base: BaseRecord, stored: FootprintRecord, mode: QuantConfig) -> int:
    """What merging a trial and storing it in `mode` takes.


    While it is merged, layer by layer, there are the stored base and what waits for its file; then
    the merged model is loaded whole, in the type of what the mode does not quantize; to calibrate
    it or to choose its codes, in the type that computes, which may be float32.
    """
    in_float32 = mode.storage is Storage.float32 or mode.reads_rows
    itemsize = 4 if in_float32 else 2
    if mode.rounding is not Rounding.nearest:
        # Chosen codes wait, a byte each, for the model that they are put into.
        itemsize = 6
    waiting = min(4 * base.parameters, SHARD_BYTES)
    return max(stored.total_bytes + waiting, itemsize * base.parameters)
