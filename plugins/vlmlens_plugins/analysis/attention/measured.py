"""The numbers of one query: shares of attention by block, head and sample, with statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import bootstrap_weights, generator, interval
from vlmlens_plugins.analysis._sweeps.effects import Effects, effects

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measured:
    """Where the attention of one query goes.

    Args:
        query: Its selector, as text.
        columns: Site and selector of each block, in order of depth.
        samples: The samples.
        values: By name of `SHARES`, float64 `[blocks, heads, samples]`; NaN where it is not known.
        area: float64 `[samples]`: the key region's share of the image rows; NaN where there is
            none.
        finite: bool `[samples]`: whether all weights are.
        maps: By sample number, method, and "all" or a head's number: `[blocks, image rows]`.
        dimensions: Those by which sinks are known, most frequent first; None: it was not looked
            for them.
        hidden: How many image rows there are, and how many of them are sinks, on average.
    """

    query: str
    columns: Sequence[str]
    samples: Sequence[Sample]
    values: Mapping[str, Floats]
    area: Floats
    finite: npt.NDArray[np.bool_]
    maps: Mapping[int, Mapping[str, Mapping[str, Floats]]] = field(default_factory=dict)
    dimensions: Sequence[int] | None = None
    hidden: tuple[float, float] = (0.0, 0.0)

    def over_heads(self, name: str) -> Floats:
        """float64 `[blocks, samples]`: the mean over heads."""
        return mean(self.values[name], 1)

    def with_region(self, rows: Sequence[int]) -> list[int]:
        """Those of some samples whose key region is known."""
        return [i for i in rows if np.isfinite(self.area[i])]

    def groups(self, rows: Sequence[int]) -> list[str]:
        """Their groups."""
        return [self.samples[i].split_group for i in rows]

    def tested(self, rows: Sequence[int], seed: int, draws: int) -> Effects | None:
        """By block, the share of the key region against the higher of its two controls.

        These are the same shape elsewhere, and where the regions of other samples lie.

        Args:
            rows: Numbers of samples.
            seed: Of resampling.
            draws: Bootstrap resamples.

        Returns:
            None where no sample has a region.
        """
        own = self.with_region(rows)
        if not own:
            return None
        beside = self.over_heads("elsewhere")[:, own]
        others = self.over_heads("others")[:, own]
        if np.isfinite(others).all():
            beside = np.where((others.mean(1) > beside.mean(1))[:, None], others, beside)
        return effects(
            self.over_heads("region")[:, own],
            np.ones(len(own)),
            self.groups(own),
            controls=[each[None] for each in beside],
            seed=seed,
            draws=draws,
        )


def mean(values: Floats, axis: int) -> Floats:
    """The mean of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        found: Floats = np.where(known, values, 0).sum(axis) / known.sum(axis)
    return found


def with_interval(
    values: Floats, groups: Sequence[str], seed: int, draws: int
) -> tuple[Floats, Floats, Floats]:
    """The mean over samples, and its 95 % interval that resamples whole groups.

    Args:
        values: `[cells, samples]`; samples that a cell does not know are left out of it.
        groups: Per sample, its group.
        seed: Of the resampling.
        draws: Bootstrap resamples.
    """
    _, place = np.unique(np.array(groups), return_inverse=True)
    member = np.eye(place.max() + 1)[place]
    known = np.isfinite(values)
    sums, counts = np.where(known, values, 0) @ member, known @ member
    weights = bootstrap_weights(member.shape[1], draws, generator(seed, "attention"))
    with np.errstate(invalid="ignore"):
        drawn = (weights @ sums.T) / (weights @ counts.T)
        means = sums.sum(1) / counts.sum(1)
    low, high = np.full(len(values), np.nan), np.full(len(values), np.nan)
    full = np.isfinite(drawn).all(0)
    if full.any():
        low[full], high[full] = interval(drawn[:, full])
    return means, low, high
