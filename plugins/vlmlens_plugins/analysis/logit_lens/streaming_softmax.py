"""Softmax statistics of logits that arrive in pieces; the logits are not kept."""

from __future__ import annotations

import torch
from torch import Tensor

_RUN = 64
"""Logits whose highest is looked at first, when top tokens are looked for."""
_NEAR = 40.0
"""Exponentials of differences up to here keep their digits in float32, sums of them too."""
_FAR = -1e30
"""A shift from nothing to the first logits; finite, so that 0 times it is 0."""


class Running:
    """Statistics of `[layers, rows]` distributions over a vocabulary that comes in pieces.

    Sums of exponentials are kept relative to the highest logit so far. The moment is the sum of
    (logit - highest) x exp(logit - highest), from which the entropy follows without cancellation.

    Args:
        above: float32 `[layers, rows, m]`: logits; how many tokens lie above each is counted.
        k: How many top tokens to keep.
    """

    def __init__(self, above: Tensor, k: int) -> None:
        shape, device = above.shape[:2], above.device
        self._above = above
        self._highest = torch.full(shape, -torch.inf, device=device)
        self._sum = torch.zeros(shape, dtype=torch.float64, device=device)
        self._moment = torch.zeros_like(self._sum)
        self._cross = torch.zeros_like(self._sum)
        self.counts = torch.zeros(above.shape, dtype=torch.int64, device=device)
        self.top = torch.full((*shape, k), -torch.inf, device=device)
        self.tokens = torch.zeros((*shape, k), dtype=torch.int64, device=device)

    def add(self, logits: Tensor, start: int, final: Tensor | None = None) -> None:
        """Take in a piece of the vocabulary.

        Args:
            logits: float32 `[layers, rows, piece]`.
            start: Number of the piece's first token.
            final: float32 `[rows, piece]`: probabilities at the final layer.
        """
        size = _RUN if logits.shape[-1] % _RUN == 0 else logits.shape[-1]
        wide = logits.unflatten(-1, (-1, size))
        runs = torch.empty(wide.shape[:-1], device=logits.device)
        base = self._highest if start else logits.amax(-1)
        sums = self._reduce(logits, base, final, wide, runs)
        highest = torch.maximum(base, runs.amax(-1))
        if (highest - base).max() > _NEAR:
            base = highest
            sums = self._reduce(logits, base, final, wide, runs)
        self._rebase(base)
        self._sum += sums[0]
        self._moment += sums[1]
        self._cross += sums[2]
        self.counts += sums[3:].long().movedim(0, -1)
        self._rebase(highest)
        self._add_top(wide.flatten(0, 1), runs.flatten(0, 1), start)

    def log_sum(self) -> Tensor:
        """float64 `[layers, rows]`: log of the summed exponentials of the logits."""
        return self._sum.log() + self._highest

    def entropy(self) -> Tensor:
        """float64 `[layers, rows]`, nats."""
        return (self._sum.log() - self._moment / self._sum).clamp(min=0)

    def cross_entropy(self) -> Tensor:
        """float64 `[layers, rows]`, nats: of the final distribution under each layer's."""
        return self.log_sum() - self._cross

    def _reduce(
        self, logits: Tensor, base: Tensor, final: Tensor | None, wide: Tensor, runs: Tensor
    ) -> Tensor:
        """float32 `[3 + m, layers, rows]`: sums over the piece relative to `base`, then counts.

        A few layers at a time, in two buffers: what is in a core's cache costs little.
        """
        sums = torch.zeros((3 + self._above.shape[-1], *base.shape), device=logits.device)
        groups = _groups(logits)
        work, weights = (torch.empty_like(logits[groups[0]]) for _ in range(2))
        for layers in groups:
            here = logits[layers]
            torch.amax(wide[layers], -1, out=runs[layers])
            torch.sub(here, base[layers, :, None], out=work)
            torch.exp(work, out=weights)
            torch.sum(weights, -1, out=sums[0, layers])
            torch.sum(torch.mul(work, weights, out=weights), -1, out=sums[1, layers])
            if final is not None:
                torch.sum(torch.mul(here, final, out=work), -1, out=sums[2, layers])
            for i in range(self._above.shape[-1]):
                torch.gt(here, self._above[layers, :, i, None], out=work)
                torch.sum(work, -1, out=sums[3 + i, layers])
        return sums

    def _rebase(self, highest: Tensor) -> None:
        """Keep sums relative to another logit."""
        shift = (self._highest - highest).double().clamp_(min=_FAR)
        shrunk = shift.exp()
        self._moment = (self._moment + self._sum * shift) * shrunk
        self._sum = self._sum * shrunk
        self._highest = highest

    def _add_top(self, wide: Tensor, runs: Tensor, start: int) -> None:
        """Only runs that hold something above a row's k-th best are looked into.

        Args:
            wide: float32 `[rows, runs, logits per run]`.
            runs: float32 `[rows, runs]`: the highest of each.
            start: Number of the first token.
        """
        k, size = self.top.shape[-1], wide.shape[-1]
        top, tokens = self.top.flatten(0, 1), self.tokens.flatten(0, 1)
        over = (runs > top[:, -1:]).sum(-1)
        rows = over.nonzero()[:, 0]
        if not len(rows):
            return
        chosen = runs[rows].topk(min(k, int(over.max())), -1).indices
        found = torch.cat([top[rows], wide[rows[:, None], chosen].flatten(1)], -1)
        kept, order = found.topk(k, -1)
        place = (order - k).clamp(min=0)
        run = chosen.gather(-1, place.div(size, rounding_mode="floor"))
        new = run * size + place % size + start
        old = tokens[rows].gather(-1, order.clamp(max=k - 1))
        top[rows], tokens[rows] = kept, torch.where(order < k, old, new)


def _groups(logits: Tensor) -> list[slice]:
    """Layers to reduce at once: on a CPU one by one, which stays in a core's own cache."""
    layers = len(logits)
    if logits.device.type == "cpu":
        return [slice(i, i + 1) for i in range(layers)]
    return [slice(0, layers)]
