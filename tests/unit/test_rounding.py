"""What counts as equal up to rounding, and that mistakes do not."""

from __future__ import annotations

import numpy as np
import pytest

from vlmlens.testing._rounding import ROUNDING, close, is_close

NUMBERS = np.array([1.0, -40.0, 1e-6, 0.0])


def test_a_few_eps_of_the_largest_number_are_rounding() -> None:
    close(NUMBERS + 40 * ROUNDING * 0.9, NUMBERS)
    assert not is_close(NUMBERS + 40 * ROUNDING * 1.1, NUMBERS)


def test_a_scale_stands_for_numbers_that_are_not_seen() -> None:
    assert not is_close(1e-4, 0.0)
    close(1e-4, 0.0, scale=10.0)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_must_be_at_the_same_places(odd: float) -> None:
    with_odd = np.append(NUMBERS, odd)
    close(with_odd, with_odd)
    for other in (np.append(NUMBERS, 1.0), np.append(NUMBERS, -odd)):
        assert (np.isnan(odd) and np.isnan(other[-1])) or not is_close(with_odd, other)
    assert not is_close(np.append(NUMBERS * 2, odd), with_odd), "the rest is compared, too"


def test_other_shapes_are_not_equal() -> None:
    assert not is_close(NUMBERS[:3], NUMBERS)
