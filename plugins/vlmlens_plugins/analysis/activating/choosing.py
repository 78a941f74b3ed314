"""Which samples are shown of a coordinate: the top ones, some at quantiles, some at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.activating.coordinates import Measured
from vlmlens_plugins.analysis.activating.options import ActivatingOptions


@dataclass(frozen=True, slots=True)
class Shown:
    """A sample that is shown of a coordinate.

    Args:
        sample: Its number.
        why: "top 1", "quantile 0.5" or "random 2".
    """

    sample: int
    why: str

    @property
    def top(self) -> bool:
        """Whether it has one of the largest values."""
        return self.why.startswith("top")


def shown(
    one: Measured, samples: Sequence[Sample], options: ActivatingOptions, seed: int
) -> list[Shown]:
    """The samples that are shown of a coordinate; one sample can be there for several reasons.

    Of the top ones each is of another group: several questions about one picture are one example.
    """
    order = [int(i) for i in np.argsort(-one.values, kind="stable") if np.isfinite(one.values[i])]
    first = {samples[i].split_group: i for i in reversed(order)}
    tops = [i for i in order if first[samples[i].split_group] == i][: options.top]
    found = [Shown(i, f"top {rank + 1}") for rank, i in enumerate(tops)]
    for share in options.quantiles:
        place = round((1 - share) * (len(order) - 1))
        found.append(Shown(order[place], f"quantile {share:g}"))
    rng = generator(seed, "activating", "random", one.coordinate.text)
    drawn = rng.permutation(np.sort(order))[: options.random]
    found += [Shown(int(i), f"random {rank + 1}") for rank, i in enumerate(drawn)]
    return found


def distinct(chosen: Sequence[Shown]) -> list[Shown]:
    """Each sample once, for its first reason."""
    return list({one.sample: one for one in reversed(chosen)}.values())[::-1]
