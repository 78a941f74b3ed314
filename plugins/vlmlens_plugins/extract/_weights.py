"""Attention weights in a module's output, and their rows as features: by region or per patch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vlmlens.errors import SiteShapeError, SiteSilent, SpecError
from vlmlens.rows.uploads import uploaded, uploaded_array, uploaded_arrays
from vlmlens.sites import Site
from vlmlens.tokens import AxisLayout, Ints, Pool, Selector, TokenKind, TokenLayout, pooled


def weights_of(output: Any, site: Site) -> torch.Tensor:
    """The attention weights in a module's output: `[images or samples, heads, queries, keys]`.

    They are the last item of a tuple whose first is the activation. T5 puts a position bias of
    the same shape between the two, so that another item is never taken instead.

    Raises:
        SiteSilent: The last item is no such tensor.
    """
    items = tuple(output.values()) if isinstance(output, Mapping) else output
    if isinstance(items, (tuple, list)) and len(items) > 1:
        last = items[-1]
        if isinstance(last, torch.Tensor) and last.ndim == 4:
            return last
    raise SiteSilent(
        f"The site {site.name!r} ({site.path}) gave no attention weights.",
        subject=site.name,
        hint="Name attention modules, as llm.block.*.attn, and use --attention eager; the modules "
        "of some families never give weights.",
    )


@dataclass(slots=True)
class Reading:
    """What is kept of the attention weights of one batch, site by site.

    Args:
        heads: Numbers of heads, in order; None: all.
        regions: Kinds of keys whose weights are summed, in order; None: each image token's weight.
    """

    heads: tuple[int, ...] | None
    regions: tuple[TokenKind, ...] | None
    _places: dict[Any, tuple[AxisLayout, list[_Places]]] = field(default_factory=dict, init=False)
    _numbers: dict[Any, torch.Tensor] = field(default_factory=dict, init=False)
    _far: dict[str, list[torch.Tensor]] = field(default_factory=dict, init=False)
    _dtypes: dict[str, torch.dtype] = field(default_factory=dict, init=False)

    def __call__(
        self, weights: torch.Tensor, selector: Selector, layout: AxisLayout, site: Site
    ) -> list[torch.Tensor] | torch.Tensor:
        """A column: a row per kept query position, a feature per head and region.

        Args:
            weights: `[images or samples, heads, queries, keys]`.
            selector: The query positions.
            layout: The batch's layout on the site's axis.
            site: Named in errors.

        Returns:
            `[samples, heads * regions]`, the regions of the first head first; for a ragged
            selector a list of `[k_i, heads * regions]`. Sums are taken and given in float32.
            Without regions, a list of `[image tokens, heads]`, where a ragged selector gives
            `[k_i, heads * image tokens]`; single weights keep their dtype.

        Raises:
            SiteShapeError: The weights are no self-attention over the axis; a ragged selector, and
                samples differ in their number of image tokens.
            SpecError: There is no such head.
            SelectorError: A sample has no such query position.
        """
        found = _layout_of(weights, layout, site)
        count = weights.shape[1]
        numbers = tuple(range(count)) if self.heads is None else self.heads
        check_heads(numbers, count, site)
        heads = self._heads(numbers, weights.device)
        blocks = []
        far = self._far.setdefault(site.name, [])
        self._dtypes[site.name] = weights.dtype
        for places in self._places_of(found, selector, weights):
            own = places.of(weights, heads)
            far.append((own.float().sum(-1) - 1).abs().max())
            blocks.append(self._features(own, places))
        if self.regions is None and not selector.ragged:
            return [_by_token(block, len(numbers), selector.pool) for block in blocks]
        _check_widths(blocks, site)
        if selector.ragged:
            return blocks
        return torch.cat(blocks) if selector.pool is None else pooled(blocks, selector.pool)

    def facts(self) -> dict[str, torch.Tensor]:
        """By site: how far the sums of a query's weights on its own sample are from 1, float32."""
        return {site: torch.stack(far) for site, far in self._far.items()}

    def check(self, facts: Mapping[str, npt.NDArray[Any]]) -> None:
        """Raise an error if weights are not probabilities over the query's own sample.

        Args:
            facts: On the host.

        Raises:
            SiteShapeError: They are not.
        """
        for site, far in facts.items():
            _check_sums(float(far.max()), self._dtypes[site], site)

    def _heads(self, numbers: Sequence[int], device: torch.device) -> torch.Tensor:
        """Numbers of heads on a device; the same for all layers of a batch."""
        key = tuple(numbers), device
        if key not in self._numbers:
            self._numbers[key] = uploaded_array(np.asarray(numbers, np.int64), device)
        return self._numbers[key]

    def _places_of(
        self, layout: AxisLayout, selector: Selector, weights: torch.Tensor
    ) -> list[_Places]:
        """Per sample; the same for all layers of a batch, and moved to their device once."""
        key = (id(layout), str(selector), weights.shape[-1], weights.device)
        if key not in self._places:
            kinds = self.regions or (TokenKind.IMAGE,)
            hosts = [
                _Places.make(selector.rows(sample), sample, kinds, weights.shape[-1])
                for sample in layout.samples
            ]
            self._places[key] = (
                layout,
                _on_device(hosts, weights.device),
            )  # layout is kept, so that no other layout gets its id
        return self._places[key][1]

    def _features(self, own: torch.Tensor, places: _Places) -> torch.Tensor:
        """`[queries, heads * features]` of `[queries, heads, own keys]`."""
        if self.regions is None:
            return own.index_select(-1, places.kinds[0]).flatten(1)
        sums = [own.index_select(-1, kind).float().sum(-1) for kind in places.kinds]
        return torch.stack(sums, -1).flatten(1)


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the queries and the keys of one sample stand in weights `[groups, heads, n, n]`.

    A row of the axis is a place in a group (a sample, or an image of a tower).

    Args:
        groups: int64 `[queries, 1]`.
        queries: int64 `[queries, 1]`, place in the group.
        keys: int64 `[own keys]`, place in the group.
        together: bool `[queries, 1, own keys]`: whether they share a group; None: all do.
        kinds: Per wanted kind, int64: which of the own keys are of that kind.
    """

    groups: torch.Tensor
    queries: torch.Tensor
    keys: torch.Tensor
    together: torch.Tensor | None
    kinds: Sequence[torch.Tensor]

    @classmethod
    def make(
        cls, rows: Ints, sample: TokenLayout, kinds: Sequence[TokenKind], length: int
    ) -> _Places:
        """Of a sample whose queries stand at `rows` of the axis, whose groups have that length."""
        groups, queries = np.divmod(rows, length)
        own_groups, keys = np.divmod(sample.rows, length)
        together = groups[:, None] == own_groups[None, :]
        return cls(
            _tensor(groups[:, None]),
            _tensor(queries[:, None]),
            _tensor(keys),
            None if together.all() else _tensor(together[:, None, :]),
            [_tensor(sample.positions(kind)) for kind in kinds],
        )

    def of(self, weights: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
        """`[queries, heads, own keys]`: what each query pays to each token of its own sample.

        Tokens of the sample in other groups than the query's get 0.
        """
        own = weights[self.groups, heads, self.queries].index_select(-1, self.keys)
        return own if self.together is None else own * self.together


def check_heads(heads: Sequence[int], count: int, site: Site) -> None:
    """Raise `SpecError` where a site has no such head."""
    unknown = [head for head in heads if head >= count]
    if unknown:
        raise SpecError(
            f"The attention at {site.name!r} has no head {unknown[0]}.",
            subject="options.extractor.heads",
            hint=f"It has {count}, numbered 0 to {count - 1}.",
        )


def _layout_of(weights: torch.Tensor, layout: AxisLayout, site: Site) -> AxisLayout:
    groups, _, queries, keys = weights.shape
    found = layout.at(groups * queries) if queries == keys else None
    if found is None:
        raise SiteShapeError(
            f"The site {site.name!r} gave weights of {groups} x {queries} queries to {keys} keys, "
            f"which is not self-attention over the {layout.total} rows of the {site.axis.value} "
            "axis.",
            subject=site.name,
            hint="Name the self-attention of a block, as llm.block.*.attn.",
        )
    return found


def _on_device(hosts: Sequence[_Places], device: torch.device) -> list[_Places]:
    """Places on a device, with one copy for all samples."""
    numbers = [n for one in hosts for n in (one.groups, one.queries, one.keys, *one.kinds)]
    there = iter(uploaded_arrays([each.numpy() for each in numbers], device))
    return [
        _Places(
            next(there),
            next(there),
            next(there),
            None if one.together is None else uploaded(one.together, device),
            [next(there) for _ in one.kinds],
        )
        for one in hosts
    ]


def _check_sums(worst: float, dtype: torch.dtype, site: str) -> None:
    """Raise where weights are not probabilities over the query's own sample.

    Args:
        worst: How far a sum is from 1.
        dtype: That of the weights.
        site: Named in the error.
    """
    if not worst <= max(1e-3, 4 * torch.finfo(dtype).eps):
        raise SiteShapeError(
            f"The weights at {site!r} are not probabilities over the query's own sample: "
            f"their sums are off by {worst:.2g}.",
            subject=site,
            hint="Padding or another sample is looked at, or they are no attention weights.",
        )


def _by_token(block: torch.Tensor, heads: int, pool: Pool | None) -> torch.Tensor:
    """`[image tokens, heads]` of one query's (or pooled queries') `[k, heads * image tokens]`."""
    row = block if pool is None else pooled([block], pool)
    return row.view(heads, -1).T


def _check_widths(blocks: Sequence[torch.Tensor], site: Site) -> None:
    widths = sorted({block.shape[1] for block in blocks})
    if len(widths) > 1:
        raise SiteShapeError(
            f"The samples of a batch have different numbers of image tokens at {site.name!r}.",
            subject=site.name,
            hint="Keep one query (last, text.mean), or use regions instead of patches.",
        )


def _tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
