"""lorascope: which LoRA rank, alpha and quantization mode to ship, with evidence.

What those need who use it as a library; each name is loaded when it is first used:

    layout = lorascope.find_layout(Path())
    configs = lorascope.expand(layout, lorascope.declared_overrides(layout))
    findings = lorascope.compare(lorascope.collect(configs, layout))
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lorascope.adapters.kinds import kind_of as kind_of
    from lorascope.adapters.targets import select as select
    from lorascope.bases.config_json import model_config_dict as model_config_dict
    from lorascope.comparing.findings import compare as compare
    from lorascope.counting.architectures import model_shape as model_shape
    from lorascope.files.layout import Layout as Layout
    from lorascope.files.layout import find_layout as find_layout
    from lorascope.files.store import read_record as read_record
    from lorascope.planning.plan import plan_memory as plan_memory
    from lorascope.planning.subject import subject_of as subject_of
    from lorascope.study.collect import collect as collect
    from lorascope.study.grid import expand as expand
    from lorascope.study.params import declared_overrides as declared_overrides

PLACES = {
    # What is declared, and what is there.
    "Layout": "files.layout",
    "find_layout": "files.layout",
    "declared_overrides": "study.params",
    "expand": "study.grid",
    "collect": "study.collect",
    "read_record": "files.store",
    # What the scores say.
    "compare": "comparing.findings",
    # Parameters, from shapes: kind_of(adapter).parameters(adapter, select(shapes, adapter)).
    "model_config_dict": "bases.config_json",
    "model_shape": "counting.architectures",
    "select": "adapters.targets",
    "kind_of": "adapters.kinds",
    # Memory, before anything runs.
    "subject_of": "planning.subject",
    "plan_memory": "planning.plan",
}
"""Name -> the module that it stands in. Configurations and records are `config` and `records`."""
__all__ = list(PLACES)


def __getattr__(name: str) -> object:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)
