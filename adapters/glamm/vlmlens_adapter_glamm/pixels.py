"""SAM's input: the longer side of the image fills a square, the rest is zero."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from vlmlens.hf.image_processing import normalised

_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def grounding_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of an image whose longer side is `side` pixels.

    >>> grounding_size(480, 640, 1024)
    (768, 1024)
    """
    scale = side / max(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def grounding_pixels(image: Image.Image, side: int) -> torch.Tensor:
    """float32 `[3, side, side]`: the image at the top left, normalised, then padded with zeros."""
    height, width = grounding_size(image.height, image.width, side)
    small = np.array(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
    square = torch.zeros(3, side, side)
    square[:, :height, :width] = normalised(torch.from_numpy(small).permute(2, 0, 1), _MEAN, _STD)
    return square
