"""Logits of classes: one row of them a sample, whatever it is batched with."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lorascope.objectives.kinds import Places
from lorascope.objectives.masks import unread_masks


def class_logits(
    model: Any, ids: Tensor, mask: Tensor | None, places: Places, token_types: Tensor | None
) -> Tensor:
    """Logits [places, classes] of the samples in which the places lie.

    An encoder reads a sample in both directions, so that the mask must hide its padding; its own
    head takes the first token's state. A decoder's head reads the state of the last token. Which
    that is transformers (5.23) asks the ids, and takes an earlier one where a text ends with the
    token that pads; here the mask says it.

    Args:
        ids: [samples, longest], padded on the right.
        mask: [samples, longest], 1 where a token is.
        token_types: as in `TokenBatch`.
    """
    samples = places.index // ids.shape[1]
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    if token_types is not None:
        inputs["token_type_ids"] = token_types
    with unread_masks(ids.device.type):
        if not hasattr(model, "score"):
            logits: Tensor = model(**inputs).logits
            return logits.index_select(0, samples)
        body = getattr(model, model.base_model_prefix)
        states = body(**inputs, use_cache=False).last_hidden_state
    rows = states.flatten(0, 1)
    last = samples.new_tensor(ids.shape[1] - 1) if mask is None else mask.sum(1)[samples] - 1
    scored: Tensor = model.score(rows.index_select(0, samples * ids.shape[1] + last))
    return scored
