"""Settings: the schema of conf/, one dataclass a group, with bounds at its fields and rules across
them."""

from lorascope.config.adapter import AdapterConfig
from lorascope.config.choices import (
    APART,
    CALIBRATED,
    GROUPED,
    SERVED,
    Cost,
    DataKind,
    DeviceKind,
    Format,
    ModelKind,
    Observer,
    Precision,
    Scoring,
    Search,
    Storage,
    Targets,
    TemplateKind,
)
from lorascope.config.quant import QuantConfig
from lorascope.config.schema import (
    Config,
    DataConfig,
    DecideConfig,
    EvaluateConfig,
    MergeConfig,
    ModelConfig,
    RuntimeConfig,
    TrainConfig,
    one_form,
)

__all__ = [
    "APART", "CALIBRATED", "GROUPED", "SERVED",
    "AdapterConfig", "Config", "Cost", "DataConfig", "DataKind", "DecideConfig", "DeviceKind",
    "EvaluateConfig", "Format", "MergeConfig", "ModelConfig", "ModelKind", "Observer", "Precision",
    "QuantConfig", "RuntimeConfig", "Scoring", "Search", "Storage", "Targets", "TemplateKind",
    "TrainConfig", "one_form",
]  # fmt: skip
