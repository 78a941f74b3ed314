"""Checking where image tokens look: paint a cell of the picture, and see which tokens change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from vlmlens.abc.adapter import ModelAdapter
from vlmlens.passes.batch import Batch
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.tokens import AxisLayout, PatchGrid, TokenKind

Cell = tuple[float, float, float, float]
_THRESHOLD = 1e-4


def still(vlm: ModelAdapter) -> ModelAdapter:
    """Turn vision and language blocks into the identity, by setting all their weights to zero."""
    import torch

    with torch.no_grad():
        for name, site in vlm.sites.canonical.items():
            if ".block." in name:
                for parameter in vlm.module.get_submodule(site.path).parameters():
                    parameter.zero_()
    return vlm


def changed_on_axes(
    vlm: ModelAdapter, plain: Image.Image, sites: Mapping[Axis, str]
) -> dict[Axis, tuple[PatchGrid, list[tuple[Cell, list[int]]]]]:
    """On several axes, the patch grid, and for each painted cell the tokens that differ.

    Cells of all axes go through the model in one batch.
    """
    one = vlm.encode([Sample("p", "?", (plain,))])
    grids = {axis: _grid(one, axis) for axis in sites}
    cells = {axis: _cells(grid) for axis, grid in grids.items()}
    places = list(dict.fromkeys(_pixels(plain, cell) for own in cells.values() for cell in own))
    found = _changed(vlm, plain, [_painted(plain, place) for place in places], sites)
    changed = {axis: dict(zip(places, rows, strict=True)) for axis, rows in found.items()}
    return {
        axis: (grid, [(cell, changed[axis][_pixels(plain, cell)]) for cell in cells[axis]])
        for axis, grid in grids.items()
    }


def paint_cells(
    vlm: ModelAdapter, plain: Image.Image, axis: Axis
) -> tuple[PatchGrid, list[tuple[Cell, Image.Image]]]:
    """The patch grid of a picture on an axis, and copies of the picture with one cell painted."""
    grid = _grid(vlm.encode([Sample("p", "?", (plain,))]), axis)
    return grid, [(cell, _painted(plain, _pixels(plain, cell))) for cell in _cells(grid)]


def changed_tokens(
    vlm: ModelAdapter, plain: Image.Image, painted: Sequence[Image.Image], site: str, axis: Axis
) -> list[list[int]]:
    """For each painted picture, the numbers of the image tokens that differ from the plain one's.

    All pictures are of one size; they go through the model in one batch.
    """
    return _changed(vlm, plain, painted, {axis: site})[axis]


def _grid(one: Batch, axis: Axis) -> PatchGrid:
    grid = one.layouts[axis].samples[0].patches
    if grid is None:
        raise AssertionError(f"the {axis.value} axis has no patch grid")
    return grid


def _cells(grid: PatchGrid) -> list[Cell]:
    """Some cells of a grid: what lies in the picture of its first, last and three more boxes."""
    n = len(grid)
    cells = []
    for i in sorted({0, n // 3, n // 2, 2 * n // 3, n - 1}):
        left, top, right, bottom = (float(v) for v in np.clip(grid.box[i], 0, 1))
        if right - left > 0 and bottom - top > 0:
            cells.append((left, top, right, bottom))
    return cells


def _changed(
    vlm: ModelAdapter,
    plain: Image.Image,
    painted: Sequence[Image.Image],
    sites: Mapping[Axis, str],
) -> dict[Axis, list[list[int]]]:
    batch = vlm.encode([Sample(str(i), "?", (image,)) for i, image in enumerate((plain, *painted))])
    trace = vlm.trace(batch, list(sites.values()))
    return {axis: _differing(trace[site], batch.layouts[axis]) for axis, site in sites.items()}


def _differing(activation: Any, layout: AxisLayout) -> list[list[int]]:
    """The numbers of the image tokens that differ from those of the batch's first sample."""
    flat = activation.reshape(-1, activation.shape[-1])
    first, *others = (
        flat[one.rows[one.kinds == TokenKind.IMAGE]].float() for one in layout.samples
    )
    return [
        [i for i, far in enumerate((first - rows).norm(dim=1).tolist()) if far > _THRESHOLD]
        for rows in others
    ]


def painted_is_changed(grid: PatchGrid, cell: Cell, changed: list[int]) -> str:
    """What is wrong with the tokens that changed; empty if they are the right ones.

    Every token whose box covers most of the cell must change. No token farther away than one box
    may change, since resizing spreads a cell over its neighbours at most.
    """
    if not changed:
        return f"painting the cell {_text(cell)} changed no token"
    missing = [i for i in range(len(grid)) if _covers(grid.box[i], cell) and i not in changed]
    if missing:
        return (
            f"painting the cell {_text(cell)} did not change token {missing[0]}, whose box "
            f"{_text(grid.box[missing[0]])} holds it: is the order of patch_grid right?"
        )
    far = [i for i in changed if _far(grid.box[i], cell)]
    if far:
        return (
            f"painting the cell {_text(cell)} changed token {far[0]}, whose box "
            f"{_text(grid.box[far[0]])} is far from it: is the order of patch_grid right?"
        )
    return ""


def _pixels(plain: Image.Image, cell: Cell) -> tuple[int, int, int, int]:
    """The pixels of a cell, as `ImageDraw.rectangle` takes them."""
    width, height = plain.size
    left, top, right, bottom = cell
    return (
        round(left * width),
        round(top * height),
        max(round(right * width) - 1, round(left * width)),
        max(round(bottom * height) - 1, round(top * height)),
    )


def _painted(plain: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    image = plain.copy()
    middle = plain.getpixel(((box[0] + box[2]) // 2, (box[1] + box[3]) // 2))
    colour = tuple(0 if value > 127 else 255 for value in _rgb(middle))
    ImageDraw.Draw(image).rectangle(box, fill=colour)
    return image


def _rgb(pixel: Any) -> tuple[int, int, int]:
    if not isinstance(pixel, tuple):
        raise TypeError("the picture is not RGB")
    return pixel[0], pixel[1], pixel[2]


def _covers(box: Any, cell: Cell) -> bool:
    """Whether the cell's middle lies well inside the box."""
    x, y = (cell[0] + cell[2]) / 2, (cell[1] + cell[3]) / 2
    width, height = box[2] - box[0], box[3] - box[1]
    inside_x = box[0] + 0.1 * width < x < box[2] - 0.1 * width
    return bool(inside_x and box[1] + 0.1 * height < y < box[3] - 0.1 * height)


def _far(box: Any, cell: Cell) -> bool:
    width, height = box[2] - box[0], box[3] - box[1]
    apart_x = max(box[0] - cell[2], cell[0] - box[2])
    apart_y = max(box[1] - cell[3], cell[1] - box[3])
    return bool(apart_x > width or apart_y > height)


def _text(box: Any) -> str:
    return "(" + ", ".join(f"{float(value):.2f}" for value in box) + ")"
