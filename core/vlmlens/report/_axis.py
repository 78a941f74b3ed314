"""The horizontal axis of a figure on the page: layers in groups, or labels straight or slanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, radians, sin

from vlmlens.report._labels import Group, grouped, shortened
from vlmlens.report._markup import Markup, join, tag
from vlmlens.report._text import cut, one_line, width

SIZE = 11.0
_ANGLE = 40.0
_LONGEST = 26


@dataclass(frozen=True, slots=True)
class Axis:
    """A drawn axis; its origin is the lower left corner of the plot.

    Args:
        markup: Ticks and labels.
        height: How far it reaches down, in pixels.
        borders: Positions between two groups of layers, for faint separators.
    """

    markup: Markup
    height: float
    borders: tuple[float, ...] = ()


def left_room(labels: Sequence[str], least: float, right: float) -> float:
    """Where the axis must begin so that no slanted label crosses the left edge.

    Args:
        labels: One per position.
        least: Where it begins at least, in pixels.
        right: Where it ends.
    """
    texts, count = _texts(labels), max(len(labels), 1)
    if grouped(labels) or _fits(texts, (right - least) / count):
        return least
    # label i begins at left + (i + 1/2) (right - left) / count - reach, which must be >= 0
    parts = [((i + 0.5) / count, _reach(text)) for i, text in enumerate(texts)]
    return max(least, *((reach - part * right) / (1 - part) for part, reach in parts))


def _reach(text: str) -> float:
    return width(text, SIZE) * cos(radians(_ANGLE)) + 10


def draw_axis(labels: Sequence[str], slot: float, name: str) -> Axis:
    """The axis below a plot.

    Args:
        labels: One per position.
        slot: Pixels per position.
        name: The axis's own name, centred below.
    """
    found = grouped(labels)
    axis = _draw_groups(labels, found, slot) if found else _draw_labels(labels, slot)
    if not name:
        return axis
    middle = slot * len(labels) / 2
    below = axis.height + 16
    caption = tag(
        "text", one_line(name), class_="axis-name", x=middle, y=below, text_anchor="middle"
    )
    return Axis(join([axis.markup, caption]), below + 6, axis.borders)


def _texts(labels: Sequence[str]) -> list[str]:
    return [cut(text, _LONGEST) for text in shortened(labels)]


def _fits(texts: Sequence[str], slot: float) -> bool:
    return all(width(text, SIZE) <= slot - 2 for text in texts)


def _draw_labels(labels: Sequence[str], slot: float) -> Axis:
    texts = _texts(labels)
    straight = _fits(texts, slot)
    step = 1 if straight else max(1, round(13 / slot + 0.49))
    parts = [
        _label(text, one_line(full), (index + 0.5) * slot, straight=straight)
        for index, (text, full) in enumerate(zip(texts, labels, strict=True))
        if index % step == 0
    ]
    longest = max((width(text, SIZE) for text in texts), default=0.0)
    height = 18.0 if straight else longest * sin(radians(_ANGLE)) + 16
    return Axis(join(parts), height)


def _label(text: str, full: str, x: float, *, straight: bool) -> Markup:
    inner = join([tag("title", full), text])
    if straight:
        return tag("text", inner, x=x, y=16.0, text_anchor="middle")
    place = f"translate({x + 3:.1f} 13) rotate(-{_ANGLE:.0f})"
    return tag("text", inner, text_anchor="end", transform=place)


def _draw_groups(labels: Sequence[str], found: Sequence[Group], slot: float) -> Axis:
    parts: list[Markup] = []
    ends = [-1e9, -1e9]
    for group in found:
        parts.extend(_numbers(group, labels, slot))
        row = _free_row(group, slot, ends)
        parts.append(_group_name(group, labels, slot, row))
    rows = 2 if ends[1] > 0 else 1
    details = any(group.detail for group in found)
    borders = tuple(group.start * slot for group in found[1:])
    return Axis(join(parts), 38.0 + (rows - 1) * 28 + (13 if details else 0), borders)


def _numbers(group: Group, labels: Sequence[str], slot: float) -> list[Markup]:
    step = next((n for n in (1, 2, 4, 5, 10, 20, 50) if n * slot >= 17), 100)
    parts = []
    for offset, number in enumerate(group.numbers):
        if number % step == 0:
            x = (group.start + offset + 0.5) * slot
            full = tag("title", one_line(labels[group.start + offset]))
            parts.append(tag("text", join([full, str(number)]), x=x, y=15.0, text_anchor="middle"))
    return parts


def _free_row(group: Group, slot: float, ends: list[float]) -> int:
    """The upper row, or the lower one where the names would overlap."""
    half = max(width(group.name, SIZE), width(group.detail, SIZE - 1)) / 2
    middle = (group.start + group.stop) / 2 * slot
    row = 0 if middle - half > ends[0] + 6 or ends[1] > ends[0] else 1
    ends[row] = middle + half
    return row


def _group_name(group: Group, labels: Sequence[str], slot: float, row: int) -> Markup:
    left, right = group.start * slot + 3, group.stop * slot - 3
    middle, top = (left + right) / 2, 22.0
    line = tag("line", class_="bracket", x1=left, x2=right, y1=top, y2=top)
    base = top + 13 + row * 28
    title = tag("title", one_line(labels[group.start]) if not group.numbers else group.name)
    name = tag(
        "text", join([title, group.name]), class_="group", x=middle, y=base, text_anchor="middle"
    )
    if not group.detail:
        return join([line, name])
    detail = tag("text", group.detail, class_="detail", x=middle, y=base + 13, text_anchor="middle")
    return join([line, name, detail])
