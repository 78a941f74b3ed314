"""Pixels as upstream makes them: an image's overview and slices, as rows of patches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from vlmlens.hf.image_processing import normalised
from vlmlens_adapter_minicpm.older.slicing import Slicing


class SliceImages:
    """Cuts images, and their views into patches.

    Args:
        slicing: How images are cut.
        mean: Per channel, taken off pixels between 0 and 1.
        std: Per channel, by which they are then divided.
    """

    backend = "pil"

    def __init__(
        self,
        slicing: Slicing,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        self.slicing, self.mean, self.std = slicing, mean, std

    def __call__(self, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        """The model's inputs for at least one image.

        Returns:
            float32 `pixel_values` `[slices, patches, 3 * patch * patch]`, filled up with zeros to
            the longest slice, and int64 `target_sizes` `[slices, 2]`, rows and columns of patches.
        """
        views = [view for image in images for view in self.views(image)]
        rows = [self._rows(view) for view in views]
        patch = self.slicing.patch
        sizes = [(view.height // patch, view.width // patch) for view in views]
        return {
            "pixel_values": torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
            "target_sizes": torch.tensor(sizes),
        }

    def views(self, image: Image.Image) -> list[Image.Image]:
        """The overview, then the slices by rows."""
        cut = self.slicing.cut(image.width, image.height)
        image = image.convert("RGB")
        overview = image.resize(cut.source, Image.Resampling.BICUBIC)
        if cut.grid is None:
            return [overview]
        canvas = image.resize(cut.canvas, Image.Resampling.BICUBIC)
        (columns, rows), (width, height) = cut.grid, cut.size
        corners = [(x * width, y * height) for y in range(rows) for x in range(columns)]
        return [overview, *(canvas.crop((x, y, x + width, y + height)) for x, y in corners)]

    def _rows(self, view: Image.Image) -> torch.Tensor:
        """float32 `[patches, 3 * patch * patch]`, patches in raster order."""
        pixels = torch.from_numpy(np.array(view)).permute(2, 0, 1).float().div(255)
        pixels = normalised(pixels, self.mean, self.std)
        side = self.slicing.patch
        cut = pixels.unflatten(2, (-1, side)).unflatten(1, (-1, side))
        rows: torch.Tensor = cut.permute(1, 3, 0, 2, 4).flatten(2).flatten(0, 1)
        return rows
