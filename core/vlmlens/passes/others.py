"""What edits need of other samples: the spread of their rows, or the rows of a donor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from vlmlens.errors import EditError
from vlmlens.passes.activation import check_axis
from vlmlens.passes.edits import Spread
from vlmlens.passes.growing import fixed_places
from vlmlens.passes.tracing import hooked
from vlmlens.rows.uploads import uploaded_array
from vlmlens.sites import Site
from vlmlens.tokens import Selector

if TYPE_CHECKING:
    from vlmlens.passes.batch import Batch
    from vlmlens.passes.model import EncodingModel
    from vlmlens.samples import Sample

_AT_ONCE = 8

Place = tuple[Site, Selector]
"""A site and which rows of it."""

Key = tuple[str, str]
"""The names of a site and of a selector."""


@dataclass(slots=True)
class _Sums:
    """Sums over rows, in float64."""

    count: int = 0
    first: torch.Tensor | None = None
    second: torch.Tensor | None = None

    def add(self, rows: torch.Tensor) -> None:
        """Add rows `[k, width]`."""
        rows = rows.detach().to("cpu", torch.float64)
        one, two = rows.sum(0), rows.square().sum(0)
        self.count += len(rows)
        self.first = one if self.first is None else self.first + one
        self.second = two if self.second is None else self.second + two

    def spread(self) -> Spread:
        """The mean and the standard deviation of the rows."""
        if self.first is None or self.second is None:
            raise EditError("No other sample gave rows.", hint="Give samples with such rows.")
        mean = self.first / self.count
        deviation = (self.second / self.count - mean.square()).clamp(min=0).sqrt()
        return Spread(self.count, mean.float(), deviation.float())


@dataclass
class Others:
    """The samples to which edits compare. The caller runs their passes apart from all edits.

    Args:
        vlm: The model.
        samples: The samples.
    """

    vlm: EncodingModel
    samples: Sequence[Sample]
    _spreads: dict[Key, Spread] = field(default_factory=dict, init=False)

    @classmethod
    def measured(cls, vlm: EncodingModel, spreads: Mapping[Key, Spread]) -> Others:
        """Others of which only the spreads at some places are known.

        Args:
            vlm: The model.
            spreads: By the names of site and selector.
        """
        made = cls(vlm, ())
        made._spreads.update(spreads)
        return made

    def spreads(self, places: Mapping[Key, Place], asked: str) -> Mapping[Key, Spread]:
        """The spread of the samples' rows at each place; computed once.

        Args:
            places: By the names of site and selector.
            asked: The edit that needs them, for messages.

        Raises:
            EditError: There are no samples.
        """
        missing = {key: place for key, place in places.items() if key not in self._spreads}
        if missing:
            self._measure(missing, asked)
        return self._spreads

    def _measure(self, places: Mapping[Key, Place], asked: str) -> None:
        if not self.samples:
            raise EditError(
                f"{asked!r} needs other samples, and there are none.",
                subject=asked,
                hint="Pass them: edited([...], others=samples).",
            )
        sums = {key: _Sums() for key in places}
        for start in range(0, len(self.samples), _AT_ONCE):
            batch = self.vlm.encode(self.samples[start : start + _AT_ONCE])
            found = self.rows(batch, list(places.values()))
            for key, rows in zip(places, found, strict=True):
                for one in rows:
                    sums[key].add(one)
        self._spreads |= {key: found.spread() for key, found in sums.items()}

    def rows(self, batch: Batch, places: Sequence[Place]) -> list[list[torch.Tensor]]:
        """Per place and sample of a batch, the rows `[k, width]` of a pass without edits."""
        found: dict[str, list[torch.Tensor]] = {}
        wanted: dict[str, list[Selector]] = {}
        for site, selector in places:
            check_axis(site, batch.layouts)
            wanted.setdefault(site.name, []).append(selector)

        def keep(site: Site, activation: torch.Tensor) -> None:
            for selector in wanted[site.name]:
                found[f"{site.name}/{selector}"] = rows_of(activation, site, selector, batch)

        sites = {site.name: site for site, _ in places}.values()
        with torch.inference_mode(), hooked(self.vlm.module, sites, keep, stop=True):
            self.vlm.forward(batch, logits="all" if _reads_head(sites) else "none")
        return [found[f"{site.name}/{selector}"] for site, selector in places]


def rows_of(
    activation: torch.Tensor, site: Site, selector: Selector, batch: Batch
) -> list[torch.Tensor]:
    """Per sample of a batch, the selected rows `[k, width]` of a site's activation."""
    flat = activation.reshape(-1, activation.shape[-1])
    chosen = fixed_places(selector, batch.layouts[site.axis], site, activation)
    indices = (uploaded_array(one.rows, flat.device) for one in chosen)
    return [flat.index_select(0, index) for index in indices]


def _reads_head(sites: Iterable[Site]) -> bool:
    return any(site.name.startswith("llm.head") for site in sites)
