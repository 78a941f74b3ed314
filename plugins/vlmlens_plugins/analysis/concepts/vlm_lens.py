"""The numbers of VLM-Lens' concept scripts, from the same rows.

VLM-Lens (github.com/compling-wat/vlm-lens, `src/concepts`) compares target samples with prototypes
of concepts, layer by layer:

- a sample's row is the mean of its rows, and stays as it is: not centred, not scaled;
- with `components`, all rows are brought to that many principal components of the prototypes
  (centred by the prototypes' mean, not whitened);
- cosine of a target with each prototype of a concept: minimum, maximum, mean; distance is
  1 - cosine; and the cosine with the mean of the prototypes, also as an angle;
- the `k` prototypes with the highest cosine vote with weights max(0, cosine);
- in the first two components: distances between means of concepts, and deviations within each.

A cosine with a zero row is 0, and zero rows do not vote.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis.concepts.rows import Rows, unit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
S = TypeVar("S", "Similarities", "Votes")
_BLOCK = 512
_COSINES = 2**22
"""So many cosines are computed at a time."""


@dataclass(frozen=True, slots=True)
class Prototypes:
    """Samples of concepts at one column.

    Args:
        rows: float32 `[prototypes, width]`.
        concepts: Names, in order of first appearance.
        y: int64 `[prototypes]`, the concept of each.
    """

    rows: Rows
    concepts: tuple[str, ...]
    y: Ints

    def components(self, count: int) -> Callable[[Rows], Rows]:
        """What brings rows to the first components of the prototypes."""
        from sklearn.decomposition import PCA

        with np.errstate(invalid="ignore"):  # shares of no variance, which nothing reads
            fitted = PCA(n_components=count, random_state=42).fit(self.rows)
        moved: Callable[[Rows], Rows] = fitted.transform
        return moved


@dataclass(frozen=True, slots=True)
class Similarities:
    """Cosines of targets with the prototypes of each concept: float64 `[targets, concepts]`.

    Args:
        least: The smallest.
        most: The largest.
        mean: Their mean.
        centroid: The cosine with the mean of the prototypes.
    """

    least: Floats
    most: Floats
    mean: Floats
    centroid: Floats

    @property
    def angle(self) -> Floats:
        """Between a target and the mean of the prototypes, in degrees."""
        found: Floats = np.degrees(np.arccos(np.clip(self.centroid, -1, 1)))
        return found


@dataclass(frozen=True, slots=True)
class Votes:
    """What the nearest prototypes say: `[targets]`.

    Args:
        nearest: The number of the nearest prototype's concept; -1 for a zero row.
        similarity: The cosine with it.
        voted: The number of the concept with most votes.
    """

    nearest: Ints
    similarity: Floats
    voted: Ints


def compare(targets: Rows, prototypes: Prototypes, k: int) -> tuple[Similarities, Votes]:
    """Compare target rows `[targets, width]` with prototypes, block by block."""
    bank, count = unit(prototypes.rows), len(prototypes.concepts)
    means = np.stack([prototypes.rows[prototypes.y == c].mean(0) for c in range(count)])
    found: list[list[Floats]] = []
    voted: list[tuple[Ints, Floats, Ints]] = []
    step = max(1, min(_BLOCK, _COSINES // len(bank)))
    for start in range(0, len(targets), step):
        rows = unit(targets[start : start + step])
        cosines = (rows @ bank.T).astype(np.float64)
        own = [cosines[:, prototypes.y == c] for c in range(count)]
        told = [np.stack([each(o) for o in own], 1) for each in (_least, _most, _mean)]
        found.append([*told, (rows @ unit(means).T).astype(np.float64)])
        near = np.where(
            np.any(bank, axis=1)[None] & np.any(rows, axis=1)[:, None], cosines, -np.inf
        )
        voted.append(_vote(near, prototypes.y, min(k, len(bank)), count))
    four = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    nearest, similarity, most = zip(*voted, strict=True)
    return Similarities(*four), Votes(
        np.concatenate(nearest), np.concatenate(similarity), np.concatenate(most)
    )


def joined(parts: Sequence[S], order: Ints) -> S:
    """What blocks of targets gave, in one piece and in another order."""
    found = {
        each.name: np.concatenate([getattr(part, each.name) for part in parts])[order]
        for each in fields(parts[0])
    }
    return replace(parts[0], **found)


def separation(prototypes: Prototypes) -> tuple[Floats, Floats]:
    """In the prototypes' first two components.

    Returns:
        Distances between the means of concepts, float64 `[concepts, concepts]`; and deviations
        within each concept along both components, float64 `[concepts, 2]`.
    """
    rows = prototypes.components(2)(prototypes.rows).astype(np.float64)
    own = [rows[prototypes.y == c] for c in range(len(prototypes.concepts))]
    means = np.stack([each.mean(0) for each in own])
    far: Floats = np.linalg.norm(means[:, None] - means[None], axis=2)
    return far, np.stack([each.std(0) for each in own])


def in_order(names: Sequence[str]) -> tuple[tuple[str, ...], Ints]:
    """Concepts in order of first appearance, and the number of each sample's."""
    place = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return tuple(place), np.array([place[name] for name in names], np.int64)


def _vote(cosines: Floats, y: Ints, k: int, count: int) -> tuple[Ints, Floats, Ints]:
    """Of as many votes, the concept that comes first among the neighbours."""
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    weights = np.clip(np.take_along_axis(cosines, order, 1), 0, None)
    concept = y[order]
    sums = np.zeros((len(cosines), count))
    np.add.at(sums, (np.arange(len(cosines))[:, None], concept), weights)
    of_neighbours = np.take_along_axis(sums, concept, 1)
    voted = np.take_along_axis(concept, of_neighbours.argmax(1)[:, None], 1)[:, 0]
    similarity = np.take_along_axis(cosines, order[:, :1], 1)[:, 0]
    known = np.isfinite(similarity)
    return np.where(known, concept[:, 0], -1), similarity, np.where(known, voted, -1)


def _least(values: Floats) -> Floats:
    found: Floats = values.min(1)
    return found


def _most(values: Floats) -> Floats:
    found: Floats = values.max(1)
    return found


def _mean(values: Floats) -> Floats:
    found: Floats = values.mean(1)
    return found
