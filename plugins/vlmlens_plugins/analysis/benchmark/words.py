"""How scores, answers and settings are written."""

from __future__ import annotations

import math
from collections.abc import Mapping

from vlmlens_plugins.analysis.benchmark.scores import Estimate
from vlmlens_plugins.benchmarks.card import Card

_LONGEST = 200


def unit_of(card: Card, metric: str) -> str:
    """The unit of a metric, percent where the card says nothing."""
    return card.units.get(metric, "percent")


def number(card: Card, metric: str, value: float) -> str:
    """A value with its unit: "86.2 %", "0.862", "1432.1"; "undefined" for none."""
    if not math.isfinite(value):
        return "undefined"
    unit = unit_of(card, metric)
    if unit == "percent":
        return f"{value:.1f} %"
    return f"{value:.3f}" if unit == "share" else f"{value:.1f}"


def interval(card: Card, metric: str, found: Estimate) -> str:
    """The ends of a 95 % interval: "86.0 to 88.3"; "" where there are none."""
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return ""
    digits = 3 if unit_of(card, metric) == "share" else 1
    return f"{found.low:.{digits}f} to {found.high:.{digits}f}"


def known(value: float | None) -> float | None:
    """A number for a table; None for what is not defined."""
    return None if value is None or not math.isfinite(value) else value


def quoted(text: str, longest: int = _LONGEST) -> str:
    """A text from outside on one line, in quotes, cut where it is very long."""
    return repr(text if len(text) <= longest else f"{text[:longest]}...")


def sentence(text: str) -> str:
    """A text of a card as a whole sentence on one line."""
    line = " ".join(text.split())
    return line if line.endswith((".", "!", "?")) else f"{line}."


def beside(card: Card, metric: str, said: Mapping[str, float | None]) -> str:
    """What a score is to be held against: "always 'yes' 66.7 %, blind 50.1 %"."""
    return ", ".join(
        f"{name} {number(card, metric, value)}" for name, value in said.items() if value is not None
    )
