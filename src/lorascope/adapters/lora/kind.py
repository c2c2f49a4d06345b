"""LoRA, rsLoRA and DoRA: what is asked for, counted, named and trained."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from lorascope.adapters.rate import PLAIN, Rate
from lorascope.adapters.targets import peft_targets
from lorascope.config import AdapterConfig
from lorascope.config.bounds import (
    ABOVE_ZERO,
    BELOW_ONE,
    BOUND,
    MAX_RANK,
    ONE_OR_MORE,
    Bound,
    between,
    bounded,
)
from lorascope.counting.parameters import FLOAT32_BYTES, lora_parameters
from lorascope.errors import ConfigError
from lorascope.records import Dial, Dials, LinearShape, Method, ModelParts

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import nn

    from lorascope.adapters.first_samples import FirstSamples
    from lorascope.adapters.lora.stack import LoraStack


FLOAT64_BYTES = 8
KAIMING = "kaiming"
"""PEFT's default, which it calls True: A is drawn as torch draws a linear layer, B is zero."""
EVA = "eva"
"""A begins as the directions in which its layer's inputs vary most (arXiv 2410.07170)."""
CORDA = {"corda": "ipm", "corda_kpm": "kpm"}
"""CorDA's ways by PEFT's names: A and B begin with what weighs most for the samples, to be changed
for their task, or with what weighs least, so that what the base knows of them is kept."""
SUBTRACTED = re.compile(r"olora|pissa(_niter_\d{1,3})?|corda(_kpm)?")
"""Initialisations that take A and B out of the base's weights: OLoRA the first columns of their QR
decomposition (arXiv 2406.01775), PiSSA their largest singular values (arXiv 2404.02948), found
exactly or by so many iterations, CorDA the singular values of their product with the covariance of
their inputs (arXiv 2406.05223)."""
DRAWN = (KAIMING, "gaussian", "orthogonal", EVA)
INIT = Bound(
    lambda init: init in DRAWN or bool(SUBTRACTED.fullmatch(init)),
    "no such initialisation",
    "Choose one of kaiming, gaussian, orthogonal, eva, olora, pissa, pissa_niter_16, corda, "
    "corda_kpm.",
)


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return bool(text)


RANKS = Bound(
    lambda ranks: all(_is_pattern(p) and 1 <= rank <= MAX_RANK for p, rank in ranks.items()),
    f"maps regular expressions for names of layers to ranks from 1 to {MAX_RANK}",
    "Write {down_proj: 8}.",
)
ALPHAS = Bound(
    lambda alphas: all(_is_pattern(p) and ABOVE_ZERO.holds(a) for p, a in alphas.items()),
    "maps regular expressions for names of layers to alphas above 0",
    "Write {down_proj: 8}.",
)


