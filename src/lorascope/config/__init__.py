"""Settings: the schema of conf/, one dataclass a group, with bounds at its fields and rules across
them."""

from lorascope.config.adapter import AdapterConfig
from lorascope.config.choices import (
    APART,
    GROUPED,
    OBSERVED,
    PAIRS,
    SERVED,
    WHOLE,
    Cost,
    DataKind,
    DeviceKind,
    EngineKind,
    Format,
    ModelKind,
    Observer,
    Precision,
    Rounding,
    Scoring,
    Search,
    Storage,
    Targets,
    TemplateKind,
)
from lorascope.config.data import DataConfig
from lorascope.config.decide import DecideConfig
from lorascope.config.engine import EngineConfig
from lorascope.config.model import ModelConfig
from lorascope.config.objectives import OWN_SETTINGS, PREFERENCES
from lorascope.config.quant import QuantConfig
from lorascope.config.schema import (
    EXAMPLE_FIELDS,
    Config,
    EvaluateConfig,
    MergeConfig,
    RuntimeConfig,
    TrainConfig,
    one_form,
)

__all__ = [
    "APART", "EXAMPLE_FIELDS", "GROUPED", "OBSERVED", "OWN_SETTINGS", "PAIRS", "PREFERENCES",
    "SERVED", "WHOLE", "AdapterConfig", "Config", "Cost", "DataConfig", "DataKind", "DecideConfig",
    "DeviceKind", "EngineConfig", "EngineKind", "EvaluateConfig", "Format", "MergeConfig",
    "ModelConfig", "ModelKind", "Observer", "Precision", "QuantConfig", "Rounding",
    "RuntimeConfig", "Scoring", "Search", "Storage", "Targets", "TemplateKind", "TrainConfig",
    "one_form",
]  # fmt: skip
