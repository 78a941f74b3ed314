"""Relevance: attention weighted by the gradient of the answer, added up over blocks.

H. Chefer, S. Gur and L. Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and
Encoder-Decoder Transformers" (2021, arXiv 2103.15679), their rule for self-attention: R = I before
the first block, and R + mean_h((dM/dA * A)+) R behind each.

A head gives z = A v, so dM/dA[i, j] = dM/dz[i] . v[j]: the gradient at what heads give is enough,
whatever computes attention.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vlmlens.abc import Batch, ModelAdapter
from vlmlens.errors import CompositionError
from vlmlens.passes.attending import Attention
from vlmlens.passes.others import rows_of
from vlmlens.sites import Site
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._attribution.node_work import is_sum
from vlmlens_plugins.analysis._attribution.patches import metric_of
from vlmlens_plugins.analysis._maps.attending import (
    Reader,
    attention_sites,
    check_images,
    maps_of,
    to_rows,
)
from vlmlens_plugins.analysis._maps.maps import PatchMap

_ALL = Selector.parse("all")


def related(
    weights: torch.Tensor, slopes: torch.Tensor, values: torch.Tensor, before: torch.Tensor
) -> torch.Tensor:
    """Relevance behind one more block, `[rows, rows]`; head by head, since rows may be many.

    Args:
        weights: `[heads, rows, rows]`, what the block's heads pay.
        slopes: `[heads, rows, size]`, the gradient of the answer at what the heads give.
        values: `[heads, rows, size]`, what each row gives.
        before: `[rows, rows]`, relevance up to the block; the identity before the first.
    """
    raised = torch.zeros_like(before)
    for own, slope, value in zip(weights, slopes, values, strict=True):
        raised += (own * weight_slopes(slope, value)).clamp(min=0)
    return before + raised @ before / len(weights)


def weight_slopes(slopes: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The gradient at attention weights `[..., queries, keys]`.

    Args:
        slopes: `[..., queries, size]`, the gradient at what heads give.
        values: `[..., keys, size]`, what each key gives.
    """
    return slopes @ values.transpose(-1, -2)


class Relevance(Reader):
    """Relevance of each row for the row `last`; the gradient is taken when it is made.

    Args:
        vlm: The model.
        batch: The batch of the pass.
        tokens: See `MapMethod`.

    Raises:
        CompositionError: No gradient can be taken, or the heads are not known.
    """

    def __init__(self, vlm: ModelAdapter, batch: Batch, tokens: Sequence[Sequence[int]]) -> None:
        super().__init__(batch)
        sites = attention_sites(vlm)
        check_images(batch)
        joined = [vlm.sites.resolve(f"{site.name}.heads")[0] for site in sites]
        found = vlm.gradients(batch, joined, metric_of(tokens))
        self._slopes, self._given = (
            {
                site.name.removesuffix(".heads"): rows_of(own[site.name], site, _ALL, batch)
                for site in joined
            }
            for own in (found.gradients, found.activations)
        )
        self._so_far: dict[int, torch.Tensor] = {}

    def see(self, site: Site, sample: int, attention: Attention) -> None:
        """See `Reader.see`.

        Raises:
            CompositionError: What a head gives is not the sum of weights times values.
        """
        weights, values = attention.weights, attention.values.double()
        slopes, given = (
            by_head(own[site.name][sample], len(weights)) for own in (self._slopes, self._given)
        )
        check_sums(site, weights.float() @ values.float(), given)
        before = self._so_far.get(sample)
        if before is None:
            before = torch.eye(weights.shape[-1], dtype=values.dtype, device=weights.device)
        self._so_far[sample] = related(weights, slopes, values, before)
        self.blocks[sample].append(to_rows(self._so_far[sample][self.last(sample)]))


def by_head(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """float64 `[heads, rows, size]` of what all heads give side by side, `[rows, width]`."""
    return rows.double().reshape(len(rows), heads, -1).movedim(1, 0)


def check_sums(site: Site, taken: torch.Tensor, given: torch.Tensor) -> None:
    """Raise an error where weights times values are not what the heads give.

    Raises:
        CompositionError: So it is: they are gated, for example.
    """
    if not is_sum(taken, given):
        raise CompositionError(
            f"What the heads of {site.name} give is not the sum of attention weights times "
            "values (they are gated, for example), so it does not split into rows.",
            subject=site.name,
            hint="Use maps that need no values: attention, rollout, occlusion.",
        )


def relevance(vlm: ModelAdapter, batch: Batch, tokens: Sequence[Sequence[int]]) -> list[PatchMap]:
    """Relevance of each patch for the answer; see `MapMethod`."""
    return maps_of(vlm, batch, Relevance(vlm, batch, tokens))
