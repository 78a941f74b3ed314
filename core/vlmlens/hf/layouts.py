"""Builds token layouts and patch grids from encoded tensors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vlmlens.hf.frames import Frames
from vlmlens.tokens import AxisLayout, PatchGrid, TokenKind, TokenLayout

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class CropGeometry:
    """How an image was resized and placed before it was cut into patches, in pixels.

    Args:
        width: Width of the whole image after resizing; `height` likewise.
        left: Left edge of the model's input in the resized image (negative where it is padded);
            `top` likewise.
    """

    width: int
    height: int
    left: int = 0
    top: int = 0


@dataclass(frozen=True, slots=True)
class PlacedImage:
    """What layouts need to know of one image of a batch.

    Args:
        sample: Number of its sample in the batch.
        image: Its number in the sample.
        index: Its number in the batch.
        height: Height of the original image in pixels; `width` likewise.
        inputs: The encoded batch, which may hold facts about each image.
        frames: Of a video, how many frames it has; 0 for an image. `image` is then the number of
            its first frame, and `index` its number among the videos of the batch.
    """

    sample: int
    image: int
    index: int
    height: int
    width: int
    inputs: Mapping[str, Any]
    frames: int = 0


def placed_images(
    images: Sequence[Sequence[Any]], inputs: Mapping[str, Any]
) -> list[list[PlacedImage]]:
    """The images of each sample, numbered; of a video, one."""
    numbers, videos = itertools.count(), itertools.count()

    def placed(sample: int, group: Sequence[Any]) -> Iterator[PlacedImage]:
        if isinstance(group, Frames):
            first, frames = group[0], len(group)
            yield PlacedImage(sample, 0, next(videos), first.height, first.width, inputs, frames)
            return
        for i, image in enumerate(group):
            yield PlacedImage(sample, i, next(numbers), image.height, image.width, inputs)

    return [list(placed(sample, group)) for sample, group in enumerate(images)]


def grid_patches(
    image: int,
    rows: int,
    cols: int,
    patch: tuple[float, float],
    geometry: CropGeometry,
    view: str = "image",
) -> PatchGrid:
    """A raster of `rows x cols` patches over one image.

    Args:
        image: Number of the image in its sample.
        rows: Rows of the grid.
        cols: Columns of the grid.
        patch: (height, width) of a patch in resized pixels.
        geometry: How the image was resized and placed.
        view: Name of the view.
    """
    row, col = (a.ravel() for a in np.mgrid[0:rows, 0:cols])
    left = (geometry.left + col * patch[1]) / geometry.width
    top = (geometry.top + row * patch[0]) / geometry.height
    right = (geometry.left + (col + 1) * patch[1]) / geometry.width
    bottom = (geometry.top + (row + 1) * patch[0]) / geometry.height
    n = rows * cols
    return PatchGrid(
        image=np.full(n, image, np.int64),
        view=(view,) * n,
        row=row.astype(np.int64),
        col=col.astype(np.int64),
        rows=np.full(n, rows, np.int64),
        cols=np.full(n, cols, np.int64),
        box=np.stack([left, top, right, bottom], 1).astype(np.float32),
    )


def joined(grids: Sequence[PatchGrid | None]) -> PatchGrid | None:
    """The grids of a sample's images, one after the other; None if one is None or there is none."""
    known = [grid for grid in grids if grid is not None]
    if not known or len(known) < len(grids):
        return None
    return PatchGrid(
        image=np.concatenate([g.image for g in known]),
        view=tuple(name for g in known for name in g.view),
        row=np.concatenate([g.row for g in known]),
        col=np.concatenate([g.col for g in known]),
        rows=np.concatenate([g.rows for g in known]),
        cols=np.concatenate([g.cols for g in known]),
        box=np.concatenate([g.box for g in known]),
        span=None
        if all(g.span is None for g in known)
        else np.concatenate([g.end - g.image for g in known]),
    )


