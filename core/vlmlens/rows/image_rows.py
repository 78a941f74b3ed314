"""Image rows by name: those of a region, of the rest, of a view, of a patch, of a frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vlmlens.errors import SelectorError
from vlmlens.rows.layouts import Ints, PatchGrid, TokenKind, TokenLayout
from vlmlens.rows.named import NamedRows
from vlmlens.rows.names import Names

Bools = npt.NDArray[np.bool_]


def image_rows(named: NamedRows, layout: TokenLayout) -> Ints:
    """int64 `[k]`: the places of the named rows in a layout.

    Raises:
        SelectorError: Where image rows lie is not known, or there is no such region or view.
        DataError: The sample's regions cannot be used.
        ImageError: A mask cannot be read.
    """
    places = layout.positions(TokenKind.IMAGE)
    if not len(places) or named.what == "video":
        return places
    grid = layout.patches
    if grid is None:
        raise SelectorError(
            f"{str(named)!r} needs to know where image rows lie in the image. On this axis they "
            "have no place: they are learned queries, or the family's grid is not known.",
            subject=str(named),
            hint="Use `image`, image[3:9], or another site: a vision block, for example.",
        )
    if named.what == "view":
        return places[_of_view(named, grid)]
    if named.what == "patch":
        return places[_of_patch(named, grid)]
    if named.what == "frame":
        return places[_of_frames(named, grid)]
    if layout.names is None:
        raise not_named(named)
    inside = in_region(named, grid, layout.names)
    return places[~inside if named.what == "rest" else inside]


def not_named(named: NamedRows) -> SelectorError:
    """The error where an adapter does not say what rows by name need."""
    return SelectorError(
        f"{str(named)!r} is not known here: the adapter says nothing of questions and regions.",
        subject=str(named),
        hint="Use other rows, such as image, text, [3:9].",
    )


def in_region(named: NamedRows, grid: PatchGrid, names: Names) -> Bools:
    """The patches of a region (of all, for the name ""), with its rings: bool `[n]`.

    Raises:
        SelectorError: There is no such region, or no patch sees it.
        DataError: The sample's regions cannot be used.
        ImageError: A mask cannot be read.
    """
    regions = names.regions
    inside = np.zeros(len(grid), bool)
    for shape in regions.named(named.name, str(named)):
        of_image = grid.of_image(shape.image)
        inside[of_image] |= regions.overlaps(shape, grid.box[of_image].astype(np.float64))
    if named.what == "region" and not inside.any():
        raise SelectorError(
            f"{str(named)!r}: no image row of the sample {regions.sample!r} lies there.",
            subject=str(named),
            hint="The processor may cut that part of the image off, or the model sees another of "
            "the sample's images.",
        )
    return _with_rings(inside, grid, named.ring) if named.ring else inside


def views_of(grid: PatchGrid) -> list[tuple[int, str]]:
    """The views of a sample's images, as (image, name), in the order of their rows."""
    return list(dict.fromkeys(zip(grid.image.tolist(), grid.view, strict=True)))


def _of_view(named: NamedRows, grid: PatchGrid) -> Bools:
    views = views_of(grid)
    if named.numbers:
        (number,) = named.numbers
        chosen = views[number : number + 1 or None]
    else:
        chosen = [view for view in views if view[1] == named.name]
    if not chosen:
        known = ", ".join(f"{i} ({name})" for i, (_, name) in enumerate(views[:8]))
        raise SelectorError(
            f"{str(named)!r}: the sample has no such view.",
            subject=str(named),
            hint=f"Its views are {known}{', ...' if len(views) > 8 else ''}.",
        )
    return _in_views(grid, chosen)


def _in_views(grid: PatchGrid, chosen: list[tuple[int, str]]) -> Bools:
    pairs = zip(grid.image.tolist(), grid.view, strict=True)
    return np.fromiter((pair in chosen for pair in pairs), bool, len(grid))


def _of_frames(named: NamedRows, grid: PatchGrid) -> Bools:
    count = int(grid.end.max())
    found = np.zeros(len(grid), bool)
    for number in named.frames(count):
        found |= grid.of_image(number)
    if not found.any():
        raise no_such_frame(named, count)
    return found


def no_such_frame(named: NamedRows, count: int, sample: str = "") -> SelectorError:
    """The error for frames that a sample does not have.

    Args:
        named: The frames.
        count: How many it has.
        sample: Its id, if it is known.
    """
    name = f"the sample {sample!r}" if sample else "the sample"
    has = f"{count} frames, 0 to {count - 1}" if count > 1 else f"{count or 'no'} frame"
    return SelectorError(
        f"{str(named)!r}: {name} has no such frame.",
        subject=str(named),
        hint=f"It has {has}. Frames are counted from 0, images of a sample likewise.",
    )


def _of_patch(named: NamedRows, grid: PatchGrid) -> Bools:
    row, col = named.numbers
    found: Bools = (grid.row == row) & (grid.col == col)
    if not found.any():
        sizes = dict.fromkeys(zip(grid.rows.tolist(), grid.cols.tolist(), strict=True))
        raise SelectorError(
            f"{str(named)!r}: the sample has no such patch.",
            subject=str(named),
            hint="Rows and columns are counted from 0; its grids are "
            f"{', '.join(f'{r} x {c}' for r, c in sizes)}.",
        )
    return found


def _with_rings(inside: Bools, grid: PatchGrid, rings: int) -> Bools:
    """The patches with those of their views that are at most `rings` rows and columns away."""
    grown = inside.copy()
    for view in views_of(grid):
        where = np.flatnonzero(_in_views(grid, [view]))
        row, col = grid.row[where], grid.col[where]
        near = np.zeros((row.max() + 1, col.max() + 1), bool)
        near[row, col] = inside[where]
        width = min(rings, max(near.shape))
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(near, width), (2 * width + 1, 2 * width + 1)
        )
        grown[where] = windows[row, col].any((1, 2))
    return grown
