"""Molmo2's images: a small view, then overlapping crops; also without torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD
from transformers.processing_utils import ImagesKwargs

from vlmlens.hf.image_processing import TensorImageProcessor, normalised, resized

Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Canvas:
    """Overlapping crops over one image that is squashed onto a canvas; all in patches.

    Args:
        rows: Rows of crops; `cols` likewise.
        side: Patches along a side of a crop.
        step: From one crop to the next.
        margin: At the left and top of a crop, what belongs to the crop before it.
    """

    rows: int
    cols: int
    side: int
    step: int
    margin: int

    @property
    def height(self) -> int:
        """Of the canvas."""
        return (self.rows - 1) * self.step + self.side

    @property
    def width(self) -> int:
        """Of the canvas."""
        return (self.cols - 1) * self.step + self.side

    def patches(self) -> Ints:
        """int64 `[height, width]`: the number of each patch among the patches of all crops.

        If several crops show a patch, it is taken from the crop in which it is farther inside.
        """
        row, y = self._crop_of(self.height, self.rows)
        col, x = self._crop_of(self.width, self.cols)
        crop = row[:, None] * self.cols + col
        return crop * self.side**2 + y[:, None] * self.side + x

    def _crop_of(self, length: int, crops: int) -> tuple[Ints, Ints]:
        place = np.arange(length)
        crop = np.clip((place - self.margin) // self.step, 0, crops - 1)
        return crop, place - crop * self.step


def canvas_of(settings: Any, height: int, width: int) -> Canvas:
    """The canvas of an image: the smallest that does not make it smaller, else the largest.

    Args:
        settings: An image processor: `max_crops`, `overlap_margins`, `patch_size`, `size`.
        height: Of the original image, in pixels.
        width: Likewise.
    """
    patch, (before, after) = settings.patch_size, settings.overlap_margins
    side = settings.size["height"] // patch
    step = side - before - after
    lost = (before + after) * patch
    numbers = range(1, settings.max_crops + 1)
    grids = [(r, c) for r in numbers for c in numbers if r * c <= settings.max_crops]
    grids.sort(key=lambda grid: (grid[0] * grid[1], grid[0]))
    pixels = np.asarray(grids, np.float32) * (step * patch)
    with np.errstate(divide="ignore"):
        scales = (pixels / np.asarray([height - lost, width - lost], np.float32)).min(1)
    large = np.where(scales < 1, np.float32(10e9), scales)
    best = scales.argmax() if (scales < 1).all() else large.argmin()
    return Canvas(*grids[int(best)], side, step, before)


def pooled(numbers: Ints, height: int, width: int) -> Ints:
    """int64 `[rows, cols, height * width]`: patches in windows, -1 outside the grid.

    Args:
        numbers: int64 `[patch rows, patch columns]`.
        height: Of a window, in patches.
        width: Likewise.
    """
    missing = [-length % size for length, size in zip(numbers.shape, (height, width), strict=True)]
    around = [(gap // 2, gap - gap // 2) for gap in missing]
    padded = np.pad(numbers, around, constant_values=-1)
    rows, cols = padded.shape[0] // height, padded.shape[1] // width
    cut = padded.reshape(rows, height, cols, width).transpose(0, 2, 1, 3)
    return cut.reshape(rows, cols, height * width)


class Molmo2ImageSettings(ImagesKwargs, total=False):
    """Molmo2's settings beside those of every image processor.

    Args:
        max_crops: Largest number of crops beside the small view.
        overlap_margins: Patches of a crop that belong to the one before and after it.
        patch_size: Side of a patch in pixels.
        pooling_size: (rows, columns) of the patches that become one token.
    """

    max_crops: int
    overlap_margins: list[int]
    patch_size: int
    pooling_size: list[int]


class Molmo2Images(TensorImageProcessor):
    """Does the same as transformers' `Molmo2ImageProcessor`, without torchvision."""

    valid_kwargs = Molmo2ImageSettings
    model_input_names = ["pixel_values", "image_token_pooling", "image_grids", "image_num_crops"]  # noqa: RUF012
    resample = 2
    image_mean = IMAGENET_STANDARD_MEAN
    image_std = IMAGENET_STANDARD_STD
    do_resize = do_rescale = do_normalize = do_convert_rgb = True
    size = {"height": 378, "width": 378}  # noqa: RUF012
    max_crops = 8
    overlap_margins = [4, 4]  # noqa: RUF012
    patch_size = 14
    pooling_size = [2, 2]  # noqa: RUF012

    def features(self, images: Sequence[torch.Tensor], **settings: Any) -> dict[str, Any]:
        """See `TensorImageProcessor.features`: the patches of all crops, and where they go."""
        crops, tokens, grids, first = [], [], [], 0
        for image in images:
            patches, windows, grid = self._one(image, settings)
            tokens.append(np.where(windows < 0, windows, windows + first))
            first += patches.shape[0] * patches.shape[1]
            crops.append(patches)
            grids.append(grid)
        return {
            "pixel_values": torch.cat(crops),
            "image_token_pooling": torch.from_numpy(np.concatenate(tokens)),
            "image_grids": torch.tensor(grids),
            "image_num_crops": torch.tensor([len(patches) for patches in crops]),
        }

    def _one(
        self, image: torch.Tensor, settings: dict[str, Any]
    ) -> tuple[torch.Tensor, Ints, list[int]]:
        """Patches `[1 + crops, patches, values]`, patches of each token, and both token grids."""
        canvas, patch = canvas_of(self, *image.shape[-2:]), self.patch_size
        small = _pixels(image, canvas.side * patch, canvas.side * patch, settings)
        large = _pixels(image, canvas.height * patch, canvas.width * patch, settings)
        side, step = canvas.side * patch, canvas.step * patch
        cut = large.unfold(1, side, step).unfold(2, side, step).permute(1, 2, 0, 3, 4)
        views = torch.cat([small[None], cut.reshape(-1, 3, side, side)])
        whole = np.arange(canvas.side**2).reshape(canvas.side, canvas.side)
        coarse = pooled(whole, *self.pooling_size)
        fine = pooled(canvas.patches() + canvas.side**2, *self.pooling_size)
        windows = [level.reshape(-1, level.shape[-1]) for level in (coarse, fine)]
        grid = [*coarse.shape[:2], *fine.shape[:2]]
        return _patches(views, patch), np.concatenate(windows), grid


def _pixels(image: torch.Tensor, height: int, width: int, settings: dict[str, Any]) -> torch.Tensor:
    squashed = resized(image.float(), height, width, resample=settings["resample"], antialias=False)
    mean, std = settings["image_mean"], settings["image_std"]
    return normalised(squashed.round().clamp(0, 255), mean, std, factor=settings["rescale_factor"])


def _patches(views: torch.Tensor, patch: int) -> torch.Tensor:
    """`[views, 3, side, side] -> [views, patches, patch * patch * 3]`, patches by rows."""
    count, channels, side = views.shape[:3]
    cells = views.reshape(count, channels, side // patch, patch, side // patch, patch)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(count, -1, patch * patch * channels)
