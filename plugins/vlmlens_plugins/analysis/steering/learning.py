"""Directions from rows of two kinds; random ones, and ones from shuffled labels, as controls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vlmlens.samples import Sample
from vlmlens_plugins.analysis.steering.options import Method

Rows = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def learned(
    rows: Rows,
    positive: Bools,
    method: Method,
    *,
    c: float,
    pairs: Sequence[str],
    rng: np.random.Generator,
) -> Rows:
    """A direction, float64 `[width]`, as long as the difference of the two means.

    Args:
        rows: `[n, width]`.
        positive: `[n]`: the rows that it should point to.
        method: mean-difference: N. Rimsky et al., "Steering Llama 2 via Contrastive Activation
            Addition" (2023, arXiv 2312.06681). pca: A. Zou et al., "Representation Engineering"
            (2023, arXiv 2310.01405): the first principal component of differences of pairs. probe:
            the weights of a logistic regression on standardized rows, for rows as they are.
        c: Of the probe, scikit-learn's C.
        pairs: Per row, the name of its pair; "" where it has none. For pca.
        rng: For pca, of pairs where rows have none.
    """
    difference: Rows = rows[positive].mean(0) - rows[~positive].mean(0)
    if method == "mean-difference" or not difference.any():
        return difference
    if method == "probe":
        found = probe_weights(rows, positive, c)
    else:
        found = first_component(rows, positive, matched(positive, pairs, rng))
    return scaled(found, float(np.linalg.norm(difference)))


def probe_weights(rows: Rows, positive: Bools, c: float) -> Rows:
    """Weights of a logistic regression for raw rows; it is fitted to standardized ones."""
    from sklearn.linear_model import LogisticRegression

    spread = rows.std(0)
    factor = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    fitted = LogisticRegression(C=c, max_iter=1000).fit(
        (rows - rows.mean(0)) * factor, positive.astype(int)
    )
    weights: Rows = fitted.coef_[0] * factor
    return weights


def first_component(rows: Rows, positive: Bools, pairs: Sequence[tuple[int, int]]) -> Rows:
    """The first principal component of the differences of pairs, which points to the positive.

    Differences count with both signs, so their mean is zero, as in Zou et al., who shuffle them.
    """
    differences = np.stack([rows[one] - rows[other] for one, other in pairs])
    axis: Rows = np.linalg.svd(differences, full_matrices=False)[2][0]
    along = rows @ axis
    return axis if along[positive].mean() >= along[~positive].mean() else -axis


def matched(
    positive: Bools, pairs: Sequence[str], rng: np.random.Generator
) -> list[tuple[int, int]]:
    """(positive, negative) numbers: the two of each pair; without such pairs, matched at random."""
    by_name: dict[str, dict[bool, int]] = {}
    for number, name in enumerate(pairs):
        if name:
            by_name.setdefault(name, {})[bool(positive[number])] = number
    found = [(both[True], both[False]) for both in by_name.values() if len(both) == len("ab")]
    if found:
        return found
    one, other = (rng.permutation(np.flatnonzero(side)) for side in (positive, ~positive))
    count = max(len(one), len(other))
    return list(zip(np.resize(one, count).tolist(), np.resize(other, count).tolist(), strict=True))


def pair_names(samples: Sequence[Sample]) -> list[str]:
    """Per sample, its pair; "" where it belongs to none."""
    return [str(sample.attributes.get("pair") or "") for sample in samples]


def random_direction(width: int, norm: float, rng: np.random.Generator) -> Rows:
    """A direction drawn evenly from the sphere, `[width]`."""
    return scaled(rng.normal(size=width), norm)


def scaled(vector: Rows, norm: float) -> Rows:
    """The vector brought to a length; zero stays zero."""
    length = np.linalg.norm(vector)
    return vector if length == 0 else vector * (norm / length)
