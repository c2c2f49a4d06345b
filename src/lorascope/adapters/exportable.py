"""In which form an adapter can leave lorascope: with PEFT alone, or as weights of the base."""

from __future__ import annotations

from lorascope.adapters.kinds import unmerged
from lorascope.errors import ConfigError

ADAPTER, MERGED, GGUF = "adapter", "merged", "gguf"
FORMS = (ADAPTER, MERGED, GGUF)


def require_exportable(form: str, kind: str, peft_type: str, classes: bool) -> None:
    """Raise ConfigError where an adapter of the kind `kind` has no place in `form`.

    Args:
        peft_type: what adapter_config.json calls the method.
        classes: whether the base has a head for classes.
    """
    lone, fixed = _unknown_to_peft(peft_type), unmerged(kind)
    if form == ADAPTER:
        problem = lone
        remedy = "form=merged puts it into the base's weights."
        other = fixed
    else:
        problem = fixed
        remedy = "form=adapter writes it for PEFT's PeftModel.from_pretrained."
        other = lone
    if problem is not None:
        if other is not None:
            remedy = (
                "No other form has a place for it either: it is served by lorascope (`lorascope "
                "generate`, `chat`), or train another method."
            )
        raise ConfigError("form", form, problem, remedy)
    if form == GGUF and classes:
        raise ConfigError(
            "form", form, "llama.cpp converts a head for classes of few architectures, and "
            "nothing here could compare it",
            "form=merged writes a folder that transformers loads with it.",
        )  # fmt: skip


def _unknown_to_peft(peft_type: str) -> str | None:
    from peft import PeftType

    if peft_type in {known.value for known in PeftType}:
        return None
    return f"PEFT has no method {peft_type}: lorascope adds it, and nothing else would load it"
