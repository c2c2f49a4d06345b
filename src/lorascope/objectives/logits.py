"""Logits at chosen positions: the layers run first, the head where an objective asks for it.

With a large vocabulary the logits of all positions are the largest tensor of a step. A completion
needs those before its own tokens only, and of several trials one part after the other will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.utils.generic import ModelOutput

from lorascope.bases.heads import gives_classes
from lorascope.objectives.class_logits import class_logits
from lorascope.objectives.kinds import Places, TrialRows
from lorascope.objectives.masks import made_by, unread_masks, without_mask
from lorascope.objectives.padding_free import LENGTHS

LOGITS_AT_ONCE = 2**26
"""Most logits that are there at once: 270 MB in FP32, of which a step holds up to four copies."""

FEWEST_ROWS = 16
"""Rows that a head gets at least, the last one repeated: a CPU's products of one to three rows
(MKL, FP32) round otherwise than those of more, which all round alike."""

Head: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Logits:
    """Logits at the places of a batch, each made when it is asked for."""

    rows: Tensor
    """[places, features]: what the head reads; the logits themselves without a head."""
    head: Head | None
    """[places, features] -> [places, vocabulary]"""
    sizes: Sequence[int]
    """Places of each part: of one trial, and no more than LOGITS_AT_ONCE; one part where all logits
    are no more than that."""
    draws: bool = False
    """Whether the head has dropout, which must draw the same when it is run again."""

    def all(self) -> Tensor:
        """Logits [places, vocabulary], at once."""
        return self.rows if self.head is None else self.head(self.rows)

    def each(self, function: Callable[..., Tensor], *others: Tensor) -> Tensor:
        """A number for each place [places].

        Args:
            function: makes it of logits [n, vocabulary] and of `others` at the same places. Several
                parts are made again in the backward pass, so that no two are there at once.
            others: [places]
        """
        every = (self.rows, *others)
        parts = zip(*(torch.split(tensor, list(self.sizes)) for tensor in every), strict=True)

        def value(rows: Tensor, *own: Tensor) -> Tensor:
            return function(rows if self.head is None else self.head(rows), *own)

        if len(self.sizes) == 1 or not (torch.is_grad_enabled() and self.rows.requires_grad):
            return torch.cat([value(*part) for part in parts])
        again = partial(checkpoint, value, use_reentrant=False, preserve_rng_state=self.draws)
        return torch.cat([again(*part) for part in parts])


def forward_at(
    model: Any,
    ids: Tensor,
    mask: Tensor | None,
    places: Places,
    token_types: Tensor | None = None,
    rows: TrialRows | None = None,
) -> Logits:
    """The model's forward pass, with a head for `places` alone. A model with a head for classes
    gives those of the samples in which the places lie.

    Args:
        ids: [samples, longest], padded on the right.
        mask: [samples, longest], 1 where a token is; None where nothing says it, as causal
            attention needs none.
        token_types: as in `TokenBatch`, for models with a head for classes.
        rows: the batch without its padding, where it is computed so.

    A model with code of its own may make logits in any way: it makes all of them, and those at
    `places` are kept.
    """
    if gives_classes(model.config):
        classes = class_logits(model, ids, mask, places, token_types)
        return Logits(classes, None, [len(classes)])
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    if rows is not None:
        ids_of_rows = {"input_ids": rows.input_ids, "position_ids": rows.position_ids}
        inputs = {**ids_of_rows, LENGTHS: rows.lengths, "use_cache": False}
        places = rows.places(places, ids.shape[1])
    sizes = part_sizes(places.counts, int(model.config.get_text_config().vocab_size))
    index = places.index if len(sizes) == 1 else places.index[:0]
    outputs: list[ModelOutput] = []

    def at_places(body: nn.Module, args: Any, output: Any) -> ModelOutput | None:
        if getattr(output, "last_hidden_state", None) is None:
            return None
        outputs.append(output)
        return _with_states(output, _enough(_rows(output.last_hidden_state, index))[None])

    name = _body_name(model)
    hooked = nullcontext() if name is None else _hooked(getattr(model, name), at_places)
    masks = unread_masks(ids.device.type) if rows is None else made_by("sdpa", without_mask)
    with masks, hooked:
        logits: Tensor = model(**inputs).logits
    if name is None or not outputs:
        return Logits(_rows(logits, places.index), None, sizes)
    if len(sizes) == 1:
        return Logits(logits[0, : len(index)], None, sizes)
    states = _rows(outputs[0].last_hidden_state, places.index)
    head = _head(model, name, _with_states(outputs[0], states[None, :0]), inputs)
    return Logits(states, head, sizes, _draws(model.get_output_embeddings()))


def _draws(head: nn.Module) -> bool:
    return any(isinstance(own, nn.Dropout) and own.p > 0 for own in head.modules())


@contextmanager
def _hooked(module: nn.Module, hook: Callable[..., ModelOutput | None]) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def part_sizes(counts: Sequence[int], vocabulary: int) -> list[int]:
    """Places of each part, `counts` being those of each trial."""
    most = max(1, LOGITS_AT_ONCE // vocabulary)
    if sum(counts) <= most:
        return [sum(counts)]
    return [min(most, count - start) for count in counts for start in range(0, count, most)]


def _enough(rows: Tensor) -> Tensor:
    missing = FEWEST_ROWS - len(rows) if len(rows) else 0
    return torch.cat([rows, rows[-1:].expand(missing, -1)]) if missing > 0 else rows


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """[samples, longest, features] -> [places, features]."""
    return values.flatten(0, 1).index_select(0, index)


def _with_states(output: ModelOutput, states: Tensor) -> ModelOutput:
    return type(output)(**{**output, "last_hidden_state": states})


def _body_name(model: Any) -> str | None:
    """The name of all layers together, beside which a model has a head at most; None where it may
    make its logits in another way."""
    name = str(model.base_model_prefix)
    body, head = getattr(model, name, None), model.get_output_embeddings()
    if not type(model).__module__.startswith("transformers.") or not isinstance(body, nn.Module):
        return None
    beside = [own for own in model.children() if own is not body and own is not head]
    return None if any(True for own in beside for _ in own.parameters()) else name


def _head(model: Any, name: str, output: ModelOutput, inputs: dict[str, Any]) -> Head:
    """What the model does behind its layers, caps and scales of logits included: its own forward
    pass, in which the layers are not computed but answer with given states."""

    def head(states: Tensor) -> Tensor:
        body, whole = copy(getattr(model, name)), copy(model)
        body.forward = lambda *_, **__: _with_states(output, _enough(states)[None])
        whole._modules = {**model._modules, name: body}
        logits: Tensor = whole(**inputs).logits
        return logits[0, : len(states)]

    return head
