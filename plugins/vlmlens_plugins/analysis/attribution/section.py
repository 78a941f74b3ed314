"""A part of the result: what one method found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.results import Figure, Finding, Glance, Table

_NAMED = 3


@dataclass(frozen=True, slots=True)
class Section:
    """What one method found, as parts of the result."""

    findings: Sequence[Finding] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    overview: Sequence[Glance] = ()


def percent(share: float) -> str:
    """A share as a percentage, without a minus before 0.

    >>> percent(0.314), percent(-0.001)
    ('31%', '0%')
    """
    return f"{round(100 * float(share)) + 0:.0f}%"


def signed(number: float) -> str:
    """A number with its sign, without a minus before 0.

    >>> signed(-1.234), signed(-0.001)
    ('-1.23', '+0.00')
    """
    return f"{round(float(number), 2) + 0:+.2f}"


def strongest(sizes: Sequence[float] | npt.NDArray[np.float64], least: float) -> list[int]:
    """The numbers of the largest in size, the first three; behind the first, none below the least.

    Args:
        sizes: The numbers; their signs do not count.
        least: Smaller ones would be written as 0.
    """
    order = np.argsort(-np.abs(sizes), kind="stable")[:_NAMED]
    return [int(i) for n, i in enumerate(order) if n == 0 or abs(sizes[i]) >= least]
