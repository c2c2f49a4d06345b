"""Settings: the schema of conf/, one dataclass a group, with bounds at its fields and rules across
them."""

from lorascope.config.choices import (
    Cost,
    DataKind,
    DeviceKind,
    Format,
    ModelKind,
    Precision,
    Scoring,
    Storage,
    Targets,
    TemplateKind,
)
from lorascope.config.schema import (
    Config,
    DataConfig,
    DecideConfig,
    EvaluateConfig,
    LoraConfig,
    MergeConfig,
    ModelConfig,
    QuantConfig,
    RuntimeConfig,
    TrainConfig,
)

__all__ = [
    "Config",
    "Cost",
    "DataConfig",
    "DataKind",
    "DecideConfig",
    "DeviceKind",
    "EvaluateConfig",
    "Format",
    "LoraConfig",
    "MergeConfig",
    "ModelConfig",
    "ModelKind",
    "Precision",
    "QuantConfig",
    "RuntimeConfig",
    "Scoring",
    "Storage",
    "Targets",
    "TemplateKind",
    "TrainConfig",
]
