"""Figures of one sample at a time: lens tables, and maps of patches over the picture.

The page holds them as data, and its script draws the chosen one. Without scripts, the page shows
the first ones: as a table, or as a row of small maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlmlens.report._embed import Words, data_block, rounded
from vlmlens.report._heatmap import scale_bar
from vlmlens.report._labels import shortened
from vlmlens.report._markup import Markup, join, tag
from vlmlens.report._pictures import LARGE, Pictures
from vlmlens.report._scale import limits
from vlmlens.report._text import cut, finite, one_line, plural, show, width
from vlmlens.report._theme import level
from vlmlens.results import Figure, Sheet

_STILL_CELLS = 600
_LONGEST_TEXT = 14
_PANEL, _GAP, _ACROSS = 142.0, 16.0, 6
Box = tuple[float, float, float, float]


def draw_sheets(figure: Figure, pictures: Pictures, name: str = "figure") -> Markup:
    """A figure of kind "lens" or "patches".

    Args:
        figure: What to draw.
        pictures: The samples' pictures.
        name: The figure's element id.
    """
    is_lens = figure.kind == "lens"
    still = _still_lens(figure) if is_lens else _still_patches(figure, pictures, name)
    view = {"tabindex": "0", "role": "region", "aria_label": f"{one_line(figure.title)}, by sample"}
    return join(
        [
            tag("div", *_controls(figure), class_="live controls"),
            tag("p", class_="live question muted"),
            _scale(figure),
            tag("div", tag("div", class_="view scroll", **view), _tip(), class_="live shown"),
            tag("div", still, _left_out(figure), class_="still"),
            data_block(_data(figure, pictures), "sheets-data"),
        ]
    )


def box_of(sheet: Sheet, patch: int) -> Box | None:
    """The part of a patch inside the picture; None if it has no place."""
    return clipped(sheet.boxes[patch])


def clipped(box: Sequence[float | None] | None) -> Box | None:
    """The part of a box inside the picture; None if it has no place there."""
    ends = [finite(value) for value in box] if box else [None]
    inside = [min(max(value, 0.0), 1.0) for value in ends if value is not None]
    if len(inside) < 4 or inside[0] >= inside[2] or inside[1] >= inside[3]:
        return None
    return inside[0], inside[1], inside[2], inside[3]


def _controls(figure: Figure) -> list[Markup]:
    chosen = tag("select", data_role="sheet")
    parts = [
        tag("span", class_="facets"),
        _control("samples with", tag("input", type="search", data_role="filter", size="10")),
        _control("sample", chosen),
        tag("output", class_="count"),
    ]
    if figure.kind == "lens":
        find = tag("input", type="search", data_role="find", size="10")
        return [*parts, _control("mark the token", find)]
    ends = {"min": "0", "max": str(max(len(figure.y) - 1, 0)), "step": "1", "value": "0"}
    slider = tag("input", type="range", data_role="layer", **ends)
    words = tag("input", type="checkbox", data_role="words", checked=True)
    layer = [_control("layer", slider), tag("output", class_="layer")]
    return [*parts, tag("span", *layer, class_="slide"), _control("tokens", words)]


def _control(name: str, element: Markup) -> Markup:
    return tag("label", tag("span", name), element)


def _scale(figure: Figure) -> Markup:
    """What the colours stand for."""
    bar, wide = scale_bar(limits(figure), look="patch" if figure.kind == "patches" else "")
    name = one_line(figure.y_label) or "value"
    label = tag("text", name, class_="axis-name", x=wide + 8, y=12.0)
    size = {"width": round(wide + 16 + width(name, 11)), "height": 16}
    return tag("svg", bar, label, class_="scale", role="img", aria_label=f"scale of {name}", **size)


def _tip() -> Markup:
    return tag("div", class_="tip", role="status")


def _data(figure: Figure, pictures: Pictures) -> dict[str, Any]:
    words = Words()
    low, high = limits(figure)
    sheets = [_sheet(sheet, figure, words, pictures) for sheet in figure.sheets]
    return {
        "kind": figure.kind,
        "layers": [one_line(name) for name in shortened(figure.y)],
        "low": low,
        "high": high,
        "xLabel": one_line(figure.x_label),
        "sheets": sheets,
        "words": words.listed(),
    }


def _sheet(sheet: Sheet, figure: Figure, words: Words, pictures: Pictures) -> dict[str, Any]:
    known = pictures.samples.get(sheet.sample)
    of_sample = {"task": known.task, "label": known.label} if known else {}
    facets = {**{name: value for name, value in of_sample.items() if value}, **sheet.facets}
    made: dict[str, Any] = {
        "name": words.number(sheet.name),
        "question": words.number(known.prompt if known else ""),
        "facets": {one_line(name): words.number(value) for name, value in facets.items()},
        "cells": [[rounded(finite(value)) for value in row] for row in sheet.cells],
        "texts": [words.numbers(map(one_line, row)) for row in sheet.texts],
        "tips": [words.numbers(row) for row in sheet.tips],
        "x": words.numbers(map(one_line, sheet.x or figure.x)),
    }
    if figure.kind == "patches":
        boxes = [box_of(sheet, i) for i in range(len(sheet.boxes))]
        made["boxes"] = [box and [rounded(value) for value in box] for box in boxes]
        made["picture"] = pictures.number(sheet.sample, sheet.image, LARGE)
    return made


def _left_out(figure: Figure) -> Markup:
    shown = _still_count(figure)
    rest = len(figure.sheets) - shown
    text = f"{plural(rest, 'more sample')} can be chosen if scripts are allowed." if rest else ""
    return tag("p", text, class_="muted") if text else Markup("")


def _still_count(figure: Figure) -> int:
    if figure.kind == "patches":
        return min(1, len(figure.sheets))
    shown = used = 0
    for sheet in figure.sheets:
        used += sum(len(row) for row in sheet.cells)
        if shown and used > _STILL_CELLS:
            break
        shown += 1
    return shown


def _still_lens(figure: Figure) -> Markup:
    return join([_table(figure, sheet) for sheet in figure.sheets[: _still_count(figure)]])


def _table(figure: Figure, sheet: Sheet) -> Markup:
    names = [one_line(name) for name in sheet.x or figure.x]
    head = tag("tr", tag("th", "layer", scope="col"), *(tag("th", n, scope="col") for n in names))
    ends, layers = limits(figure), shortened(figure.y)
    rows = [_row(sheet, i, name, ends) for i, name in enumerate(layers)]
    title = one_line(sheet.name)
    drawn = tag("table", tag("caption", title), tag("thead", head), tag("tbody", *rows))
    region = {"tabindex": "0", "role": "region", "aria_label": title}
    heading = tag("p", title, class_="muted")
    return join([heading, tag("div", drawn, class_="scroll lens", **region)])


def _row(sheet: Sheet, layer: int, name: str, ends: tuple[float, float]) -> Markup:
    cells = []
    for i, value in enumerate(sheet.cells[layer]):
        number = finite(value)
        look = "hn" if number is None else f"h{level(number, *ends)}"
        text = sheet.texts[layer][i] if sheet.texts else show(number)
        tip = sheet.tips[layer][i] if sheet.tips else show(number)
        cells.append(tag("td", cut(one_line(text), _LONGEST_TEXT), class_=look, title=tip))
    return tag("tr", tag("th", name, scope="row"), *cells)


def _still_patches(figure: Figure, pictures: Pictures, name: str) -> Markup:
    if not figure.sheets:
        return Markup("")
    sheet = figure.sheets[0]
    number = pictures.number(sheet.sample, sheet.image, LARGE)
    source, wide, high = pictures.shown(number) if number is not None else (None, 1, 1)
    tall = _PANEL * high / wide
    ends = limits(figure)
    shared = tag("image", href=source, width=_PANEL, height=round(tall, 1), id=f"{name}-picture")
    under = [tag("use", href=f"#{name}-picture")] if source else []
    panels = [
        _panel(layer, [*under, *_paths(sheet, i, ends, tall)], (i, tall))
        for i, layer in enumerate(shortened(figure.y))
    ]
    across = min(_ACROSS, len(panels))
    total = across * (_PANEL + _GAP)
    height = -(-len(panels) // across) * (tall + 26)
    drawn = tag(
        "svg",
        tag("defs", *([shared] if source else [])),
        *panels,
        viewBox=f"0 0 {total:.0f} {height:.0f}",
        width=round(total),
        height=round(height),
        role="img",
        aria_label=f"{one_line(figure.title)}: {one_line(sheet.name)}, every layer.",
    )
    caption = tag("p", one_line(sheet.name), class_="muted")
    return join([caption, tag("div", drawn, class_="scroll")])


def _panel(name: str, drawn: Sequence[Markup], place: tuple[int, float]) -> Markup:
    number, tall = place
    x = (number % _ACROSS) * (_PANEL + _GAP)
    y = (number // _ACROSS) * (tall + 26)
    caption = tag("text", one_line(name), x=0.0, y=round(tall + 14, 1))
    return tag("g", *drawn, caption, transform=f"translate({x:.1f} {y:.1f})")


def _paths(sheet: Sheet, layer: int, ends: tuple[float, float], tall: float) -> list[Markup]:
    """The patches of a layer, those of one colour as one path."""
    by_level: dict[int, list[str]] = {}
    for i, value in enumerate(sheet.cells[layer]):
        box, number = box_of(sheet, i), finite(value)
        if box is None or number is None:
            continue
        left, top, right, bottom = _scaled(box, _PANEL, tall)
        part = f"M{left:.1f} {top:.1f}H{right:.1f}V{bottom:.1f}H{left:.1f}Z"
        by_level.setdefault(level(number, *ends), []).append(part)
    return [tag("path", class_=f"patch h{i}", d="".join(d)) for i, d in sorted(by_level.items())]


def _scaled(box: Box, wide: float, tall: float) -> Sequence[float]:
    return box[0] * wide, box[1] * tall, box[2] * wide, box[3] * tall