@dataclass
class LoraConfig(AdapterConfig):
    """Two matrices a layer, whose product is added to the layer's weight (Hu et al. 2021)."""

    kind: ClassVar[str] = "lora"
    rank: int = bounded(
        16, between(1, MAX_RANK, "a rank must be a whole number from {} to {}"), "Try 8 or 16."
    )
    alpha: float = bounded(16.0, ABOVE_ZERO, "Start with 16, or with the rank.")
    dropout: float = bounded(0.0, BELOW_ONE, "Try 0.05.")
    rslora: bool = False
    """Scale by alpha/sqrt(rank) instead of alpha/rank."""
    dora: bool = False
    rank_pattern: dict[str, int] = field(default_factory=dict, metadata={BOUND: RANKS})
    """Ranks of layers whose names, from a dot on to their ends, match a regular expression: PEFT's
    `rank_pattern`. Others have `rank`."""
    alpha_pattern: dict[str, float] = field(default_factory=dict, metadata={BOUND: ALPHAS})
    """The same of alphas."""
    init: str = bounded(KAIMING, INIT)
    """How A and B begin."""
    init_samples: int = bounded(256, ONE_OR_MORE, "256 is usual.")
    """Training samples that eva and corda read: the first ones of the trial's own order."""
    b_rate_ratio: float = bounded(1.0, ABOVE_ZERO, "LoRA+ takes 16; 1 is LoRA.")
    """What the learning rate of B (and of DoRA's magnitude) is times that of A: LoRA+ (Hayou et al.
    2024, arXiv 2402.12354)."""

    head: bool = False
    """Also beside the output head, whatever the targets. Head and embeddings are trained by PEFT's
    own layers, one trial at a time."""
    embeddings: bool = False
    """Also beside the embeddings of tokens."""

    def trained_ends(self) -> Sequence[str]:
        return [name for name in ("embeddings", "head") if getattr(self, name)]

    def saved(self) -> Self:
        """How it began matters to training alone. What was taken out of the base stands in the file
        with the opposite sign, beside A and B: twice the rank, at the same scale."""
        plain = replace(self, init=KAIMING)
        if not self.subtracts():
            return plain
        factor = math.sqrt(2) if self.rslora else 2
        return replace(
            plain,
            rank=2 * self.rank,
            alpha=factor * self.alpha,
            rank_pattern={key: 2 * rank for key, rank in self.rank_pattern.items()},
            alpha_pattern={key: factor * alpha for key, alpha in self.alpha_pattern.items()},
        )

    def subtracts(self) -> bool:
        return SUBTRACTED.fullmatch(self.init) is not None

    def reads_floats(self) -> str | None:
        return "init" if self.subtracts() or self.init == "orthogonal" else None

    def reads_samples(self) -> int:
        return self.init_samples if self.init == EVA or self.init in CORDA else 0

    def rank_of(self, layer: str) -> int:
        """The rank on the layer of this name."""
        return self.rank_pattern.get(_match(self.rank_pattern, layer), self.rank)

    def alpha_of(self, layer: str) -> float:
        """The alpha on the layer of this name."""
        return self.alpha_pattern.get(_match(self.alpha_pattern, layer), self.alpha)

    def require_layers(self, shapes: Sequence[LinearShape]) -> None:
        for name in ("rank_pattern", "alpha_pattern"):
            _require_matches(f"lora.{name}", getattr(self, name), [s.name for s in shapes])
        if not self.subtracts() and self.init != EVA:
            return
        for shape in shapes:
            rank, fewest = self.rank_of(shape.name), min(shape.in_features, shape.out_features)
            if self.init == EVA:
                # PEFT looks for twice as many.
                fewest = shape.in_features // 2
            if rank > fewest:
                raise ConfigError(
                    "lora.rank", rank, f"lora.init={self.init} takes so many directions of each "
                    f"layer's weight, and {shape.name} has {fewest}",
                    f"Take {fewest} or less, or lora.init=kaiming.",
                )  # fmt: skip


def _matches(pattern: str, layer: str) -> bool:
    """Whether PEFT gives a layer what `pattern` says: `peft.utils.other.get_pattern_key`."""
    return re.match(rf"(.*\.)?({pattern})$", layer) is not None


def _match(patterns: Iterable[str], layer: str) -> str:
    """The first pattern that a layer matches; empty where none does."""
    return next((pattern for pattern in patterns if _matches(pattern, layer)), "")


def _require_matches(key: str, patterns: Mapping[str, float], layers: Sequence[str]) -> None:
    """Raise ConfigError for a pattern that matches no layer, and for a layer to which two give
    different values: PEFT takes the first, and files of adapters keep no order."""
    for pattern in patterns:
        if not any(_matches(pattern, layer) for layer in layers):
            raise ConfigError(
                key, pattern, "matches no layer that gets an adapter",
                f"Write the end of a name, such as {layers[0].rpartition('.')[2]}, or a regular "
                f"expression for names such as {layers[0]}.",
            )  # fmt: skip
    for layer in layers:
        values = {own: value for own, value in patterns.items() if _matches(own, layer)}
        if len(set(values.values())) > 1:
            raise ConfigError(
                key, ", ".join(values), f"{layer} matches all of them, and their values differ",
                "Let each layer match one.",
            )  # fmt: skip


def _scale(dials: Dials) -> float:
    """What B A is multiplied by: alpha / rank, under rsLoRA alpha / sqrt(rank)
    (Kalajdzievski 2023, arXiv 2312.03732). Patterns give some layers others."""
    rank = float(dials["rank"])
    return float(dials["alpha"]) / (math.sqrt(rank) if dials["rslora"] else rank)


def scale_on(config: LoraConfig, layer: str) -> float:
    """What B A is multiplied by on the layer of this name."""
    dials: Dials = {"rank": config.rank_of(layer), "alpha": config.alpha_of(layer)}
    return _scale({**dials, "rslora": config.rslora})


