"""Scales of a figure: limits that fit the data, and round tick values."""

from __future__ import annotations

from math import ceil, floor, log10

from vlmlens.report._text import finite
from vlmlens.results import Figure


def limits(figure: Figure) -> tuple[float, float]:
    """The figure's vertical limits, or its colour limits: as given, else from the data.

    Bars start at zero. A figure without any number has the limits 0 and 1.
    """
    if figure.y_range:
        low, high = figure.y_range
        return (low, high) if high > low else (low, low + 1.0)
    found = _values(figure)
    if figure.kind == "bar":
        found.append(0.0)
    if not found:
        return 0.0, 1.0
    low, high = min(found), max(found)
    if figure.kind in ("heatmap", "lens", "patches"):
        return (low, high) if high > low else (low, low + 1.0)
    return _widened(low, high)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten) between the limits, about `count` of them.

    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    step = _round_step((high - low) / count)
    digits = max(0, 2 - floor(log10(step)))
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(index * step, digits) for index in range(first, last + 1)]


def _values(figure: Figure) -> list[float]:
    rows = [row for item in figure.series for row in (item.y, item.low or (), item.high or ())]
    rows.extend(figure.cells)
    rows.extend(row for sheet in figure.sheets for row in sheet.cells)
    numbers = (finite(value) for row in rows for value in row)
    return [number for number in numbers if number is not None]


def _widened(low: float, high: float) -> tuple[float, float]:
    """The limits moved out to the next tick."""
    if high <= low:
        return low - 0.5, high + 0.5
    step = _round_step((high - low) / 5)
    return floor(low / step + 1e-9) * step, ceil(high / step - 1e-9) * step


def _round_step(rough: float) -> float:
    power = 10.0 ** floor(log10(rough))
    for factor in (1, 2, 5):
        if rough <= factor * power * 1.0001:
            return factor * power
    return 10 * power
