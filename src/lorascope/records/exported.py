"""What was found when exported files were loaded again. It stands in their model card."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AdapterCheck:
    """What plain PEFT makes of the exported files, on the base as the trial was scored on it."""

    items: int
    """Validation items, each by itself."""
    largest_logit_difference: float
    """Against the trial's own logits where a completion's tokens, or classes, are predicted."""
    loss_nats: float
    """Of the trial, mean over these items."""
    scored_loss_nats: float | None
    """The same by its scores; None where it has none apart on its base."""


@dataclass(frozen=True)
class GgufCheck:
    """What a GGUF file holds, beside the merged model that it was made from."""

    file: str
    architecture: str
    """llama.cpp's name for it."""
    tensors: int
    """Of the file."""
    compared: int | None
    """Tensors of the merged model that the file has bit for bit; None where transformers does not
    read this architecture's GGUF."""
    has_chat_template: bool
    """Whether it has one, which is the tokenizer's."""
    end_token_id: int
    """At which llama.cpp stops: one that the merged model stops at."""
    adds_begin_token: bool | None
    """Whether llama.cpp puts a token before each prompt; None where the file does not say so."""