class Lora:
    """The kind `lora`."""

    config = LoraConfig
    method = Method(
        LoraConfig.kind,
        "LoRA",
        (
            Dial("rank", "rank", letter="r", is_axis=True, counts=True),
            Dial("alpha", "alpha", letter="a", times_learning_rate=True),
            Dial("rslora", "rsLoRA"),
            Dial("dora", "DoRA", counts=True),
        ),
        _scale,
    )
    unmergeable: str | None = None
    packed: tuple[str, ...] = (
        "rank", "alpha", "alpha_pattern", "dropout", "rslora", "init", "init_samples",
        "b_rate_ratio",
    )  # fmt: skip

    def peft(self, config: LoraConfig, every: ModelParts, chosen: list[LinearShape]) -> Any:
        """PEFT's own files hold whole alphas as integers."""
        from peft import EvaConfig
        from peft import LoraConfig as PeftLoraConfig
        from peft.tuners.lora.config import CordaConfig

        # With another rho ranks would go from layer to layer, and be known after reading only.
        eva = EvaConfig(rho=1.0) if config.init == EVA else None
        method = CORDA.get(config.init)
        corda = CordaConfig(corda_method=method, verbose=False) if method else None
        init = "corda" if method else config.init
        whole = float(config.alpha).is_integer()
        return PeftLoraConfig(
            r=config.rank,
            lora_alpha=int(config.alpha) if whole else config.alpha,
            rank_pattern=dict(config.rank_pattern),
            alpha_pattern=dict(config.alpha_pattern),
            lora_dropout=config.dropout,
            target_modules=peft_targets([*every.linear, *(every.vectors or [])], chosen)
            if config.trained_ends()
            else peft_targets(every.linear, chosen),
            use_rslora=config.rslora,
            use_dora=config.dora,
            init_lora_weights=True if config.init == KAIMING else init,
            eva_config=eva,
            corda_config=corda,
            bias="none",
            task_type="CAUSAL_LM",
        )

    def parameters(self, config: LoraConfig, shapes: Sequence[LinearShape]) -> int:
        """rank (in + out) a layer; DoRA one more an output."""
        return sum(lora_parameters([s], config.rank_of(s.name), config.dora) for s in shapes)

    def unrounded(self, config: LoraConfig) -> str | None:
        """Not without a stack, and not with inputs of its own."""
        if config.trained_ends():
            return "beside head and embeddings its layers compute beside the base's"
        if config.dropout > 0:
            return "with lora.dropout the adapter reads other inputs than a merged weight would"
        return None

    def reads_weights(self, config: LoraConfig) -> str | None:
        """DoRA takes the norm of the sum of weight and product."""
        return "dora" if config.dora else None

    def rate(self, config: LoraConfig, name: str, parameter: nn.Parameter) -> Rate:
        """LoRA+'s, as the stack has it."""
        return (
            PLAIN if "lora_A" in name or "lora_embedding_A" in name else Rate(config.b_rate_ratio)
        )

    def begin(
        self, config: LoraConfig, model: PeftModel, seed: int, samples: FirstSamples | None
    ) -> None:
        """Let EVA read; of all others PEFT has drawn A and B."""
        if config.init == EVA:
            from lorascope.adapters.lora.reading import begin_with_eva

            assert samples is not None, "lora.init=eva reads samples"
            begin_with_eva(config, model, samples)

    def reading_bytes(self, config: LoraConfig, shapes: Sequence[LinearShape]) -> int:
        """EVA's directions twice, and sums in FP64; CorDA's covariances."""
        if config.init in CORDA:
            return sum(FLOAT32_BYTES * shape.in_features**2 for shape in shapes)
        if config.init != EVA:
            return 0
        return sum(
            (2 * FLOAT32_BYTES * config.rank_of(s.name) + 2 * FLOAT64_BYTES) * s.in_features
            for s in shapes
        )

    def stack(
        self,
        configs: Sequence[LoraConfig],
        shapes: Sequence[LinearShape],
        device: torch.device | str,
        beside: int = 0,
    ) -> LoraStack | None:
        """Ranks are padded, so that neighbours share a matrix. The head gets rows of several
        trials, and embeddings get no rows: PEFT's own layers train both."""
        if configs[0].trained_ends():
            return None
        from lorascope.adapters.lora.stack import LoraStack

        return LoraStack(configs, shapes, device, beside)


LORA = Lora()
