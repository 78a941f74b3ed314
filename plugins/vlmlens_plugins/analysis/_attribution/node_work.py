"""Model work of attribution patching: a first-order estimate for all nodes from two passes.

For a node with activation a in the run that is patched and b in the run that rows come from, the
estimate of what exchanging it does to the logit difference M is (b - a) . dM/da, the gradient taken
in the run that is patched: Nanda, "Attribution Patching" (2023). With `grad_drop` and `patterns`,
the corrections of AtP* (Kramar et al. 2024, arXiv 2403.00745).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from vlmlens.abc import Batch, ModelAdapter, ModelWork, Options, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens.errors import CompositionError, SiteNotFound
from vlmlens.passes.attending import Attention
from vlmlens.passes.gradients import Gradients, logit_difference
from vlmlens.passes.others import rows_of
from vlmlens.passes.tracing import Trace
from vlmlens.sites import Axis, Site
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._sweeps.work import encoded_runs

Floats = npt.NDArray[np.float64]
_NEAR, _NOTHING = 0.05, 1e-5
"""Gated heads are off by about 1, and bfloat16 by about 0.01."""


class NodeOptions(Options):
    """Which nodes are estimated, and how."""

    nodes: list[tuple[str, list[str]]] = Field(
        default_factory=list, description="Single sites, each with its groups of rows."
    )
    grad_drop: bool = Field(
        False, description="Estimate, too, with the gradient through each block stopped in turn."
    )
    patterns: bool = Field(
        False, description="For heads: split the estimate into where they look and what they read."
    )


@dataclass(frozen=True, slots=True)
class NodeScores:
    """Estimates for all nodes and items, in logit difference.

    Args:
        values: float64 `[nodes, items]`: what exchanging the node is estimated to add.
        run: float64 `[items]`: the logit difference of the run that is patched.
        source: float64 `[items]`: that of the run from which rows come.
        dropped: float64 `[nodes, items]`: the mean of the absolute estimates with one block's
            gradient stopped; None without `grad_drop`.
        looks: float64 `[nodes, items]`: the part of the estimate by other attention weights; NaN
            for what is no head, None without `patterns`.
    """

    values: Floats
    run: Floats
    source: Floats
    dropped: Floats | None = None
    looks: Floats | None = None


class NodeWork(ModelWork):
    """Attribution patching of one item, for all nodes.

    Arguments: those of `CellWork` with a donor. Result: "scores", one per node and group of rows in
    the order of the options; "run" and "source", the logit differences; and, if asked for,
    "dropped" and "looks", likewise one per node.
    """

    Options: ClassVar[type[Options]] = NodeOptions
    options: NodeOptions
    version: ClassVar[int | None] = 1

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        """See `ModelWork.run`."""
        targets, donors = encoded_runs(vlm, units)
        tokens = np.array([unit.arguments["tokens"][:2] for unit in units])
        metric = logit_difference(tokens[:, 0].tolist(), tokens[:, 1].tolist())
        places = [(_place(vlm, site), rows) for site, rows in self.options.nodes]
        wholes = list({place.whole.name: place.whole for place, _ in places}.values())
        given = vlm.trace(donors, wholes, logits="last")
        blocks = branches_of(vlm) if self.options.grad_drop else []
        found = vlm.gradients(targets, wholes, metric, without=blocks)
        moved = {site.name: _Moves(given, found, site) for site in wholes}
        assert given.logits is not None  # noqa: S101
        told: list[dict[str, JSON]] = [
            {"scores": own.tolist(), "run": float(run), "source": float(source)}
            for own, run, source in zip(
                _scores(moved, found.gradients, places, targets).T,
                found.value,
                metric(given.logits),
                strict=True,
            )
        ]
        if blocks:
            several = [_scores(moved, one, places, targets) for one in found.without]
            dropped = np.abs(several).sum(0) / max(1, len(blocks) - 1)
            for one, values in zip(told, dropped.T, strict=True):
                one["dropped"] = values.tolist()
        if self.options.patterns:
            looks = _looks(vlm, (targets, donors), found, places)
            for one, values in zip(told, looks.T, strict=True):
                one["looks"] = values.tolist()
        return told


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a node is.

    Args:
        site: Its site.
        whole: The same without columns: the site of all heads.
    """

    site: Site
    whole: Site

    def part(self, product: torch.Tensor) -> torch.Tensor:
        """Its part of `[..., width of all heads]`."""
        columns = self.site.columns
        return product if columns is None else product[..., slice(*columns)]


_Places = Sequence[tuple[_Place, Sequence[str]]]


def is_sum(taken: torch.Tensor, gives: torch.Tensor) -> bool:
    """Whether weights times values, summed up, are what a head gives: not where it is gated."""
    far = float((taken.double() - gives.double()).norm())
    return far <= _NEAR * float(gives.double().norm()) + _NOTHING


