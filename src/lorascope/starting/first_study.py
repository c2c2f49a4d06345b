"""The study that a person begins with: ranks, modes and training that fit model, rows and machine,
and the texts of its files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any

import yaml

from lorascope.config import DataConfig, ModelConfig, Scoring

RANKS = (4, 16, 64)
LARGE_MODEL_PARAMETERS = 50_000_000
"""From here on a mode takes minutes of a CPU, and settings for small models are too fast."""
MODES = ("fp16", "int8", "nf4", "nf4_dq")
MODES_OF_A_CPU = ("fp16", "nf4_dq")
"""Of a large model: the reference, and what needs least memory."""


@dataclass(frozen=True)
class FirstStudy:
    """What params.yaml says of it."""

    model: str
    data: str
    quant: tuple[str, ...]
    ranks: tuple[int, ...]
    train: str
    evaluate: str

    @property
    def trials(self) -> int:
        return len(self.quant) * len(self.ranks)


def sensible_modes(parameters: int, on_gpu: bool) -> tuple[str, ...]:
    """The modes that are worth their time on this machine."""
    return MODES if on_gpu or parameters < LARGE_MODEL_PARAMETERS else MODES_OF_A_CPU


def sensible_ranks(smallest_dimension: int) -> tuple[int, ...]:
    """Ranks up to half of the smallest side of a matrix that gets an adapter."""
    return tuple(rank for rank in RANKS if rank <= smallest_dimension // 2) or (1, 2)


def sensible_training(parameters: int, scoring: Scoring) -> str:
    """A file of conf/train."""
    if scoring is Scoring.preference:
        return "dpo"
    if scoring is Scoring.classes:
        return "classes"
    return "brief" if parameters < LARGE_MODEL_PARAMETERS else "one_epoch"


def params_text(template: str, study: FirstStudy) -> str:
    """params.yaml: the template's text, its comments included, with the study's values."""
    values = {
        "model": study.model,
        "data": study.data,
        "quant": f"[{', '.join(study.quant)}]",
        "  rank": f'"{",".join(map(str, study.ranks))}"',
        "train": study.train,
        "evaluate": study.evaluate,
    }
    for key, value in values.items():
        template, found = re.subn(
            rf"^{key}:[^#\n]*?(?=\s*(?:#|$))", f"{key}: {value}", template, flags=re.MULTILINE
        )
        assert found == 1, key
    return template


def conf_text(config: ModelConfig | DataConfig, remarks: Mapping[str, str]) -> str:
    """A file of conf/: what differs from the schema's defaults, with a remark above some keys."""
    kept = {f.name for f in fields(config) if f.name in ("name", "kind", "format", "scoring")}
    defaults = asdict(type(config)())
    lines = []
    for key, value in asdict(config).items():
        if key not in kept and value == defaults[key]:
            continue
        if key in remarks:
            lines.append(f"# {remarks[key]}\n")
        lines.append(yaml.safe_dump({key: _plain(value)}, allow_unicode=True, width=1000))
    return "".join(lines)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
