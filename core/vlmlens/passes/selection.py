"""Selecting rows from activations that arrive in parts, one part per pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vlmlens.errors import SiteShapeError
from vlmlens.passes.tracing import hooked
from vlmlens.rows.uploads import uploaded_array
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
    """The columns of a batch with several passes, each as `vlmlens.tokens.select` gives it.

    Args:
        vlm: The model.
        batch: From `ModelAdapter.encode_shared`.
        columns: The columns, by name.
        layouts: The batch's layouts on the columns' axes.
        stop: Whether to end each pass after the last site that is wanted from it. A pass that
            only fills the cache for later passes ends once that is full.
        skip: See `vlmlens.passes.tracing.hooked`.

    Raises:
        SiteSilent: A site gave no activation in a pass of its axis.
        SiteShapeError: A site's activation does not have the rows of its axis.
    """
    shared: dict[tuple[Axis, str], PartRows] = {}
    chosen: dict[str, PartSelection] = {}
    for name, (site, selector) in columns.items():
        key = site.axis, str(selector)
        if key not in shared:
            shared[key] = PartRows(selector, layouts[site.axis])
        chosen[name] = PartSelection(selector, shared[key], site)
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
    """The sites of the deepest wanted block, if no column keeps rows of this pass there."""
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


class PartRows:
    """The rows that a selector keeps of a batch whose activations arrive in parts.

    Equal sets of rows are kept once. It serves all columns with that selector on that axis: the
    rows are found once, and uploaded once per device.

    Args:
        selector: Which rows to keep.
        layout: The batch's layout on the axis, over all parts together.
    """

    def __init__(self, selector: Selector, layout: AxisLayout) -> None:
        kept = [selector.rows(sample) for sample in layout.samples]
        distinct = {rows.tobytes(): rows for rows in kept}
        numbers = {key: i for i, key in enumerate(distinct)}
        self.total = layout.total
        self._wanted: Ints = np.unique(np.concatenate(kept))
        self._places = [np.searchsorted(self._wanted, rows) for rows in distinct.values()]
        self.counts = [len(places) for places in self._places]
        self.owner = [numbers[rows.tobytes()] for rows in kept]
        self._there: dict[Any, torch.Tensor] = {}

    def wants(self, start: int, count: int) -> bool:
        """Whether any of `count` rows from `start` on is kept."""
        low, high = self._within(start, count)
        return low < high

    def within(self, start: int, count: int, device: torch.device) -> torch.Tensor:
        """Which of `count` rows from `start` on are kept, as numbers from 0."""
        low, high = self._within(start, count)
        return self._on((start, count), self._wanted[low:high] - start, device)

    def places(self, device: torch.device) -> torch.Tensor:
        """Where each distinct set's rows are among those that are kept, one after the other."""
        return self._on("places", np.concatenate(self._places), device)

    def owners(self, device: torch.device) -> torch.Tensor:
        """Per sample, the number of its set."""
        return self._on("owners", np.asarray(self.owner, np.int64), device)

    def _within(self, start: int, count: int) -> tuple[int, int]:
        low, high = np.searchsorted(self._wanted, [start, start + count])
        return int(low), int(high)

    def _on(self, name: Any, array: Ints, device: torch.device) -> torch.Tensor:
        if (name, device) not in self._there:
            self._there[name, device] = uploaded_array(array, device)
        return self._there[name, device]


class PartSelection:
    """One column of a batch whose activation arrives in parts.

    Only the rows that the selector keeps are held. A row that several samples share is held once,
    and equal sets of rows are pooled once.

    Args:
        selector: Which rows to keep.
        rows: These rows.
        site: The site, for error messages.
    """

    def __init__(self, selector: Selector, rows: PartRows, site: Site) -> None:
        self._selector, self._rows, self._site = selector, rows, site
        self._seen = 0
        self._pieces: list[torch.Tensor] = []

    def add(self, activation: torch.Tensor) -> None:
        """The next part: a module's output `[..., width]`."""
        flat = activation.reshape(-1, activation.shape[-1])
        here = self._rows.within(self._seen, len(flat), flat.device)
        self._pieces.append(flat.index_select(0, here))
        self._seen += len(flat)

    def wants(self, rows: int) -> bool:
        """Whether any of the next `rows` rows is kept."""
        return self._rows.wants(self._seen, rows)

    def skip(self, rows: int) -> None:
        """Skip the next `rows` rows; none of them is kept."""
        self._seen += rows

    def result(self) -> torch.Tensor | list[torch.Tensor]:
        """The column, in the form that `vlmlens.tokens.select` gives.

        Raises:
            SiteShapeError: The parts together do not have the rows of the axis.
        """
        if self._seen != self._rows.total:
            raise SiteShapeError(
                f"The site {self._site.name!r} gave {self._seen} rows in {len(self._pieces)} "
                f"passes, but the {self._site.axis.value} axis has {self._rows.total}.",
                subject=self._site.name,
                hint="Choose a block instead, or turn sharing off with --no-share-prefix.",
            )
        rows = torch.cat(self._pieces)
        chosen = rows.index_select(0, self._rows.places(rows.device))
        blocks = list(chosen.split(self._rows.counts))
        if self._selector.ragged:
            return [blocks[owner] for owner in self._rows.owner]
        one_each = chosen if self._selector.pool is None else pooled(blocks, self._selector.pool)
        return one_each[self._rows.owners(rows.device)]
