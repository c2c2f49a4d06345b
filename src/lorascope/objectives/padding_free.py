"""Batches that are computed without their padding: each trial's samples stand one behind the other.

Embeddings, norms and linear layers take each position by itself. Attention alone has to know where
a sample ends, and computes one sample after the other; position ids begin anew with each. What
comes out is what padded samples give, but for rounding.

Instructions are of very different lengths: of rows of 100 to 500 tokens, eight at a time, a third
of all positions is padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lorascope.objectives.kinds import TokenBatch, TrialRows

ARCHITECTURES = frozenset(
    {
        "cohere",
        "gemma",
        "gemma3_text",
        "gpt2",
        "gpt_neox",
        "granite",
        "llama",
        "mistral",
        "olmo",
        "olmo2",
        "opt",
        "phi3",
        "qwen2",
        "qwen3",
        "smollm3",
        "starcoder2",
    }
)
"""Model types (transformers 5.23) whose layers pass on what attention is told, held against padded
batches in the tests."""
LEAST_MEAN_TOKENS = 64
"""Of shorter samples the calls of attention, one each, take longer than padding."""
LEAST_PADDING = 0.1
"""Share of a batch's positions that has to be spared, less of which is not worth another way: what
attention gives for each sample and what it is put together to are both kept for a backward pass."""
LONG_MEAN_TOKENS = 256
"""Of longer samples an evaluation spares any padding, and all of it: with a mask attention computes
the whole square, of which causal attention needs half."""
LENGTHS = "sample_lengths"
"""Name under which a model's forward pass, and so attention, gets the lengths [trials][samples]."""


def can_do_without(model: Any) -> bool:
    """Whether the base, with whatever stands beside its layers, gives without padding what it gives
    with it: a known architecture, with its own decoder and attention."""
    config = model.config.get_text_config()
    if config.model_type not in ARCHITECTURES or config._attn_implementation != "sdpa":
        return False
    if next(model.parameters()).device.type not in ("cpu", "meta"):
        return False
    body: nn.Module = getattr(model, model.base_model_prefix)
    attention = [own for own in body.modules() if "Attention" in type(own).__name__]
    return all(type(own).__module__.startswith("transformers.") for own in (body, *attention))


def pays(
    config: Any,
    lengths: Sequence[int],
    trials: int = 1,
    padded_to: int | None = None,
    trains: bool = True,
) -> bool:
    """Whether a batch of samples of these lengths, trial after trial, is better computed without
    its padding; where a layer sees a window alone, the samples have to fit into it.

    Args:
        padded_to: tokens of each padded sample; None is the longest's.
        trains: whether a backward pass follows.
    """
    padded, mean = padded_to or max(lengths), sum(lengths) / len(lengths)
    # Positions a sample: a trial's row is as long as that of the trial with the most tokens.
    computed = trials * max(map(sum, _by_trial(lengths, trials))) / len(lengths)
    window = getattr(config.get_text_config(), "sliding_window", None)
    any_pays = mean >= LONG_MEAN_TOKENS and not trains
    return (
        mean >= LEAST_MEAN_TOKENS
        and (computed < padded if any_pays else computed <= (1 - LEAST_PADDING) * padded)
        and (window is None or window >= max(lengths))
    )


def without_padding(batch: TokenBatch, config: Any, trains: bool = True) -> TokenBatch:
    """The batch with rows beside it, where a model of this config that `can_do_without` padding is
    better off so; else the batch as it is."""
    trials, padded_to = len(batch.places.counts), batch.input_ids.shape[1]
    if not batch.lengths or not pays(config, batch.lengths, trials, padded_to, trains):
        return batch
    return in_rows(batch)


def in_rows(batch: TokenBatch) -> TokenBatch:
    """The batch with rows beside it."""
    trials = len(batch.places.counts)
    return replace(batch, rows=rows_of(batch.input_ids, batch.lengths, trials))


def rows_of(ids: Tensor, lengths: Sequence[int], trials: int) -> TrialRows:
    """The rows of a padded batch.

    Args:
        ids: [trials x samples, longest], padded on the right.
        lengths: tokens of each sample.
    """
    _let_attention_know()
    samples, longest = len(lengths) // trials, ids.shape[1]
    by_trial = _by_trial(lengths, trials)
    tokens = max(sum(own) for own in by_trial)
    starts, sources, positions = [], [], []
    for trial, own in enumerate(by_trial):
        starts += [trial * tokens + start for start in accumulate(own[:-1], initial=0)]
        for sample, length in enumerate(own):
            within = torch.arange(length)
            sources.append((trial * samples + sample) * longest + within)
            positions.append(within)
        # Of padding the batch has enough: any token will do, as nothing reads what becomes of it.
        missing = torch.zeros(tokens - sum(own), dtype=torch.long)
        sources.append(missing)
        positions.append(missing)
    source = torch.cat(sources).to(ids.device)
    return TrialRows(
        input_ids=ids.flatten().index_select(0, source).view(trials, tokens),
        position_ids=torch.cat(positions).to(ids.device).view(trials, tokens),
        lengths=by_trial,
        starts=torch.tensor(starts, device=ids.device),
    )


def _by_trial(lengths: Sequence[int], trials: int) -> list[list[int]]:
    samples = len(lengths) // trials
    return [list(lengths[t * samples : (t + 1) * samples]) for t in range(trials)]


def _let_attention_know() -> None:
    """From now on transformers' attention computes samples one after the other where it is told
    their lengths. A layer that is run again in the backward pass is told them as it was before."""
    ALL_ATTENTION_FUNCTIONS["sdpa"] = attention_by_sample


def attention_by_sample(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' own attention, of each sample by itself where lengths are given.

    query, key, value [trials, heads, tokens, features] -> [trials, tokens, heads, features]
    """
    lengths: list[list[int]] | None = kwargs.pop(LENGTHS, None)
    if lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)  # type: ignore[no-any-return]

    def attended(own: list[int], *states: Tensor) -> Tensor:
        padding = query.shape[2] - sum(own)
        sizes = [*own, padding] if padding else own
        parts = [
            sdpa_attention_forward(module, *sample, None, **kwargs)[0]
            for sample in list(_split(states, sizes, 2))[: len(own)]
        ]
        if padding:
            first = parts[0]
            parts.append(first.new_zeros((len(first), padding, *first.shape[2:])))
        return torch.cat(parts, 1)

    states = (query, key, value)
    if all(own == lengths[0] for own in lengths):
        return attended(lengths[0], *states), None
    trials = zip(lengths, _split(states, [1] * len(lengths), 0), strict=True)
    return torch.cat([attended(own, *trial) for own, trial in trials]), None


def _split(states: tuple[Tensor, ...], sizes: list[int], dim: int) -> Iterator[tuple[Tensor, ...]]:
    """Parts of query, key and value. Slices would be added up in the backward pass, each as large
    as the whole; these are put together."""
    return zip(*(torch.split(state, sizes, dim) for state in states), strict=True)
