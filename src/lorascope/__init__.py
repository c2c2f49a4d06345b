"""lorascope: which LoRA rank, alpha and quantization mode to ship, with evidence.

What those need who use it as a library, in the folder of a project; each name is loaded when it is
first used. What the scores say of the study that params.yaml declares, and one record of it:

    layout = lorascope.find_layout(Path())
    declared = lorascope.declared_overrides(layout)
    study = lorascope.collect(lorascope.expand(layout, declared), layout)
    findings = lorascope.compare(study)
    folder = layout.trials(study.trials[0].key.quant) / study.trials[0].trial
    trial = lorascope.read_record(folder, type(study.trials[0]))

Parameters of an adapter, counted from shapes, and memory before anything runs:

    overrides = lorascope.with_overrides(declared, ["lora.rank=8", "lora.alpha=16", "quant=nf4"])
    config = lorascope.expand(layout, overrides)[0]
    values = json.loads(Path("config.json").read_text())
    layers = lorascope.select(lorascope.model_shape(values).parts, config.adapter)
    parameters = lorascope.kind_of(config.adapter).parameters(config.adapter, layers)
    lengths = lorascope.SampleLengths(longest=512, equal=False)
    plan = lorascope.plan_memory(lorascope.subject_of(config, values, "cuda", lengths))

Configurations are `lorascope.config`, records `lorascope.records`.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# transformers imports torchao wherever it is installed. That tells then which CUDA kernels it does
# not find, and torch what will change in it: no harm, and no command of ours should begin with it.
logging.getLogger("torchao").setLevel(logging.ERROR)
logging.getLogger("torch.utils._pytree").addFilter(
    lambda entry: "is an Enum subclass" not in entry.getMessage()
)

if TYPE_CHECKING:
    from lorascope.adapters.kinds import kind_of as kind_of
    from lorascope.adapters.targets import select as select
    from lorascope.bases.config_json import model_config_dict as model_config_dict
    from lorascope.bases.shapes import model_shape as model_shape
    from lorascope.comparing.findings import compare as compare
    from lorascope.files.layout import Layout as Layout
    from lorascope.files.layout import find_layout as find_layout
    from lorascope.files.store import read_record as read_record
    from lorascope.planning.plan import plan_memory as plan_memory
    from lorascope.planning.subject import SampleLengths as SampleLengths
    from lorascope.planning.subject import subject_of as subject_of
    from lorascope.study.collect import collect as collect
    from lorascope.study.grid import expand as expand
    from lorascope.study.grid import with_overrides as with_overrides
    from lorascope.study.params import declared_overrides as declared_overrides

PLACES = {
    # What is declared, and what is there.
    "Layout": "files.layout",
    "find_layout": "files.layout",
    "declared_overrides": "study.params",
    "with_overrides": "study.grid",
    "expand": "study.grid",
    "collect": "study.collect",
    "read_record": "files.store",
    # What the scores say.
    "compare": "comparing.findings",
    # Parameters, from shapes.
    "model_config_dict": "bases.config_json",
    "model_shape": "bases.shapes",
    "select": "adapters.targets",
    "kind_of": "adapters.kinds",
    # Memory, before anything runs.
    "SampleLengths": "planning.subject",
    "subject_of": "planning.subject",
    "plan_memory": "planning.plan",
}
"""Name -> the module that it stands in."""
__all__ = list(PLACES)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def __getattr__(name: str) -> object:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)
