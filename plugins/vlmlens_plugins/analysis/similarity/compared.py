"""What is found between columns: the nearest ones, steps of depth, and where two runs part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens.cka import Floats
from vlmlens.statistics import holm
from vlmlens_plugins.analysis._columns import Side, side_of
from vlmlens_plugins.analysis.similarity.measures import CKA, Measure


@dataclass(frozen=True)
class Compared:
    """Columns of one run or of two with all measures.

    Args:
        first: Columns of this run, in order of depth.
        second: Those that they are compared with.
        names: The names of the runs; equal if it is one.
        measures: By name.
        samples: How many CKA rests on; `groups` likewise.
        all: How many samples the columns have in common.
        blocks: In how many blocks.
        subset: Samples that the other measures and the baselines rest on.
    """

    first: Sequence[str]
    second: Sequence[str]
    names: tuple[str, str]
    measures: Mapping[str, Measure]
    samples: int
    groups: int
    all: int
    blocks: int
    subset: int
    alone: bool

    @property
    def cka(self) -> Measure:
        """Linear CKA."""
        return self.measures[CKA]

    @property
    def corresponding(self) -> bool:
        """Whether two runs have the same columns."""
        return not self.alone and list(self.first) == list(self.second)

    def others(self, i: int) -> Floats:
        """CKA of a column with the others; NaN with itself."""
        row: Floats = self.cka.value[i].copy()
        if self.alone:
            row[i] = np.nan
        return row

    @property
    def nearest(self) -> list[tuple[int, int]]:
        """Each column with the one that it is most alike."""
        known = [i for i in range(len(self.first)) if np.isfinite(self.others(i)).any()]
        return [(i, int(np.nanargmax(self.others(i)))) for i in known]

    @property
    def path(self) -> list[tuple[int, int]]:
        """Places along the depth: columns with their counterparts, or steps within one run."""
        if self.corresponding:
            return [(i, i) for i in range(len(self.first))]
        return steps(self.first) if self.alone else self.nearest

    @property
    def best(self) -> tuple[int, int] | None:
        """The most similar pair; None where no number is defined."""
        near = self.nearest
        return max(near, key=lambda place: self.cka.value[place]) if near else None


def steps(columns: Sequence[str]) -> list[tuple[int, int]]:
    """Columns that follow each other: of one selector, and from the vision side to each selector.

    >>> names = ["vision.block.0/mean", "llm.block.0/last", "llm.block.0/text", "llm.block.1/last"]
    >>> steps(names)
    [(0, 1), (0, 2), (1, 3)]
    """
    found = []
    last: dict[tuple[str, Side], int] = {}
    seen: int | None = None
    for i, name in enumerate(columns):
        side = side_of(name)
        key = (name.partition("/")[2], side)
        before = last.get(key, None if side is Side.OTHER else seen)
        if before is not None:
            found.append((before, i))
        last[key] = i
        seen = i if side is Side.VISION else seen
    return found


@dataclass(frozen=True, slots=True)
class Parting:
    """Where two runs part.

    Args:
        place: Number of the first column that is significantly below the limit; None: there is
            none.
        below: Number of the first one that is below it, significantly or not.
        above: Whether all intervals are above the limit.
        p: `[columns]`, one-sided, after Holm's correction; NaN where it is not known.
    """

    place: int | None
    below: int | None
    above: bool
    p: Floats


def parting(found: Compared, limit: float) -> Parting:
    """Tests each column and its counterpart: is CKA below the limit?

    Student's t of the jackknife's error. Where nothing varies, the number itself decides.
    """
    from scipy.special import stdtr

    value, error = np.diag(found.cka.value), np.diag(found.cka.error)
    known = np.isfinite(value) & np.isfinite(error)
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.where(error > 0, (value - limit) / error, np.sign(value - limit) * np.inf)
    p = np.full(len(value), np.nan)
    p[known] = holm(stdtr(max(found.cka.folds - 1, 1), below[known]))
    significant = np.flatnonzero(known & (p <= 0.05))
    under = np.flatnonzero(np.isfinite(value) & (value < limit))
    low = np.diag(found.cka.low)
    return Parting(
        int(significant[0]) if len(significant) else None,
        int(under[0]) if len(under) else None,
        bool(known.any() and (low[known] > limit).all()),
        p,
    )
