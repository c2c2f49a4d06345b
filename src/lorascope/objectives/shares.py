"""A micro-batch that several processes divide: each computes its own samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from lorascope.machine.ranks import Ranks
from lorascope.objectives.kinds import Objective, Sample, TokenBatch, longest_tokens


def own_batch(
    objective: Objective, trials: Sequence[Sequence[Sample]], pad_token_id: int, ranks: Ranks
) -> TokenBatch:
    """This process's part of a micro-batch, padded as the whole would be. An idle one's weighs
    nothing.

    Args:
        trials: the samples of each trial, equally many.
    """
    share = ranks.share(len(trials[0]))
    own = [trial[share.first : share.first + share.count] for trial in trials]
    longest = longest_tokens(sample for trial in trials for sample in trial)
    together = [sample for trial in own for sample in trial]
    batch = replace(objective.collate(together, len(trials), pad_token_id, longest), share=share)
    if not share.idle:
        return batch
    return replace(batch, weights=torch.zeros_like(batch.weights), tokens=[0] * len(trials))
