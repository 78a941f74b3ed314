"""Molmo's images: the whole, then overlapping crops of it, each cut into patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from vlmlens.errors import CheckpointError, ImageError
from vlmlens.hf import CropGeometry
from vlmlens.hf.image_processing import normalised, resized
from vlmlens_adapter_molmo.images import Canvas, canvas_of
from vlmlens_adapter_molmo.v1.config import POOLED

BLANK = -1.0
"""Fills images and masks where a sample has fewer crops than another."""

_BILINEAR = 2
_SIDE, _PATCH, _MARGINS, _MAX_CROPS = 336, 14, (4, 4), 12


@dataclass(frozen=True, slots=True)
class MolmoImages:
    """How images are cut.

    Args:
        side: Of a crop, in pixels; images that are smaller are made larger.
        patch_size: Side of a patch in pixels.
        overlap_margins: Patches of a crop that belong to the one before and to the one after it.
        max_crops: Largest number of crops beside the whole image.
        mean: Per colour, subtracted.
        std: Per colour, then divided by.
    """

    side: int = _SIDE
    patch_size: int = _PATCH
    overlap_margins: tuple[int, int] = _MARGINS
    max_crops: int = _MAX_CROPS
    mean: tuple[float, ...] = tuple(OPENAI_CLIP_MEAN)
    std: tuple[float, ...] = tuple(OPENAI_CLIP_STD)

    @property
    def backend(self) -> str:
        """What makes the pixel values."""
        return "torch"

    @property
    def size(self) -> dict[str, int]:
        """Of a crop, as transformers' image processors say it."""
        return {"height": self.side, "width": self.side}

    @property
    def cells(self) -> int:
        """Tokens along a side of a crop."""
        return self.side // self.patch_size // POOLED

    @classmethod
    def read(cls, said: Mapping[str, Any], model: str) -> MolmoImages:
        """The settings of a checkpoint.

        Args:
            said: Its preprocessor_config.json.
            model: Hub id or folder, named in errors.

        Raises:
            CheckpointError: They leave no whole tokens, or are not known here.
        """
        height, width = said.get("base_image_input_size", (_SIDE, _SIDE))
        before, after = said.get("overlap_margins", _MARGINS)
        found = cls(
            side=height,
            patch_size=said.get("image_patch_size", _PATCH),
            overlap_margins=(before, after),
            max_crops=said.get("max_crops", _MAX_CROPS),
            mean=tuple(said.get("image_mean", OPENAI_CLIP_MEAN)),
            std=tuple(said.get("image_std", OPENAI_CLIP_STD)),
        )
        whole = 2 * found.patch_size
        cells = {said.get(f"image_token_length_{axis}", found.cells) for axis in "hw"}
        if height != width or height % whole or before % 2 or after % 2 or cells != {found.cells}:
            raise _unknown(model, f"crops of {height} x {width} with the margins {before}, {after}")
        if found.side // found.patch_size <= before + after:
            raise _unknown(model, f"the margins {before}, {after}, which leave nothing of a crop")
        if not (said.get("do_normalize", True) and said.get("image_padding_mask", True)):
            raise _unknown(model, "images without normalization or without a mask")
        return found

    def canvas(self, height: int, width: int) -> Canvas:
        """The crops of an image, in patches.

        Args:
            height: Of the original image, in pixels.
            width: Likewise.
        """
        return canvas_of(self, height, width)

    def placed(self, height: int, width: int, canvas: tuple[int, int]) -> CropGeometry:
        """The place of an image that is fitted into the middle of a canvas.

        Args:
            height: Of the original image, in pixels.
            width: Likewise.
            canvas: (height, width) in pixels.

        Raises:
            ImageError: Nothing would be left of one side.
        """
        sides = np.asarray([height, width], np.float32)
        scale = (np.asarray(canvas, np.float32) / sides).min()
        new_height, new_width = (int(side) for side in sides * scale)
        if not new_height or not new_width:
            raise ImageError(
                f"An image of {width} x {height} pixels is too narrow for the model.",
                hint="Crop it first.",
            )
        left, top = (canvas[1] - new_width) // 2, (canvas[0] - new_height) // 2
        return CropGeometry(new_width, new_height, left=-left, top=-top)

    def __call__(self, image: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """float32 patches `[1 + crops, patches, 3 * patch * patch]`, the whole image first.

        And `[1 + crops, patches]`, how much of each patch is no padding: as upstream has it, of
        the crops first, and then a row of -1.

        Args:
            image: Of Pillow.

        Raises:
            ImageError: See `placed`.
        """
        rgb = np.array(image.convert("RGB"))
        pixels = torch.from_numpy(rgb).permute(2, 0, 1).float() / 255
        canvas = self.canvas(rgb.shape[0], rgb.shape[1])
        large = (canvas.height * self.patch_size, canvas.width * self.patch_size)
        whole, _ = self._fitted(pixels, (self.side, self.side))
        crops, masks = (self._crops(plane, canvas) for plane in self._fitted(pixels, large))
        blank = torch.full((1, masks.shape[1]), BLANK)
        return torch.cat([self._patches(whole)[None], crops]), torch.cat([masks.mean(-1), blank])

    def _fitted(
        self, pixels: torch.Tensor, canvas: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The image `[3, height, width]` in the middle of a canvas, and where it is, `[1, ...]`."""
        place = self.placed(pixels.shape[1], pixels.shape[2], canvas)
        image = resized(pixels, place.height, place.width, resample=_BILINEAR, antialias=True)
        right, bottom = canvas[1] + place.left - place.width, canvas[0] + place.top - place.height
        around = (-place.left, right, -place.top, bottom)
        padded = pad(image.clamp(0, 1), around)
        return normalised(padded, self.mean, self.std), pad(torch.ones_like(image[:1]), around)

    def _crops(self, plane: torch.Tensor, canvas: Canvas) -> torch.Tensor:
        """`[crops, patches, values]` of `[values, height, width]`."""
        step = canvas.step * self.patch_size
        starts = [(a * step, b * step) for a in range(canvas.rows) for b in range(canvas.cols)]
        cut = [plane[:, y : y + self.side, x : x + self.side] for y, x in starts]
        return torch.stack([self._patches(crop) for crop in cut])

    def _patches(self, crop: torch.Tensor) -> torch.Tensor:
        """`[patches, rows * columns * values]` of `[values, height, width]`."""
        cut = crop.unflatten(2, (-1, self.patch_size)).unflatten(1, (-1, self.patch_size))
        patches: torch.Tensor = cut.permute(1, 3, 2, 4, 0).flatten(2).flatten(0, 1)
        return patches


def _unknown(model: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"The preprocessor_config.json of {model!r} asks for {what}; that is not known here.",
        subject=model,
    )
