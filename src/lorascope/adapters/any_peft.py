"""Any further method of PEFT, named by its type and its own settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from lorascope.adapters.lone import Lone
from lorascope.adapters.targets import peft_targets
from lorascope.config import AdapterConfig
from lorascope.config.bounds import Bound, bounded
from lorascope.errors import ConfigError
from lorascope.records import Dial, LinearShape, Method, ModelParts

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

OURS = {
    "LORA": "lora", "IA3": "ia3", "VERA": "vera", "OFT": "oft", "MISS": "miss", "LN_TUNING": "ln",
    "PROMPT_TUNING": "prompt", "P_TUNING": "ptuning", "PREFIX_TUNING": "prefix",
}  # fmt: skip
"""Types that have a kind of their own here."""
PROMPTS = "it puts something in front of the tokens; adapter=prompt, ptuning and prefix do so here"
UNFIT = {
    "ADALORA": "its ranks change between steps, which training here does not ask for",
    "ADAPTION_PROMPT": PROMPTS,
    "CARTRIDGE": PROMPTS,
    "CPT": PROMPTS,
    "MULTITASK_PROMPT_TUNING": PROMPTS,
    "POLY": "its rows name their tasks",
    "SHADOW": "it changes what the model returns",
    "SHIRA": "the memory of its sparse tensors is not known; adapter=sparse trains such a share",
    "TRAINABLE_TOKENS": "it trains embeddings",
    "VBLORA": "PEFT puts it on whole models alone, so that it cannot be counted here",
    "XLORA": "it mixes adapters that are trained already",
}
"""Types that cannot be trained here, with the reason."""
ON_QUANTIZED = {
    "BEFT",
    "BOFT",
    "HIRA",
    "LILY",
    "PVERA",
    "RANDLORA",
    "ROAD",
    "UNILORA",
    "WAVEFT",
    "FOURIERFT",
}
"""Types that were seen to train on 8 and 4 bits: others read weights as if they were not stored in
bits, and some of them train on nonsense without a word (peft 0.21)."""
NAMED = Bound(
    lambda name: bool(name) and name == name.upper(),
    "is not the name that PEFT gives a method's type",
    "Write it in capitals, such as peft.type=ROAD, or take a file of conf/peft.",
)
ELSEWHERE = {
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save",
    "target_parameters", "inference_mode", "task_type", "peft_type",
}  # fmt: skip
"""PEFT's settings that say what is trained: `peft.targets` and `peft.modules` do so here."""


@dataclass
class AnyPeftConfig(AdapterConfig):
    """A method by the name that PEFT gives its type, and settings of PEFT's own configuration."""

    kind: ClassVar[str] = "peft"
    type: str = bounded("", NAMED)
    settings: dict[str, Any] = field(default_factory=dict)

    def reads_floats(self) -> str | None:
        _require_known(self.type)
        return None if self.type in ON_QUANTIZED else "type"

    def require_layers(self, shapes: Sequence[LinearShape]) -> None:
        """What PEFT says of its settings and of these layers."""
        ANY_PEFT.parameters(self, shapes)


class AnyPeft(Lone):
    """The kind `peft`."""

    config = AnyPeftConfig
    method = Method(AnyPeftConfig.kind, "PEFT", (Dial("type", "method", letter="t", counts=True),))

    def peft(
        self, config: AnyPeftConfig, every: ModelParts, chosen: list[LinearShape]
    ) -> PeftConfig:
        """PEFT's configuration of that type, with the settings as they are."""
        return _peft_config(config, peft_targets(every.linear, chosen))

    def parameters(self, config: AnyPeftConfig, shapes: Sequence[LinearShape]) -> int:
        """What PEFT itself trains beside layers of these shapes."""
        found = _counted.get(key := repr((config, shapes)))
        if found is None:
            found = _counted[key] = _count(config, shapes)
        return found


ANY_PEFT = AnyPeft()
_counted: dict[str, int] = {}


def _require_known(name: str) -> None:
    import peft

    if name in OURS:
        raise ConfigError(
            "peft.type", name, "has a section of its own", f"Use adapter={OURS[name]}."
        )
    known = sorted({str(kind.value) for kind in peft.PeftType} - {*OURS, *UNFIT})
    if name not in known:
        problem = UNFIT.get(name, "PEFT has no such method")
        raise ConfigError("peft.type", name, problem, f"Choose one of {', '.join(known)}.")


def _peft_config(config: AnyPeftConfig, targets: list[str]) -> PeftConfig:
    import peft.mapping

    _require_known(config.type)
    types = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING
    if wrong := sorted(ELSEWHERE & config.settings.keys()):
        raise ConfigError(
            "peft.settings", wrong[0], "says what is trained, and that is no setting of a method",
            "Use peft=..., peft.targets or peft.modules.",
        )  # fmt: skip
    try:
        made: PeftConfig = types[config.type](
            target_modules=targets, task_type="CAUSAL_LM", **config.settings
        )
    except (TypeError, ValueError) as error:
        raise _refused(config, error) from error
    return made


def _layers_of(shapes: Sequence[LinearShape]) -> nn.Module:
    """Linear layers of these names and shapes, which take no memory."""
    import torch
    from torch import nn

    model = nn.Module()
    for shape in shapes:
        *path, last = shape.name.split(".")
        parent = model
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        layer = nn.Linear(shape.in_features, shape.out_features, bias=False, device="meta")
        # Some methods read weights, which the meta device has none of; this takes no memory.
        values = torch.zeros(()).expand(shape.out_features, shape.in_features)
        layer.weight = nn.Parameter(values, requires_grad=False)
        parent.add_module(last, layer)
    return model


def _count(config: AnyPeftConfig, shapes: Sequence[LinearShape]) -> int:
    import peft

    made = _peft_config(config, [shape.name for shape in shapes])
    model = _layers_of(shapes)
    try:
        peft.inject_adapter_in_model(made, model)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise _refused(config, error) from error
    trained = sum(own.numel() for own in model.parameters() if own.requires_grad)
    if not trained:
        raise _refused(config, ValueError("nothing would be trained"))
    return trained


def _refused(config: AnyPeftConfig, error: Exception) -> ConfigError:
    words = " ".join(str(error).split())[:300]
    return ConfigError(
        "peft.settings", config.settings, f"PEFT does not take it for {config.type} ({words})",
        "Its documentation of that type's configuration names the settings.",
    )  # fmt: skip
