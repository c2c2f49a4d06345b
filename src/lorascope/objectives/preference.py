"""Preferences: of two replies to one prompt, the chosen one becomes likelier than the rejected one.

Losses of the same two log-probabilities:

- dpo: Rafailov et al. 2023, arXiv 2305.18290, eq. 7; with label smoothing Mitchell 2023,
  "A note on DPO with noisy preferences", eq. 3
- ipo: Azar et al. 2023, arXiv 2310.12036, eq. 17, log-probabilities a token, as its authors have it
- orpo: Hong et al. 2024, arXiv 2403.07691, eq. 6, which needs no reference
- simpo: Meng et al. 2024, arXiv 2405.14734, eq. 6, without a reference too; smoothed as dpo is

The reference is the bare base. What it gives the replies is the same for all trials of a pack, and
computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from lorascope.config import TrainConfig
from lorascope.config.objectives import REFERENCED
from lorascope.data.rows import PreparedRow
from lorascope.data.tokenization import IGNORED_LABEL
from lorascope.errors import DataError
from lorascope.objectives.completion import Completion, last_completion, token_losses
from lorascope.objectives.evaluation import evaluation_mode, forward_of, samples_at_once
from lorascope.objectives.kinds import (
    Forward,
    Losses,
    Objective,
    Sample,
    TokenBatch,
    longest_tokens,
)

LEAST_NATS = 1e-6
"""Least mean loss of a reply, for its odds: those of a certain reply are infinite."""


@dataclass(frozen=True)
class Replies:
    """Log-probabilities of the chosen or the rejected replies of one trial's batch, in nats."""

    policy: Tensor
    """[pairs]: of all tokens of a reply, summed in FP32."""
    reference: Tensor
    """[pairs]: what the bare base gives them; zeros without a reference."""
    tokens: Tensor
    """[pairs]: tokens of a reply, end-of-text included."""

    @property
    def gain(self) -> Tensor:
        """[pairs]: how much likelier a reply has become."""
        return self.policy - self.reference

    @property
    def mean(self) -> Tensor:
        """[pairs]: log-probability a token."""
        return self.policy / self.tokens


PairLoss = Callable[[Replies, Replies, TrainConfig], Tensor]
"""(chosen, rejected, settings) -> losses [pairs]."""


def dpo(chosen: Replies, rejected: Replies, train: TrainConfig) -> Tensor:
    return _smoothed(train.beta * (chosen.gain - rejected.gain), train)


def simpo(chosen: Replies, rejected: Replies, train: TrainConfig) -> Tensor:
    return _smoothed(train.beta * (chosen.mean - rejected.mean) - train.target_margin, train)


def _smoothed(margin: Tensor, train: TrainConfig) -> Tensor:
    losses = -functional.logsigmoid(margin)
    if not train.label_smoothing:
        return losses
    flipped = -functional.logsigmoid(-margin)
    return (1 - train.label_smoothing) * losses + train.label_smoothing * flipped


def ipo(chosen: Replies, rejected: Replies, train: TrainConfig) -> Tensor:
    gain = chosen.gain / chosen.tokens - rejected.gain / rejected.tokens
    return (gain - 1 / (2 * train.beta)) ** 2


def orpo(chosen: Replies, rejected: Replies, train: TrainConfig) -> Tensor:
    ratio = _log_odds(chosen.mean) - _log_odds(rejected.mean)
    return -chosen.mean - train.beta * functional.logsigmoid(ratio)


def _log_odds(mean: Tensor) -> Tensor:
    """log(p / (1 - p)) of p = exp(mean)."""
    certain = mean.clamp(max=-LEAST_NATS)
    return certain - torch.log(-torch.expm1(certain))


@dataclass(frozen=True)
class PairKind:
    """One of the losses, and what it reads."""

    loss: PairLoss
    by_token: bool = False
    """Whether its rewards are log-probabilities a token, and not gains on a reference."""


LOSSES = {
    "dpo": PairKind(dpo),
    "ipo": PairKind(ipo),
    "orpo": PairKind(orpo, by_token=True),
    "simpo": PairKind(simpo, by_token=True),
}


