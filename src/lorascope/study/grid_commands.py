"""The commands that look at the whole declared grid."""

from __future__ import annotations

import gc
from collections.abc import Callable
from importlib import import_module

from lorascope.config import Config
from lorascope.errors import LorascopeError
from lorascope.files.layout import Layout
from lorascope.study.grid import declared_overrides, expand, with_overrides
from lorascope.study.overrides import read_overrides

ONE_OF = ("recipe", "model", "data", "evaluate", "merge", "decide", "ship", "runtime")
"""First parts of keys that are no axes of a study."""


def run_grid_command(command: str, overrides: list[str], layout: Layout) -> None:
    """Run `command` over the grid of params.yaml, with `overrides` in place of its axes."""
    refuse_flags(command, overrides)
    if command != "plan":
        _refuse_several(command, overrides, layout)
    configs = expand(layout, with_overrides(declared_overrides(layout), overrides))
    run = _imported(f"lorascope.stages.{command}")
    run(configs, layout)


def _refuse_several(command: str, overrides: list[str], layout: Layout) -> None:
    """A study has one model, one dataset and one rule: of several, one would be looked at."""
    for override in read_overrides(overrides, layout):
        key = override.key_or_group
        if override.is_sweep_override() and key.partition(".")[0] in ONE_OF:
            raise LorascopeError(
                f"{override.input_line}: {command} looks at one {key} at a time. Name one, and run "
                "it again for each other."
            )


def refuse_flags(command: str, arguments: list[str], known: tuple[str, ...] = ()) -> None:
    """Raise where a flag that is not `known` stands among Hydra overrides."""
    flags = [text for text in arguments if text.startswith("-") and text not in known]
    if flags:
        also = f" and {', '.join(known)}" if known else " only"
        raise LorascopeError(
            f"{command}: unknown flag {flags[0]}. It takes Hydra overrides{also}, e.g. lora.rank=8 "
            "for ranks, quant=nf4 for a mode; `lorascope --help` shows more."
        )


def _imported(stage: str) -> Callable[[list[Config], Layout], object]:
    """A stage's function. Imports leave no garbage, and looking for some among them would take a
    fifth of torch's and transformers' time, and again later."""
    gc.disable()
    try:
        run: Callable[[list[Config], Layout], object] = import_module(stage).run
        gc.freeze()
    finally:
        gc.enable()
    return run