def frame_patches(grid: PatchGrid, frames: int, steps: int) -> PatchGrid:
    """A video's patches: the grid of a frame, once per step of time.

    The last step of an odd number of frames stands for fewer frames.

    Args:
        grid: Of one frame.
        frames: How many frames the video has.
        steps: How many steps the model sees; each stands for as many frames, in order.
    """
    each, patches = -(-frames // steps), len(grid)
    first = np.arange(0, each * steps, each, dtype=np.int64)
    return PatchGrid(
        image=np.repeat(first, patches),
        view=grid.view * steps,
        row=np.tile(grid.row, steps),
        col=np.tile(grid.col, steps),
        rows=np.tile(grid.rows, steps),
        cols=np.tile(grid.cols, steps),
        box=np.tile(grid.box, (steps, 1)),
        span=np.repeat(np.minimum(each, frames - first), patches),
    )


def with_row_ends(grid: PatchGrid, image: int, rows: int, cols: int, more: int = 0) -> PatchGrid:
    """The grid with a separator after each row: an entry without a place, whose box is NaN.

    Args:
        grid: One view of `rows x cols` patches; there may be no columns.
        image: Number of the image in its sample.
        rows: Rows of the grid.
        cols: Columns of the grid.
        more: How many more separators follow at the end.
    """
    ends = [*range(cols, rows * cols + 1, cols)] if cols else [0] * rows
    ends += [rows * cols] * more
    view = grid.view[0] if grid.view else "ends"
    return PatchGrid(
        image=np.insert(grid.image, ends, image),
        view=(view,) * (len(grid) + len(ends)),
        row=np.insert(grid.row, ends, np.array(ends) // max(cols, 1) - 1),
        col=np.insert(grid.col, ends, cols),
        rows=np.insert(grid.rows, ends, rows),
        cols=np.insert(grid.cols, ends, cols),
        box=np.insert(grid.box, ends, np.float32(np.nan), axis=0),
    )


def tower_layout(
    images_per_sample: Sequence[int],
    patches: int,
    grids: Sequence[PatchGrid | None],
    *,
    special: int = 0,
) -> AxisLayout:
    """The layout of a module whose output is `[images, special + patches, width]`.

    Args:
        images_per_sample: How many images each sample has.
        patches: Patch tokens per image.
        grids: The patch grid of each sample.
        special: Tokens before the patches (1 for a CLS token).
    """
    length = special + patches
    kinds_of_one = np.full(length, TokenKind.IMAGE, np.uint8)
    kinds_of_one[:special] = TokenKind.SPECIAL
    layouts, first = [], 0
    for count, grid in zip(images_per_sample, grids, strict=True):
        rows = np.arange(first * length, (first + count) * length, dtype=np.int64)
        layouts.append(TokenLayout(rows, np.tile(kinds_of_one, count), patches=grid))
        first += count
    return AxisLayout(first * length, layouts)


def packed_layout(
    rows: Sequence[Sequence[npt.NDArray[np.int64]]], grids: Sequence[PatchGrid | None]
) -> AxisLayout:
    """The layout of a module whose output is `[patches of all images, width]`.

    Args:
        rows: Per sample and image, int64 `[patches]`: where each patch, in raster order, stands
            among the image's rows.
        grids: The patch grid of each sample, in raster order.
    """
    layouts, first = [], 0
    for group, grid in zip(rows, grids, strict=True):
        placed = [np.zeros(0, np.int64)]
        for order in group:
            placed.append(first + order)
            first += len(order)
        own = np.concatenate(placed)
        kinds = np.full(len(own), TokenKind.IMAGE, np.uint8)
        layouts.append(TokenLayout(own, kinds, patches=grid))
    return AxisLayout(first, layouts)


def raster_layout(grids: Sequence[PatchGrid | None]) -> AxisLayout:
    """The layout of a module that outputs all samples' image tokens in the order of their grids.

    Args:
        grids: The patch grid of each sample; None for a sample without an image.
    """
    counts = [0 if grid is None else len(grid) for grid in grids]
    return packed_layout([[np.arange(count, dtype=np.int64)] for count in counts], grids)


def sample_layout(samples: int) -> AxisLayout:
    """The layout of a pooled output `[samples, width]`: one row of kind SPECIAL per sample."""
    kind = np.full(1, TokenKind.SPECIAL, np.uint8)
    return AxisLayout(samples, [TokenLayout(np.array([i]), kind) for i in range(samples)])


def sequence_layout(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    kinds: npt.NDArray[np.uint8],
    grids: Sequence[PatchGrid | None] | None,
) -> AxisLayout:
    """The layout of the language model's sequence `[samples, positions, width]`.

    Args:
        input_ids: int64 `[samples, positions]`.
        attention_mask: `[samples, positions]`, 0 at padding.
        kinds: uint8 `[samples, positions]`, a `TokenKind` per position.
        grids: The patch grid of each sample's image tokens; None if image tokens have no place in
            the image (learned queries).
    """
    ids = input_ids.cpu().numpy()
    mask = attention_mask.cpu().numpy().astype(bool)
    positions = ids.shape[1]
    layouts = []
    for i in range(len(ids)):
        where = np.flatnonzero(mask[i])
        found = kinds[i, where]
        regions = None if grids is None else _without_separators(grids[i], found)
        layouts.append(TokenLayout(where + i * positions, found, ids[i, where], regions))
    return AxisLayout(ids.size, layouts)


def _without_separators(grid: PatchGrid | None, kinds: npt.NDArray[np.uint8]) -> PatchGrid | None:
    """Mark separators as special, in place, and drop them from the grid.

    Raises:
        ValueError: The grid has another number of tokens than the sequence.
    """
    where = np.flatnonzero(kinds == TokenKind.IMAGE)
    if len(where) != (0 if grid is None else len(grid)):
        tokens = 0 if grid is None else len(grid)
        raise ValueError(f"the sequence has {len(where)} image tokens, the patch grid {tokens}")
    if grid is None:
        return None
    region = ~np.isnan(grid.box).any(1)
    kinds[where[~region]] = TokenKind.SPECIAL
    return grid if region.all() else grid.take(np.flatnonzero(region))
