"""Explained variance over whole sets of rows, and differences of it with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis.sae.judging.material import MODALITIES
from vlmlens_plugins.analysis.sae.judging.resampling import UNKNOWN, Interval, Resampling
from vlmlens_plugins.analysis.sae.judging.seen import KINDS, Passed

Floats = npt.NDArray[np.float64]
POOLED = "all"


def explained(found: Passed, name: str) -> dict[str, float]:
    """Explained variance of a basis: `1 - sum |x - x^|^2 / sum |x - mean|^2`.

    Both sums go over all rows, and the mean is theirs. So a constant error counts, and a few rows
    that hardly vary cannot spoil it. By modality, the mean is that of its own rows: what tells
    image rows from text rows explains nothing there.

    Args:
        found: The pass over the judged samples.
        name: The basis.

    Returns:
        By "all" and by modality. NaN where rows are all equal.
    """
    error = found.seen[name].error
    shares = {POOLED: _share(error, found, range(KINDS))}
    if found.modalities:
        for kind, modality in enumerate(MODALITIES):
            if found.spread.count[:, kind].sum():
                shares[modality] = _share(error, found, [kind])
    return shares


def _share(error: Floats, found: Passed, kinds: Sequence[int]) -> float:
    total = found.spread.total(kinds)
    nothing = total <= 1e-12 * float(found.spread.square[:, kinds].sum())
    return float("nan") if nothing else 1 - float(error[:, kinds].sum()) / total


def explained_interval(found: Passed, name: str, drawn: Resampling) -> Interval:
    """Explained variance of all rows with its interval over groups of samples."""
    return _from_errors(found, found.seen[name].error, drawn, constant=1.0)[0]


def gain(found: Passed, name: str, other: str, drawn: Resampling) -> tuple[Interval, Floats]:
    """How much more variance one basis explains than another.

    Both have the same rows, so the difference is taken within each draw of groups. The mean stays
    that of all rows.

    Returns:
        The difference with its interval, and float64 `[draws]`: the difference in each draw.
    """
    errors = found.seen[name].error - found.seen[other].error
    return _from_errors(found, errors, drawn, constant=0.0)


def _from_errors(
    found: Passed, errors: Floats, drawn: Resampling, constant: float
) -> tuple[Interval, Floats]:
    total = found.spread.total(range(KINDS))
    around = found.spread.square.sum(1)
    if not around.sum() or not total:
        return UNKNOWN, np.full(len(drawn.weights), np.nan)
    spread = around * (total / around.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        values = constant - drawn.sums(errors.sum(1)) / drawn.sums(spread)
    return drawn.interval(constant - float(errors.sum()) / total, values), values
