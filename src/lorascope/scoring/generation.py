"""Text that a model writes to one prompt: greedy, or drawn from a seed; the same for examples that
are kept and for whoever asks on a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lorascope.data.tokenization import pad_token_id
from lorascope.errors import ModelError
from lorascope.objectives.evaluation import evaluation_mode
from lorascope.scoring.lm_eval_model import encode, greedy_generation, stopping_at


@dataclass(frozen=True)
class Writing:
    """How a model writes."""

    longest_tokens: int
    temperature: float = 0.0
    """0 takes the likeliest token each time; more draws, from all tokens."""
    seed: int = 0
    """Of each prompt's draws."""


@dataclass(frozen=True)
class Written:
    """What it wrote."""

    text: str
    """Without special tokens and outer blanks."""
    tokens: int
    """The one that ended it included."""
    ended: bool
    """Whether it ended by itself."""


def require_writer(model: Any, name: str) -> None:
    """Raise ModelError where a model writes no text: an encoder, or a head that gives classes."""
    if not writes(model):
        raise ModelError(
            f"{name}: {type(model).__name__} gives no next token, so it writes no text. "
            "`lorascope evaluate` scores it."
        )


def writes(model: Any) -> bool:
    """Whether a model gives a next token after a prompt."""
    return bool(getattr(model, "can_generate", lambda: False)())


def write(
    model: Any, tokenizer: Any, prompt: str, how: Writing, context_tokens: int, streamer: Any = None
) -> Written:
    """What `model` writes behind `prompt`, a rendered one: its special tokens stand in it, and none
    are added. Equal arguments give equal text, on one machine. Penalties and sampling that the
    model's generation config asks for are off.

    Args:
        context_tokens: tokens that the model reads at most, prompt and answer together.
        streamer: of transformers, given each token as it comes.

    Raises:
        ModelError: the prompt leaves no room for an answer.
    """
    (ids,) = encode(tokenizer, [prompt])
    room = min(how.longest_tokens, context_tokens - len(ids))
    if room < 1 or not ids:
        told = f"{len(ids)} tokens, and the model reads {context_tokens}" if ids else "no tokens"
        raise ModelError(f"the prompt has {told}: there is no room for an answer. Shorten it.")
    device = model.get_input_embeddings().weight.device
    asked = torch.tensor([ids], device=device)
    drawing = {"do_sample": True, "temperature": how.temperature, "top_k": 0, "top_p": 1.0}
    with (
        evaluation_mode(model),
        greedy_generation(model, tokenizer),
        torch.random.fork_rng(enabled=how.temperature > 0),
    ):
        if how.temperature > 0:
            torch.manual_seed(how.seed)
        answered = model.generate(
            input_ids=asked,
            attention_mask=torch.ones_like(asked),
            max_new_tokens=room,
            pad_token_id=pad_token_id(tokenizer, model.get_input_embeddings().weight.shape[0]),
            streamer=streamer,
            **(drawing if how.temperature > 0 else {"do_sample": False}),
        )
        ends = stopping_at(model, tokenizer)
    new = answered[0, len(ids) :].tolist()
    text = str(tokenizer.decode(new, skip_special_tokens=True)).strip()
    return Written(text, len(new), bool(new) and new[-1] in ends)
