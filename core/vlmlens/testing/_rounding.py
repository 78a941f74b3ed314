"""Numbers that are equal up to rounding: how much they may differ, and why.

float32 holds a number to one part in 2**23, its eps. Kernels add the same terms in another order,
depending on the processor, the shape of the batch and the number of threads. That changes a sum by
a few eps of its largest terms, and the output of a few blocks by about ten eps of its largest
number. A small number can change by much more of its own eps, since it may be the difference of two
large ones. So differences are measured in eps of the largest number, and 256 of them are allowed.
Measured models (LLaVA, MiniCPM-V 4) needed 5 to 15. A mistake changes thousands.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

EPS = float(np.finfo(np.float32).eps)
STEPS = 256
"""How many eps of the largest number rounding may change."""
ROUNDING = STEPS * EPS
"""The same as a fraction of the largest number: 3e-5."""


def close(found: Any, expected: Any, *, steps: float = STEPS, scale: float | None = None) -> None:
    """Require that numbers computed in float32 differ only by rounding.

    Args:
        found: A tensor, an array, a number, or sequences of numbers.
        expected: The same, of equal shape, or one number for all; NaN and infinity where
            `found` has them.
        steps: How many eps of the largest number they may differ by.
        scale: The largest number, if `expected` does not show it (such as a small sum of large
            terms).

    Raises:
        AssertionError: They differ by more, or in shape.
    """
    a, b = _numbers(found), _numbers(expected)
    b = np.broadcast_to(b, a.shape) if b.ndim == 0 else b
    assert a.shape == b.shape, f"shapes {a.shape} and {b.shape}"
    assert (np.isnan(a) == np.isnan(b)).all(), "NaN is at other places"
    endless = np.isinf(a) | np.isinf(b)
    assert (a[endless] == b[endless]).all(), "infinity is at other places"
    a, b = a[~endless], b[~endless]
    far = float(np.nanmax(np.abs(a - b), initial=0))
    largest = float(np.nanmax(np.abs(b), initial=0)) if scale is None else scale
    assert far <= steps * EPS * largest, (
        f"{far:.1e} apart, which is {far / EPS / max(largest, 1e-300):.0f} eps of the largest "
        f"number ({largest:.1e}); rounding may change {steps:.0f}"
    )


def is_close(
    found: Any, expected: Any, *, steps: float = STEPS, scale: float | None = None
) -> bool:
    """Whether numbers differ only by rounding; see `close`."""
    try:
        close(found, expected, steps=steps, scale=scale)
    except AssertionError:
        return False
    return True


def _numbers(given: Any) -> npt.NDArray[np.float64]:
    if hasattr(given, "detach"):
        given = given.detach().cpu().double().numpy()
    return np.asarray(given, np.float64)