class Preference:
    """A loss of pairs, in nats a pair (ipo: nats squared), the mean over pairs.

    A sample has the ids and labels of the chosen reply, those of the rejected one, both with their
    prompt, and what the reference gives the tokens of both. In a batch each trial's chosen replies
    stand before its rejected ones.

    Args:
        trains: settings of each trial, of which beta and label_smoothing may differ.
    """

    sequences = 2

    def __init__(self, trains: Sequence[TrainConfig]) -> None:
        first = trains[0]
        self._trains, self._kind = list(trains), LOSSES[first.objective]
        self.has_reference = first.objective in REFERENCED and not first.reference_free

    def samples(
        self, rows: Sequence[PreparedRow], tokenizer: Any, train_on_prompt: bool
    ) -> list[Sample]:
        """The two last replies of each row; earlier ones are read, not learnt."""
        return [_pair(row, tokenizer) for row in rows]

    def validation_samples(self, rows: Sequence[PreparedRow], tokenizer: Any) -> list[Sample]:
        if not rows:
            raise DataError("No rows to measure a loss on. Check the split's row limits.")
        samples = [_pair(row, tokenizer) for row in rows]
        return sorted(samples, key=lambda sample: -longest_tokens([sample]))

    def with_reference(
        self, samples: Sequence[Sample], model: Any, batch_size: int
    ) -> list[Sample]:
        """The samples with the base's log-probability of each token, in FP32."""
        if not self.has_reference:
            return list(samples)
        device, forward = next(model.parameters()).device, forward_of(model)
        found: dict[int, Sample] = {}
        # Neighbours in length, so that little is padded.
        order = sorted(range(len(samples)), key=lambda place: -longest_tokens([samples[place]]))
        with evaluation_mode(model):
            while order:
                size = samples_at_once(batch_size, 2 * longest_tokens([samples[order[0]]]))
                places, order = order[:size], order[size:]
                together = [samples[place] for place in places]
                batch = self.collate(together, 1, 0).to(device)
                chosen, rejected = (-token_losses(forward, batch)).cpu().chunk(2)
                for place, sample, one, other in zip(
                    places, together, chosen, rejected, strict=True
                ):
                    own = one[: len(sample[0])].clone(), other[: len(sample[2])].clone()
                    found[place] = (*sample, *own)
        return [found[place] for place in range(len(samples))]

    def collate(
        self, samples: Sequence[Sample], trials: int, pad_token_id: int, longest: int = 0
    ) -> TokenBatch:
        """A batch of samples that stand trial after trial; each pair weighs 1."""
        each = len(samples) // trials
        own = [samples[start : start + each] for start in range(0, len(samples), each)]
        sides = [(side, trial) for trial in own for side in (0, 1)]
        sequences = [sample[2 * side : 2 * side + 2] for side, trial in sides for sample in trial]
        batch = Completion().collate(sequences, trials, pad_token_id, longest)
        reference = None
        if len(samples[0]) > 4:
            values = [torch.as_tensor(s[4 + side]) for side, trial in sides for s in trial]
            padded = pad_sequence(values, batch_first=True)
            reference = functional.pad(padded, (0, batch.shape[1] - padded.shape[1]))
        weights = torch.full((trials,), each)
        return replace(batch, weights=weights, reference=reference)

    def losses(self, forward: Forward, batch: TokenBatch) -> Losses:
        tokens = -token_losses(forward, batch)
        summed, metrics = [], []
        for train, own in zip(self._trains, self._each_trial(tokens, batch), strict=True):
            chosen, rejected, divergence = own
            summed.append(self._kind.loss(chosen, rejected, train).sum())
            with torch.no_grad():
                metrics.append(self._metrics(chosen, rejected, train) | divergence)
        names = metrics[0] if metrics else {}
        return Losses(
            torch.stack(summed),
            {name: torch.stack([own[name] for own in metrics]) for name in names},
        )

    def as_served(self) -> Objective:
        """The loss of the chosen replies, in nats a token."""
        return Completion()

    def validation_loss(self, forward: Forward, batch: TokenBatch) -> Tensor:
        tokens = -token_losses(forward, batch)
        ((chosen, rejected, _),) = self._each_trial(tokens, batch)
        losses = self._kind.loss(chosen, rejected, self._trains[0])
        return losses.sum(dtype=torch.float64)

    def _each_trial(
        self, tokens: Tensor, batch: TokenBatch
    ) -> list[tuple[Replies, Replies, dict[str, Tensor]]]:
        """Chosen and rejected replies of each trial, and its distance from the reference.

        Args:
            tokens: [rows, longest]: log-probabilities of the labels behind each position.
        """
        trials, longest = len(batch.weights), batch.shape[1]
        reference = torch.zeros_like(tokens) if batch.reference is None else batch.reference
        counts = (batch.labels[:, 1:] != IGNORED_LABEL).sum(1)
        # One sum a trial: a sum over an axis may round in another order for another number of them.
        found = []
        for policy, base, count in zip(
            tokens.view(trials, -1, longest).unbind(),
            reference.view(trials, -1, longest).unbind(),
            counts.view(trials, -1).unbind(),
            strict=True,
        ):
            sums = zip(policy.sum(1).chunk(2), base.sum(1).chunk(2), count.chunk(2), strict=True)
            chosen, rejected = (Replies(*own) for own in sums)
            kl = _divergence(policy.detach(), base, count) if self.has_reference else {}
            found.append((chosen, rejected, kl))
        return found

    def _metrics(self, chosen: Replies, rejected: Replies, train: TrainConfig) -> dict[str, Tensor]:
        """What TRL logs, under its names, summed over pairs."""
        by_token = self._kind.by_token
        rewards = [train.beta * (own.mean if by_token else own.gain) for own in (chosen, rejected)]
        margins = rewards[0] - rewards[1]
        return {
            "rewards/chosen": rewards[0].sum(),
            "rewards/rejected": rewards[1].sum(),
            "rewards/margins": margins.sum(),
            "rewards/accuracies": (margins > 0).float().sum(),
            "logps/chosen": chosen.policy.sum(),
            "logps/rejected": rejected.policy.sum(),
        }


def _divergence(policy: Tensor, reference: Tensor, counts: Tensor) -> dict[str, Tensor]:
    """The estimate (log policy - log reference)^2 / 2 of the KL divergence a token (Schulman 2020,
    "Approximating KL divergence", k2), summed over pairs. The tokens are the pairs', not drawn from
    the policy: it tells how far training moved there. The other estimate that is never negative,
    r - 1 - log r, is no use here: a rejected token that lost 20 nats would count as e^20.

    Args:
        policy, reference: [rows, longest], zeros where no label is.
    """
    each = ((policy - reference) ** 2 / 2).sum(1)
    return {"kl": (each / counts).sum() / 2}


def _pair(row: PreparedRow, tokenizer: Any) -> Sample:
    if row.rejected is None:
        raise DataError(
            f"item {row.item}: no rejected reply, so that there is no preference to learn. Prepare "
            "the data with a data.format of pairs."
        )
    return *last_completion(row, tokenizer), *last_completion(row.with_rejected, tokenizer)