def branches_of(vlm: ModelAdapter) -> list[list[Site]]:
    """What each block of the language model adds to the residual stream.

    Raises:
        CompositionError: This is not known.
    """
    found = []
    for block in vlm.sites.resolve("llm.block.*"):
        try:
            found.append(
                [vlm.sites.resolve(f"{block.name}.{name}")[0] for name in ("attn_out", "mlp_out")]
            )
        except SiteNotFound as error:
            raise CompositionError(
                f"What {block.name} adds to the residual stream is not known.",
                subject=block.name,
                hint="Leave grad_drop out for this family.",
            ) from error
    return found


def _place(vlm: ModelAdapter, name: str) -> _Place:
    (site,) = vlm.sites.resolve(name)
    joined = site.name.partition("[")[0] if site.columns is not None else site.name
    return _Place(site, replace(site, name=joined, columns=None))


class _Moves(dict[str, torch.Tensor]):
    """By selector, float64 `[rows, width]`: the donors' rows less the own ones."""

    def __init__(self, given: Trace, found: Gradients, site: Site) -> None:
        super().__init__()
        self._given, self._found, self.site = given, found, site

    def __missing__(self, selector: str) -> torch.Tensor:
        name, parsed = self.site.name, Selector.parse(selector)
        new = rows_of(self._given[name], self.site, parsed, self._given.batch)
        old = rows_of(self._found.activations[name], self.site, parsed, self._found.batch)
        self[selector] = torch.cat(new).double() - torch.cat(old).double()
        return self[selector]


def _scores(
    moved: Mapping[str, dict[str, torch.Tensor]],
    gradients: Mapping[str, torch.Tensor],
    places: _Places,
    targets: Batch,
) -> Floats:
    """float64 `[nodes, items]`: the product of moves and gradients, summed over rows."""
    sums: dict[tuple[str, str], torch.Tensor] = {}
    found = []
    for place, rows in places:
        for selector in rows:
            key = (place.whole.name, selector)
            if key not in sums:
                slopes = rows_of(gradients[key[0]], place.whole, Selector.parse(selector), targets)
                product = moved[key[0]][selector] * torch.cat(slopes).double()
                counts = [len(each) for each in slopes]
                sums[key] = torch.stack([part.sum(0) for part in product.split(counts)])
            found.append(place.part(sums[key]).sum(-1))
    return np.asarray(torch.stack(found).cpu())


def _looks(
    vlm: ModelAdapter,
    batches: tuple[Batch, Batch],
    found: Gradients,
    places: _Places,
) -> Floats:
    """float64 `[nodes, items]`: the part of each estimate that other attention weights make.

    A head gives A v, weights times values. With the donor's weights, softmax included, and its own
    values it would give A' v, so the part is (A' - A) v . dM/dz. NaN for heads that do not give
    A v, since they are gated.
    """
    names = {
        place.whole.name.removesuffix(".heads"): place.whole
        for place, _ in places
        if place.site.columns is not None
    }
    sites = {vlm.sites.resolve(name)[0].name: whole for name, whole in names.items()}
    own, given = (vlm.attention(batch, list(sites)) for batch in batches)
    by_row: dict[str, list[torch.Tensor]] = {}
    layouts = [batch.layouts[Axis.LLM].samples for batch in batches]
    for name, whole in sites.items():
        slopes, gives = (
            rows_of(each[whole.name], whole, Selector.parse("all"), batches[0])
            for each in (found.gradients, found.activations)
        )
        by_row[whole.name] = [
            _look(own[name].of(mine), given[name].of(others), slope, gave)
            for mine, others, slope, gave in zip(*layouts, slopes, gives, strict=True)
        ]
    told = []
    for place, rows in places:
        for selector in rows:
            if place.site.columns is None:
                told.append([np.nan] * len(batches[0]))
                continue
            low, high = place.site.columns
            kept = [Selector.parse(selector).positions(layout) for layout in layouts[0]]
            parts = by_row[place.whole.name]
            told.append(
                [
                    float(part[low // (high - low), positions].sum())
                    for part, positions in zip(parts, kept, strict=True)
                ]
            )
    return np.array(told)


def _look(
    own: Attention, given: Attention, slopes: torch.Tensor, gives: torch.Tensor
) -> torch.Tensor:
    """float64 `[heads, rows]`: what other weights add at each row, to first order behind it."""
    heads, rows, size = own.values.shape
    slope, gave = (
        each.double().reshape(rows, heads, size).transpose(0, 1) for each in (slopes, gives)
    )
    values = own.values.double()
    moved = (given.weights.double() - own.weights.double()) @ values
    looks = (moved * slope).sum(-1)
    taken = own.weights.double() @ values
    gated = [h for h in range(heads) if not is_sum(taken[h], gave[h])]
    looks[gated] = torch.nan
    return looks
