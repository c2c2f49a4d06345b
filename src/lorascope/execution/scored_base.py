"""The base that subjects are scored on: one at a time is in memory, adapters pass over it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from lorascope.config import Config, TrainConfig
from lorascope.errors import DeviceError
from lorascope.files.layout import Layout
from lorascope.machine.libraries import import_uncollected
from lorascope.study.declared import base_name
from lorascope.study.intact import require_data, require_stored


def items_of_base(config: Config, layout: Layout) -> Path:
    """The folder of the bare base's items, in the mode that the trial was trained in."""
    return layout.evaluations(config.quant.name) / base_name(replace(config, serve=None), layout)


def import_scoring() -> None:
    import_uncollected(
        "lorascope.scoring.evaluation", "lm_eval.evaluator", "lm_eval.models.huggingface"
    )


def load_base(config: Config, layout: Layout) -> None:
    """Have the base that `config` asks for in memory.

    Raises:
        DeviceError: scoring needs more memory than there is.
    """
    require_data(config, layout)
    import_scoring()
    from lorascope.machine.devices import choose_device
    from lorascope.planning.fits import memory_limit
    from lorascope.planning.scored import scoring_refusal
    from lorascope.planning.subject import memory_settings
    from lorascope.scoring.evaluation import LoadedBase

    loaded, limit_gb = LoadedBase.is_of(config, layout), config.runtime.memory_limit_gb
    device = choose_device(config.runtime.device, config.runtime.place)
    if not loaded:
        require_stored(config, layout)
        LoadedBase.let_go()
        LoadedBase.room = memory_limit(device, None)
    settings = memory_settings(replace(config, train=TrainConfig()))
    if settings not in LoadedBase.fitting:
        room = LoadedBase.room if limit_gb is None else None
        limit = room or memory_limit(device, limit_gb)
        refused = scoring_refusal(config, layout, device.kind, limit)
        if refused is not None:
            raise DeviceError(refused)
    if not loaded:
        LoadedBase.load(config, layout)
    LoadedBase.fitting.add(settings)


def let_go() -> None:
    """Give back the memory of the base that was scored last."""
    if "lorascope.scoring.evaluation" in sys.modules:
        sys.modules["lorascope.scoring.evaluation"].LoadedBase.let_go()
