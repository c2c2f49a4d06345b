"""The LoRA adapters of a pack on one layer: dropout, DoRA, and the product."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lorascope.adapters.lora.merging import add_merged_gradients, merged_weight
from lorascope.adapters.lora.product import AddAdapters, LayerStack, without_initial
from lorascope.adapters.stack import FrozenLayer, PackShape, RoundableLayer, step_seed
from lorascope.machine.devices import compute_type


class LoraLayer(RoundableLayer):
    """LoRA and DoRA of all trials of a pack on one layer of the base.

    x [trials, samples x tokens, in] -> base(x) + scale (x A^T) B^T, with A [trials, rank, in],
    B^T [trials, rank, out], scale [trials, 1, 1]; a stack holds trials of one padded rank.
    """

    squares: Tensor | None
    """DoRA: squared norms [out] of the frozen weight's rows, from the first step on."""

    def __init__(self, stacks: list[LayerStack], shape: PackShape, name: str) -> None:
        super().__init__()
        self._stacks, self._sizes = stacks, [len(stack.a) for stack in stacks]
        self._trained = [own for stack in stacks for own in stack.parameters()]
        rates = [rate for stack in stacks for rate in stack.dropouts]
        self._dropouts = rates if any(rates) else []
        self._shape, self._name = shape, name
        self.register_buffer("squares", None, persistent=False)
        for index, stack in enumerate(stacks):
            for part, parameter in zip("abm", stack.parameters(), strict=False):
                self.register_parameter(f"{part}{index}", parameter)
            for part, value in zip("ab", stack.initial or (), strict=False):
                self.register_buffer(f"initial_{part}{index}", value, persistent=False)

    def add(self, result: Tensor, x: Tensor, base: FrozenLayer) -> Tensor:
        if self._stacks[0].initial is not None:
            result = self._without_initial(result, x).view(result.shape)
        if self._stacks[0].magnitude is not None:
            return self._decomposed(x, result, base).view(result.shape)
        if self._dropouts:
            x = self._dropped(x.reshape(self._shape.trials, -1, x.shape[-1]), self._dropouts)
        added: Tensor = AddAdapters.apply(  # type: ignore[no-untyped-call]
            result, x, self._stacks, self._sizes, *self._trained
        )
        return added

    def moved(self, device: torch.device) -> LoraLayer:
        return LoraLayer([own.moved(device) for own in self._stacks], self._shape, self._name)

    def merged(self, trial: int, weight: Tensor) -> Tensor:
        return merged_weight(*self._place(trial), weight)

    def add_merged_gradients(
        self, trial: int, rows: Tensor, gradient: Tensor, weight: Tensor
    ) -> None:
        add_merged_gradients(*self._place(trial), rows, gradient, weight)

    def _place(self, trial: int) -> tuple[LayerStack, int]:
        """The stack that a trial of the pack is in, and its place there."""
        for stack, size in zip(self._stacks, self._sizes, strict=True):
            if trial < size:
                return stack, trial
            trial -= size
        raise IndexError(f"{self._name}: the pack has {self._shape.trials} trials")

    def _without_initial(self, out: Tensor, x: Tensor) -> Tensor:
        """out [trials, n, out] of the base's layer without what the adapters began with; rows of x
        without dropout, as the base has them."""
        trials = self._shape.trials
        rows = torch.split(x.reshape(trials, -1, x.shape[-1]), self._sizes)
        outs = torch.split(out.reshape(trials, -1, out.shape[-1]), self._sizes)
        parts = [
            without_initial(own_out, own_rows, stack)
            for own_out, own_rows, stack in zip(outs, rows, self._stacks, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _decomposed(self, x: Tensor, result: Tensor, base: FrozenLayer) -> Tensor:
        """DoRA of all trials -> [trials, n, out], with n = samples x tokens."""
        trials = self._shape.trials
        rows = torch.split(x.reshape(trials, -1, x.shape[-1]), self._sizes)
        out = torch.split(result.reshape(trials, -1, result.shape[-1]), self._sizes)
        adapted, start = [], 0
        for stack, own_rows, own_out in zip(self._stacks, rows, out, strict=True):
            adapted.append(self._decomposed_stack(stack, start, own_rows, own_out, base))
            start += len(stack.a)
        return adapted[0] if len(adapted) == 1 else torch.cat(adapted)

    def _decomposed_stack(
        self, stack: LayerStack, start: int, rows: Tensor, out: Tensor, base: FrozenLayer
    ) -> Tensor:
        """DoRA of one stack: rows [trials, n, in], out [trials, n, out] -> [trials, n, out]."""
        assert stack.magnitude is not None
        kept = self._dropped(rows, stack.dropouts, start)
        hidden = torch.bmm(kept, stack.a.mT).mul_(stack.scale)
        weight = base.weight(compute_type(rows))
        if self.squares is None:
            self.squares = squared_norms(weight)
        bare = out if kept is rows else kept @ weight.T
        if kept is not rows and stack.initial is not None:
            bare = without_initial(bare, kept, stack)
        if base.bias is not None and kept is rows:
            bare = bare - base.bias
        ratio = (stack.magnitude / dora_norms(weight, self.squares, stack))[:, None]
        # A view: of a parameter itself autocast keeps a copy, checkpointed or not.
        sums = out + (ratio - 1) * bare + ratio * torch.bmm(hidden, stack.b[:])
        # Under autocast the ratio is float32, and the residual stream would become so too.
        return sums.to(out.dtype)

    def _dropped(self, rows: Tensor, dropouts: Sequence[float], start: int = 0) -> Tensor:
        """rows [trials, n, in] with dropout: times 0, or 1 / (1 - p).

        Drawn from the trial's seed, the step and the layer alone, for as many tokens as the longest
        sample has: neither other trials nor a pack run again change them. `start` is the first
        trial's place in the pack.
        """
        if not any(dropouts):
            return rows
        samples, read, longest, name = self._drawn_for(rows)
        masks = torch.ones_like(rows)
        lengths = None if self._shape.positions is not None else self._shape.lengths
        for index, rate in enumerate(dropouts):
            if rate > 0:
                seed = step_seed(self._shape.seeds[start + index], *self._shape.draw, name)
                generator = torch.Generator(rows.device).manual_seed(seed)
                size = (samples, longest, rows.shape[2])
                drawn = self._drawn(size, generator, rows.device)
                if lengths is None:
                    own = drawn[:, read].reshape(rows.shape[1:])
                else:
                    own = _end_to_end(drawn, lengths[start + index])
                masks[index, : len(own)] = (own >= rate).to(rows.dtype) / (1 - rate)
        return rows * masks

    def _drawn(
        self, size: tuple[int, int, int], generator: torch.Generator, device: torch.device
    ) -> Tensor:
        """Uniform numbers [samples, longest, in]: of a share, those that its samples have in the
        whole micro-batch, where each may be several sequences that stand side by side."""
        share, (samples, *rest) = self._shape.share, size
        if share is None or self._shape.positions is not None:
            return torch.rand(size, generator=generator, device=device)
        sides = samples // share.count
        whole = (sides * share.whole, *rest)
        drawn = torch.rand(whole, generator=generator, device=device)
        by_side = drawn.view(sides, share.whole, *rest)
        return by_side[:, share.first : share.first + share.count].reshape(size)

    def _drawn_for(self, rows: Tensor) -> tuple[int, slice, int, str]:
        """Samples of one trial's rows, which of the drawn tokens they read, tokens to draw for, and
        whose draws they are."""
        longest, positions = self._shape.longest_tokens, self._shape.positions
        if positions is not None:
            count = rows.shape[1]
            most = max(2 * longest, count) if positions.by_length else count
            before = (most - count) // 2
            return 1, slice(before, before + count), most, f"{self._name} positions"
        count, tokens = self._shape.batch
        if self._shape.lengths is not None:
            count, tokens = len(self._shape.lengths[0]), max(map(max, self._shape.lengths))
            return count, slice(tokens), max(longest, tokens), self._name
        return count // self._shape.trials, slice(tokens), max(longest, tokens), self._name


def _end_to_end(drawn: Tensor, lengths: Sequence[int]) -> Tensor:
    """[samples, longest, in] -> [tokens of all samples, in]"""
    return torch.cat([own[:length] for own, length in zip(drawn, lengths, strict=True)])


@torch.no_grad()
def squared_norms(weight: Tensor) -> Tensor:
    """Squared norms [out] of the rows of W, in float32."""
    return weight.float().pow(2).sum(1)


@torch.no_grad()
def dora_norms(weight: Tensor, squares: Tensor, stack: LayerStack) -> Tensor:
    """Norms [trials, out] of the rows of W + s B A, as constants (DoRA, section 4.3).

    Where W lacks what B A began as, that counts as part of B A: see `LayerStack.joined`.
    |w + s b A|^2 = |w|^2 + 2 s (w A^T) b + s^2 b (A A^T) b, so that no trial's sum is built.
    Products are in the type of the weight, sums in float32.

    Args:
        squares: `squared_norms(weight)`, which no step changes.
    """
    norms, (stacked_a, stacked_b) = [], stack.joined()
    for a, b, scale in zip(stacked_a, stacked_b.mT, stack.scale.flatten(), strict=True):
        cross = 2 * scale * ((weight @ a.T.to(weight.dtype)) * b).sum(1)
        square = scale**2 * ((b @ (a @ a.T)) * b).sum(1)
        norms.append((squares + cross + square).clamp_min(0).sqrt())
    return torch.stack(norms)
