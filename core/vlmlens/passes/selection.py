"""Selecting rows of activations that come in parts, one part per pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from vlmlens.errors import SiteShapeError
from vlmlens.passes.tracing import hooked
from vlmlens.sites import Axis, Site
from vlmlens.tokens import AxisLayout, Ints, Selector, pooled

if TYPE_CHECKING:
    from vlmlens.passes.batch import Batch, Pass
    from vlmlens.passes.model import Model


def select_in_passes(
    vlm: Model,
    batch: Batch,
    columns: Mapping[str, tuple[Site, Selector]],
    layouts: Mapping[Axis, AxisLayout],
    *,
    stop: bool = False,
    skip: Iterable[str] = (),
) -> dict[str, torch.Tensor | list[torch.Tensor]]:
    """Columns of a batch of several passes, each as `vlmlens.tokens.select` gives it.

    Args:
        vlm: The model.
        batch: From `ModelAdapter.encode_shared`.
        columns: By name.
        layouts: Those of the batch, of the columns' axes.
        stop: End each pass after the last site that is wanted of it, or, where it only fills what
            later passes need, once that is full.
        skip: See `vlmlens.passes.tracing.hooked`.

    Raises:
        SiteSilent: A site gave no activation in a pass of its axis.
        SiteShapeError: A site's activation has not the rows that its axis promises.
    """
    chosen = {
        name: PartSelection(selector, layouts[site.axis], site)
        for name, (site, selector) in columns.items()
    }
    of_site: dict[str, list[PartSelection]] = {}
    for name, (site, _) in columns.items():
        of_site.setdefault(site.name, []).append(chosen[name])
    sites = {site.name: site for site, _ in columns.values()}.values()
    head = any(site.name.startswith("llm.head") for site in sites)

    def visit(site: Site, activation: torch.Tensor) -> None:
        for selection in of_site[site.name]:
            selection.add(activation)

    for number, each in enumerate(batch.passes):
        here = [site for site in sites if site.axis in each.axes]
        later = {axis for one in batch.passes[number + 1 :] for axis in one.axes}
        needed = each.whole and any(site.axis in later for site in sites)
        silent = _unwanted(here, of_site, each) if stop and not head else []
        if silent:
            early = [site for site in here if site not in silent]
            with torch.inference_mode(), hooked(vlm.module, early, visit, skip=skip):
                _fill(each, silent)
            for site in silent:
                for selection in of_site[site.name]:
                    selection.skip(each.rows)
        elif here:
            ends = stop and not head and not needed
            with torch.inference_mode(), hooked(vlm.module, here, visit, stop=ends, skip=skip):
                each.run(head)
    return {name: selection.result() for name, selection in chosen.items()}


def _unwanted(
    sites: Sequence[Site], chosen: Mapping[str, Sequence[PartSelection]], each: Pass
) -> list[Site]:
    """The sites of the deepest wanted block, where nobody wants their rows in this pass."""
    if each.fill is None:
        return []
    inside = [site for site in sites if site.axis is Axis.LLM]
    if not inside or any(site.index is None for site in inside):
        return []
    deepest = max(site.index or 0 for site in inside)
    found = [site for site in inside if site.index == deepest]
    wanted = any(one.wants(each.rows) for site in found for one in chosen[site.name])
    return [] if wanted else found


def _fill(each: Pass, sites: Sequence[Site]) -> None:
    last = sites[0].index
    if each.fill is not None and last is not None:
        each.fill(last)


class PartSelection:
    """One column of a batch whose activation comes in parts.

    Only the rows that the selector keeps are held, each once however many samples share it; rows
    that several samples pool alike are pooled once.

    Args:
        selector: What to keep.
        layout: The batch's layout on the site's axis, over all parts together.
        site: Named in errors.
    """

    def __init__(self, selector: Selector, layout: AxisLayout, site: Site) -> None:
        self._selector, self._layout, self._site = selector, layout, site
        kept = [selector.rows(sample) for sample in layout.samples]
        distinct = {rows.tobytes(): rows for rows in kept}
        numbers = {key: i for i, key in enumerate(distinct)}
        self._kept: list[Ints] = list(distinct.values())
        self._owner = [numbers[rows.tobytes()] for rows in kept]
        self._wanted: Ints = np.unique(np.concatenate(kept))
        self._seen = 0
        self._pieces: list[torch.Tensor] = []

    def add(self, activation: torch.Tensor) -> None:
        """The next part: a module's output `[..., width]`."""
        flat = activation.reshape(-1, activation.shape[-1])
        low, high = np.searchsorted(self._wanted, [self._seen, self._seen + len(flat)])
        here = torch.from_numpy(self._wanted[low:high] - self._seen).to(flat.device)
        self._pieces.append(flat.index_select(0, here))
        self._seen += len(flat)

    def wants(self, rows: int) -> bool:
        """Whether any of the next so many rows is kept."""
        low, high = np.searchsorted(self._wanted, [self._seen, self._seen + rows])
        return bool(low < high)

    def skip(self, rows: int) -> None:
        """Pass over the next so many rows, of which none is kept."""
        self._seen += rows

    def result(self) -> torch.Tensor | list[torch.Tensor]:
        """As `vlmlens.tokens.select` gives it.

        Raises:
            SiteShapeError: The parts together have not the rows that the axis promises.
        """
        if self._seen != self._layout.total:
            raise SiteShapeError(
                f"The site {self._site.name!r} gave {self._seen} rows in {len(self._pieces)} "
                f"passes, where the {self._site.axis.value} axis has {self._layout.total}.",
                subject=self._site.name,
                hint="Choose a block instead, or leave sharing off with --no-share-prefix.",
            )
        rows = torch.cat(self._pieces)
        where = [np.searchsorted(self._wanted, kept) for kept in self._kept]
        index = torch.from_numpy(np.concatenate(where)).to(rows.device)
        counts = [len(each) for each in where]
        blocks = list(rows.index_select(0, index).split(counts))
        if self._selector.ragged:
            return [blocks[owner] for owner in self._owner]
        if self._selector.pool is not None:
            one_each = pooled(blocks, self._selector.pool)
        else:
            one_each = torch.cat(blocks)
        return one_each[torch.tensor(self._owner, device=rows.device)]
