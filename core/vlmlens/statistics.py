"""Statistics that core and analyses share; numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def holm(p: Sequence[float] | Floats) -> Floats:
    """p-values corrected for their number by the step-down method of Holm (1979).

    Controls the chance of any false rejection among all of them, whatever their dependence.
    S. Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Stat. 6 (1979).

    Args:
        p: float `[m]`, raw p-values.

    Returns:
        float64 `[m]`, in the order of `p`.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    raw = np.asarray(p, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    stepped = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    corrected = np.empty(len(raw))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected
