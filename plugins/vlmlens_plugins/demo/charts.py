"""Bar charts whose every value is known, drawn with Pillow: no fonts, the same pixels everywhere.

A chart has three or four bars named A, B, C, D, of different whole values from 1 to 9, beside an
axis with marks at 0, 3, 6 and 9. Chart ``i`` is a pure function of ``(seed, i)``. Three questions
are asked of each: a value, the highest bar, and a difference, which takes arithmetic.

Example:
    >>> chart = make_chart(0)
    >>> chart == make_chart(0), draw_chart(chart).size
    (True, (128, 128))
    >>> print(chart.table)
    bar | value
    A | 9
    B | 8
    C | 4
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from vlmlens_plugins.demo.scenes import COLORS

CHARTS_VERSION: Final = 1
"""Raised whenever the same index would give another chart or another picture."""

CHART_SIZE: Final = 128
NAMES: Final = ("A", "B", "C", "D")
HIGHEST: Final = 9
CHART_TASKS: Final = ("value", "maximum", "difference")

_FEWEST: Final = 3
_UNIT: Final = 11
_LEFT, _BASE, _WIDTH, _STEP = 20, 108, 16, 26
_INK: Final = (20, 20, 20)
_PAPER: Final = (250, 250, 246)
_BARS: Final = tuple(COLORS[name] for name in ("red", "green", "blue", "orange"))
_MARKS: Final = (0, 3, 6, 9)
_GLYPH_SCALE: Final = 2
_GLYPHS: Final[dict[str, tuple[str, ...]]] = {
    "A": ("010", "101", "111", "101", "101"),
    "B": ("110", "101", "110", "101", "110"),
    "C": ("011", "100", "100", "100", "011"),
    "D": ("110", "101", "101", "101", "110"),
    "0": ("111", "101", "101", "101", "111"),
    "3": ("111", "001", "011", "001", "111"),
    "6": ("111", "100", "111", "101", "111"),
    "9": ("111", "101", "111", "001", "111"),
}


@dataclass(frozen=True)
class ChartQuestion:
    """One question about a chart.

    Attributes:
        task: One of `CHART_TASKS`.
        prompt: What the model is asked.
        label: The right answer, as text.
        region: The bars that it is about, as selectors name regions.
        fact: What has to be seen for it, where that is not the label.
    """

    task: str
    prompt: str
    label: str
    region: str
    fact: str = ""


@dataclass(frozen=True)
class Chart:
    """A bar chart.

    Attributes:
        index: Its number.
        seed: The seed of the whole data set.
        values: Of the bars A, B, C, ..., all different, from 1 to 9.
    """

    index: int
    seed: int
    values: tuple[int, ...]

    @property
    def id(self) -> str:
        """A stable name, such as ``chart-00007``."""
        return f"chart-{self.index:05d}"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the bars."""
        return NAMES[: len(self.values)]

    @property
    def table(self) -> str:
        """The data, as a table in text."""
        rows = zip(self.names, self.values, strict=True)
        return "\n".join(["bar | value", *(f"{name} | {value}" for name, value in rows)])

    @property
    def description(self) -> str:
        """A true description that says all that the questions need."""
        rows = zip(self.names, self.values, strict=True)
        listed = ", ".join(f"{name} has the value {value}" for name, value in rows)
        return f"A bar chart with {len(self.values)} bars: {listed}."

    @property
    def boxes(self) -> dict[str, tuple[int, int, int, int]]:
        """Each bar in pixels, (left, top, right, bottom)."""
        lefts = [_LEFT + 6 + _STEP * k for k in range(len(self.values))]
        return {
            name: (left, _BASE - _UNIT * value, left + _WIDTH, _BASE)
            for name, left, value in zip(self.names, lefts, self.values, strict=True)
        }


def make_chart(index: int, *, seed: int = 0) -> Chart:
    """Make one chart.

    Args:
        index: Its number, 0 or more.
        seed: Seed of the whole data set.

    Raises:
        ValueError: The index is negative.
    """
    if index < 0:
        raise ValueError(f"chart index is {index}; expected 0 or more")
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(3, index)))
    bars = int(rng.integers(_FEWEST, len(NAMES) + 1))
    values = rng.permutation(np.arange(1, HIGHEST + 1))[:bars].tolist()
    return Chart(index, seed, tuple(values))


def chart_questions(chart: Chart) -> tuple[ChartQuestion, ...]:
    """The three questions about a chart, in the order of `CHART_TASKS`."""
    first, second = chart.values[:2]
    highest = chart.names[int(np.argmax(chart.values))]
    return (
        ChartQuestion("value", "Value of A:", str(first), "A"),
        ChartQuestion("maximum", "Name of the highest bar:", highest, "+".join(chart.names)),
        ChartQuestion(
            "difference",
            "Difference of A and B:",
            str(abs(first - second)),
            "A+B",
            f"{first} and {second}",
        ),
    )


def draw_chart(chart: Chart) -> Image.Image:
    """Draw a chart as an RGB image of `CHART_SIZE` pixels a side."""
    canvas = Image.new("RGB", (CHART_SIZE, CHART_SIZE), _PAPER)
    pen = ImageDraw.Draw(canvas)
    for mark in _MARKS:
        height = _BASE - _UNIT * mark
        pen.line((_LEFT - 3, height, _LEFT, height), fill=_INK)
        _write(pen, str(mark), _LEFT - 12, height - 5)
    for (name, box), color in zip(chart.boxes.items(), _BARS, strict=False):
        left, top, right, bottom = box
        pen.rectangle((left, top, right - 1, bottom - 1), fill=color)
        _write(pen, name, left + (_WIDTH - 3 * _GLYPH_SCALE) // 2, _BASE + 5)
    pen.line((_LEFT, _BASE - _UNIT * HIGHEST - 4, _LEFT, _BASE), fill=_INK)
    pen.line((_LEFT, _BASE, CHART_SIZE - 4, _BASE), fill=_INK)
    return canvas


def _write(pen: ImageDraw.ImageDraw, sign: str, left: int, top: int) -> None:
    """Draw one letter or digit."""
    for row, line in enumerate(_GLYPHS[sign]):
        for column, inked in enumerate(line):
            if inked == "1":
                x, y = left + column * _GLYPH_SCALE, top + row * _GLYPH_SCALE
                pen.rectangle((x, y, x + _GLYPH_SCALE - 1, y + _GLYPH_SCALE - 1), fill=_INK)
