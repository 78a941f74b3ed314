"""Monosemanticity score: whether the pictures in which a feature fires are alike."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from vlmlens_plugins.sae import Rows, in_pieces

Floats = npt.NDArray[np.float64]
_NUMBERS = 2**26
_AT_ONCE = 4096
_ROUNDING = 1e-4
"""Codes that differ by a smaller share are equal: passes in other company round otherwise."""


def monosemanticity(largest: csr_array, embeddings: npt.NDArray[np.floating]) -> Floats:
    """The mean cosine of pairs of pictures, weighted by how strongly the feature fires in both.

    `MS = sum_{i<j} a_i a_j cos(e_i, e_j) / sum_{i<j} a_i a_j`, with a feature's codes a brought to
    0..1 over the pictures. M. Pach et al., "Sparse autoencoders learn monosemantic features in
    vision-language models" (2025). It is computed in one pass: the numerator is
    `(|sum a_i e_i|^2 - sum a_i^2 |e_i|^2) / 2`, the denominator `((sum a_i)^2 - sum a_i^2) / 2`.

    Args:
        largest: float `[pictures, features]`: the largest code of each feature in each picture.
        embeddings: float `[pictures, width]`, of the encoder that says how alike pictures are;
            they are brought to length 1. Rows of zeros are pictures without one.

    Returns:
        float64 `[features]`; NaN of features that are equal in all pictures, up to rounding, or
        above their minimum in one only.
    """
    level, size = _level(largest)
    ones = _any(embeddings)
    table = largest.astype(np.float64)
    # a = (z - level) / size, without making the codes dense
    drawn = np.zeros((table.shape[1], embeddings.shape[1]))
    together = np.zeros(embeddings.shape[1])
    for part, unit in _units(embeddings):
        drawn += table[part].T @ unit
        together += unit.sum(0)
    pull = (drawn - np.outer(level, together)) / size[:, None]
    square = _squares(table, level, size, ones)
    total = (np.asarray(table.T @ ones).ravel() - level * ones.sum()) / size
    with np.errstate(divide="ignore", invalid="ignore"):
        below = total**2 - square
        found = ((pull**2).sum(1) - square) / below
    usable = np.isfinite(found) & (below > 1e-9 * np.maximum(total**2, 1e-300))
    result: Floats = np.where(usable, found, np.nan)
    return result


def by_picture(
    largest: csr_array, embeddings: npt.NDArray[np.floating], pictures: Sequence[Hashable]
) -> tuple[csr_array, npt.NDArray[np.floating]]:
    """Samples about one picture as one: their largest codes, and their mean embedding.

    Several questions about a picture would make pairs of a picture with itself, which is always
    like itself.

    Args:
        largest: float `[samples, features]`.
        embeddings: float `[samples, width]`.
        pictures: Of each sample, what tells its picture from others.

    Returns:
        Both with a row for each picture.
    """
    place: dict[Hashable, int] = {}
    owner = np.array([place.setdefault(each, len(place)) for each in pictures], np.int64)
    counts = np.bincount(owner, minlength=len(place))
    total = np.zeros((len(place), embeddings.shape[1]), np.result_type(embeddings, np.float32))
    np.add.at(total, owner, embeddings)
    total /= np.maximum(counts, 1)[:, None]
    found = largest.tocoo()
    key = owner[found.row] * np.int64(largest.shape[1]) + found.col
    order = np.argsort(key, kind="stable")
    keys, first = np.unique(key[order], return_index=True)
    data = np.maximum.reduceat(found.data[order], first) if len(first) else found.data[:0]
    where = np.divmod(keys, largest.shape[1])
    table = csr_array((data, where), shape=(len(place), largest.shape[1]))
    return table, total


def level_of_chance(embeddings: npt.NDArray[np.floating]) -> float:
    """The mean cosine of two different pictures: the score of a feature that fires at random."""
    count = float(_any(embeddings).sum())
    total = sum((unit.sum(0) for _, unit in _units(embeddings)), np.zeros(embeddings.shape[1]))
    return float((total @ total - count) / (count * (count - 1))) if count > 1 else float("nan")


def _any(embeddings: npt.NDArray[np.floating]) -> Floats:
    """float64 `[pictures]`: 1 for those with an embedding, else 0."""
    return np.asarray(embeddings.any(1), np.float64)


def _units(embeddings: npt.NDArray[np.floating]) -> Iterator[tuple[slice, Floats]]:
    """Some pictures at a time, their embeddings at length 1."""
    for start in range(0, len(embeddings), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        yield part, _unit(embeddings[part])


def _unit(embeddings: npt.NDArray[np.floating]) -> Floats:
    given = np.asarray(embeddings, np.float64)
    length = np.linalg.norm(given, axis=1, keepdims=True)
    unit: Floats = np.divide(given, length, out=np.zeros_like(given), where=length > 0)
    return unit


def _level(largest: csr_array) -> tuple[Floats, Floats]:
    """The minimum of each feature, and its range; NaN instead of a range of 0."""
    low, high = (
        np.asarray(found.todense(), np.float64).ravel()
        for found in (largest.min(axis=0), largest.max(axis=0))
    )
    varies = high - low > _ROUNDING * np.maximum(np.abs(high), np.abs(low))
    return low, np.where(varies, high - low, np.nan)


def _squares(table: csr_array, level: Floats, size: Floats, ones: Floats) -> Floats:
    second = np.asarray(table.multiply(table).T @ ones).ravel()
    first = np.asarray(table.T @ ones).ravel()
    found: Floats = (second - 2 * level * first + level**2 * ones.sum()) / size**2
    return found


def embedded(rows: Rows | None, samples: Sequence[int]) -> npt.NDArray[np.float32] | None:
    """What each sample is like: its mean row.

    Args:
        rows: Of the encoder; None: there is none.
        samples: Numbers of samples, in random order.

    Returns:
        float32 `[samples, width]`, of the first samples, as many as take 256 MiB; zeros for a
        sample without rows; None without `rows`.
    """
    if rows is None:
        return None
    samples = samples[: max(1, _NUMBERS // rows.width)]
    found = np.zeros((len(samples), rows.width), np.float32)
    for start, parts in in_pieces(rows, samples):
        for place, part in enumerate(parts, start):
            if len(part):
                found[place] = part.float().mean(0).numpy()
    return found
