"""Which ways to choose codes there is a library for, here."""

from __future__ import annotations

from importlib.util import find_spec

from lorascope.config import QuantConfig, Rounding
from lorascope.errors import ConfigError


def require_library(quant: QuantConfig) -> None:
    """Raise ConfigError where no library that is installed chooses codes as `quant` says."""
    if quant.rounding is Rounding.gptq:
        raise ConfigError(
            "quant.rounding", quant.rounding.value,
            "no library for it runs here: GPTQModel 7.7 needs torch 2.14, which bitsandbytes and "
            "torchao are not tried with, and torchao 0.18 has it for CUDA alone, by way of mslk",
            "Use auto_round or awq: serve=int4_autoround or uint4_awq.",
        )  # fmt: skip
    if quant.rounding is not Rounding.nearest and find_spec("auto_round") is None:
        raise ConfigError(
            "quant.rounding", quant.rounding.value, "auto-round, which chooses codes so, is not "
            "installed", "Run `pip install 'lorascope[auto-round]'`, or leave this form out.",
        )  # fmt: skip
