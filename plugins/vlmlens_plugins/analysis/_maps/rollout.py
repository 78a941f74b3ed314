"""Attention rollout: weights of all blocks multiplied, as if attention were all that a block does.

S. Abnar and W. Zuidema, "Quantifying Attention Flow in Transformers" (2020, arXiv 2005.00928).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vlmlens.abc import Batch, ModelAdapter
from vlmlens.passes.attending import Attention
from vlmlens.sites import Site
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._maps.attending import Reader, maps_of, to_rows
from vlmlens_plugins.analysis._maps.maps import PatchMap


def rolled(weights: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Rollout behind one more block: `[rows, rows]`, whose rows sum to 1.

    Args:
        weights: `[heads, rows, rows]`, what the block's heads pay.
        before: `[rows, rows]`, rollout up to the block; the identity before the first.
    """
    mean = weights.mean(0, dtype=before.dtype)
    step = mean + torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
    return (step / step.sum(-1, keepdim=True)) @ before


class Rollout(Reader):
    """Rollout from queries; several are averaged.

    Args:
        batch: The batch of the pass.
        queries: A selector of rows.
    """

    def __init__(self, batch: Batch, queries: str = "last") -> None:
        super().__init__(batch)
        chosen = Selector.parse(queries)
        self._queries = [chosen.positions(layout).tolist() for layout in self.layouts]
        self._so_far: dict[int, torch.Tensor] = {}

    def see(self, site: Site, sample: int, attention: Attention) -> None:
        """See `Reader.see`."""
        del site
        weights = attention.weights
        before = self._so_far.get(sample)
        if before is None:
            before = torch.eye(weights.shape[-1], dtype=torch.float64, device=weights.device)
        self._so_far[sample] = rolled(weights, before)
        self.blocks[sample].append(to_rows(self._so_far[sample][self._queries[sample]].mean(0)))


def rollout(vlm: ModelAdapter, batch: Batch, tokens: Sequence[Sequence[int]]) -> list[PatchMap]:
    """Rollout of the row `last` to each patch; see `MapMethod`."""
    del tokens
    return maps_of(vlm, batch, Rollout(batch))
