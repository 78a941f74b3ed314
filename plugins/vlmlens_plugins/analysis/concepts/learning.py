"""Directions of concepts, from means, as the files that edits read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis._results import slug
from vlmlens_plugins.analysis.concepts.rows import Rows, parts
from vlmlens_plugins.analysis.concepts.sets import ConceptSet
from vlmlens_plugins.analysis.steering.aims import Aim, mark_of
from vlmlens_plugins.analysis.steering.files import Direction, save_direction

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_LONGEST = 60
ZERO = "zero"
"""In the origin of a direction v: (mean of the other samples . v) / (v . v)."""


@dataclass(frozen=True, slots=True)
class Learned:
    """The directions of a set of concepts at one column.

    Args:
        column: The column.
        given: The samples they were learned from.
        means: float64 `[concepts, width]`; NaN for a concept without samples.
        directions: For each concept, its direction; None if there is none.
        halves: float64 `[concepts]`: the cosine between the directions that two random halves of
            the groups give; NaN where one gives none.
    """

    column: str
    given: ConceptSet
    means: Floats
    directions: tuple[Direction | None, ...]
    halves: Floats

    @property
    def alike(self) -> Floats:
        """float64 `[concepts, concepts]`: cosines between the concepts' means, less their mean."""
        moved = self.means - np.nanmean(self.means, axis=0)
        norms = np.linalg.norm(moved, axis=1, keepdims=True)
        units = moved / np.where(norms > 0, norms, 1)
        found: Floats = units @ units.T
        return found


def learn(
    column: str,
    rows: Rows,
    given: ConceptSet,
    *,
    reference: str,
    origin: Mapping[str, Any],
) -> Learned:
    """The direction of each concept: its mean less the mean of the others, or of all.

    Args:
        column: The column's name.
        rows: float32 `[samples, width]`.
        given: The samples and their concepts.
        reference: `others` or `all`.
        origin: What is kept of where they come from.
    """
    sums = _sums(rows, given.y, len(given.concepts))
    means, against = _means(sums, given.counts(), reference)
    groups = tuple(sorted({mark_of(sample.split_group) for sample in given.samples}))
    site, _, selector = column.partition("/")
    directions = []
    for number, concept in enumerate(given.concepts):
        vector = (means[number] - against[number]).astype(np.float32)
        aim = Aim(given.task, given.attribute, concept, (), concept)
        zero = _along(against[number], vector)
        about = {**origin, "samples": len(rows), "reference": reference, ZERO: zero}
        made = Direction(vector, site, selector, "mean-difference", aim, groups, about)
        directions.append(made if made.usable else None)
    halves = _halves(rows, given, reference)
    return Learned(column, given, means, tuple(directions), halves)


def save(folder: Path, learned: Sequence[Learned]) -> dict[tuple[str, str, str], str]:
    """Write a file for each direction.

    Returns:
        The file's name by (set, column, concept).
    """
    found: dict[tuple[str, str, str], str] = {}
    taken: set[str] = set()
    for each in learned:
        for concept, direction in zip(each.given.concepts, each.directions, strict=True):
            if direction is None:
                continue
            names = (each.column, each.given.name, concept)
            stem = ".".join(slug(name)[:_LONGEST] for name in names)
            name, number = f"concepts.{stem}.safetensors", 2
            while name in taken:
                name, number = f"concepts.{stem}-{number}.safetensors", number + 1
            taken.add(name)
            save_direction(folder / name, direction)
            found[each.given.name, each.column, concept] = name
    return found


def _sums(rows: Rows, y: Ints, count: int) -> Floats:
    """float64 `[count, width]`: the sums of the rows that have each number."""
    held = np.eye(count)
    found: Floats = sum((held[y[part]].T @ rows[part] for part in parts(rows)), np.zeros(()))
    return found


def _means(sums: Floats, counts: Ints, reference: str) -> tuple[Floats, Floats]:
    """float64 `[concepts, width]`: the mean of each concept, and of what it is held against."""
    own, number = sums * (reference == "others"), counts.astype(np.float64)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        against = (sums.sum(0) - own) / (number.sum() - number * (reference == "others"))
        return sums / number, against


def _halves(rows: Rows, given: ConceptSet, reference: str) -> Floats:
    """See `Learned`."""
    count = len(given.concepts)
    half = np.random.default_rng(0).permutation(int(given.groups.max()) + 1)[given.groups] % 2
    sums = _sums(rows, given.y + count * half, 2 * count).reshape(2, count, -1)
    counts = np.bincount(given.y + count * half, minlength=2 * count).reshape(2, count)
    pairs = [_means(*each, reference) for each in zip(sums, counts, strict=True)]
    first, second = (own - against for own, against in pairs)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = (first * second).sum(1) / (
            np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        )
    return found


def _along(point: Floats, vector: npt.NDArray[np.float32]) -> float:
    wide = vector.astype(np.float64)
    size = float(wide @ wide)
    return float(point @ wide) / size if size > 0 and np.isfinite(size) else 0.0
