"""Attention masks of batches that are padded on the right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    flash_attention_mask,
    sdpa_mask,
)

MAKERS: dict[str, Callable[..., Any]] = {
    "sdpa": sdpa_mask, "flash_attention_2": flash_attention_mask,
}  # fmt: skip
"""Makers of masks that look whether anything is padded, by attention."""


@contextmanager
def unread_masks(device_kind: str) -> Iterator[None]:
    """Causal attention without a mask for padding, on all devices but a CPU.

    No token attends to what follows it, and so none to padding on its right. transformers (5.23)
    makes a mask for it nevertheless, and to learn whether it has to it reads the batch's: the host
    waits for a GPU, and a mask keeps flash attention and grouped heads away. A CPU waits for
    nothing, and keeps the bits that it has with the mask.
    """
    with ExitStack() as stack:
        if device_kind != "cpu":
            for attention, make in MAKERS.items():
                stack.enter_context(made_by(attention, _without_padding(make)))
        yield


@contextmanager
def made_by(attention: str, make: Callable[..., Any]) -> Iterator[None]:
    """transformers' masks of one kind of attention, made by `make`."""
    before = ALL_MASK_ATTENTION_FUNCTIONS[attention]
    ALL_MASK_ATTENTION_FUNCTIONS[attention] = make
    try:
        yield
    finally:
        ALL_MASK_ATTENTION_FUNCTIONS[attention] = before


def without_mask(*_: Any, **__: Any) -> None:
    """A maker of none."""


def _without_padding(make: Callable[..., Any]) -> Callable[..., Any]:
    def made(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
        # Where the skip is forbidden, a token may attend to what follows it.
        is_causal = kwargs.get("allow_is_causal_skip", True)
        return make(*args, attention_mask=None if is_causal else attention_mask, **kwargs)

    return made
