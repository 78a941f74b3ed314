"""Numbers that are the same but for rounding: how far apart they may be, and why.

float32 holds a number to one part in 2**23, its eps. Kernels differ between processors, between
batches of different shapes and between numbers of threads: they add the same terms in another
order. A sum then moves by a few eps of its largest terms, and what a few blocks make of such sums
by some ten eps of the largest number beside it; a few eps of a small number is more than anyone
can promise, since it may be the difference of two large ones. So differences are measured in eps
of the largest number, and 256 of them are allowed; models measured (LLaVA, MiniCPM-V 4) used 5 to
15. What a mistake changes is thousands.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

EPS = float(np.finfo(np.float32).eps)
STEPS = 256
"""How many eps of the largest number rounding may make up."""
ROUNDING = STEPS * EPS
"""The same as a part of the largest number: 3e-5."""


def close(found: Any, expected: Any, *, steps: float = STEPS, scale: float | None = None) -> None:
    """Demand that numbers computed in float32 differ by rounding alone.

    Args:
        found: A tensor, an array, a number, or sequences of numbers.
        expected: Likewise, of the same shape, or one number for all; NaN where `found` has NaN.
        steps: How many eps of the largest number they may differ by.
        scale: What is the largest number, where it is no longer seen in `expected`, such as the
            terms of a sum that comes out small.

    Raises:
        AssertionError: They differ by more, or in shape.
    """
    a, b = _numbers(found), _numbers(expected)
    b = np.broadcast_to(b, a.shape) if b.ndim == 0 else b
    assert a.shape == b.shape, f"shapes {a.shape} and {b.shape}"
    assert (np.isnan(a) == np.isnan(b)).all(), "NaN stands elsewhere"
    far = float(np.nanmax(np.abs(a - b), initial=0))
    largest = float(np.nanmax(np.abs(b), initial=0)) if scale is None else scale
    assert far <= steps * EPS * largest, (
        f"{far:.1e} apart, which is {far / EPS / max(largest, 1e-300):.0f} eps of the largest "
        f"number ({largest:.1e}); rounding makes up {steps:.0f}"
    )


def is_close(
    found: Any, expected: Any, *, steps: float = STEPS, scale: float | None = None
) -> bool:
    """Whether numbers differ by rounding alone; see `close`."""
    try:
        close(found, expected, steps=steps, scale=scale)
    except AssertionError:
        return False
    return True


def _numbers(given: Any) -> npt.NDArray[np.float64]:
    if hasattr(given, "detach"):
        given = given.detach().cpu().double().numpy()
    return np.asarray(given, np.float64)
