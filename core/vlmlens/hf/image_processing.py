"""Image processing with torch alone, for families whose own code needs torchvision.

torchvision resizes tensors with torch's `interpolate`. This module does the same arithmetic in the
same order, so its pixel values equal torchvision's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature

_LANCZOS = 1
FILTERS = {_LANCZOS: "lanczos", 2: "bilinear", 3: "bicubic"}
"""The filters that torch has, by their numbers in Pillow; see `missing_filter`."""


class TensorImageProcessor(PilBackend):
    """Base of image processors that work on tensors. A subclass implements `features`.

    transformers reads its settings and converts images to RGB.
    """

    @property
    def backend(self) -> str:
        """What makes the pixel values."""
        return "torch"

    def features(self, images: Sequence[torch.Tensor], **settings: Any) -> dict[str, Any]:
        """The model's inputs for some images.

        Args:
            images: uint8 `[3, height, width]` each.
            settings: The processor's settings, such as `rescale_factor` and `image_mean`.
        """
        raise NotImplementedError

    def _preprocess(
        self, images: Sequence[np.ndarray[Any, Any]], *args: Any, **settings: Any
    ) -> Any:
        """Called by transformers, with `[3, height, width]` arrays."""
        del args
        wanted = settings.pop("return_tensors", None)
        tensors = [torch.from_numpy(np.ascontiguousarray(image)) for image in images]
        return BatchFeature(data=self.features(tensors, **settings), tensor_type=wanted)


def resized(
    image: torch.Tensor, height: int, width: int, *, resample: int, antialias: bool
) -> torch.Tensor:
    """An image at another size, in its own dtype.

    Args:
        image: uint8 or float32 `[..., channels, height, width]`.
        height: The new height in pixels.
        width: The new width in pixels.
        resample: Number of the filter in Pillow: 1 (Lanczos), 2 (bilinear) or 3 (bicubic).
        antialias: Whether to filter before making an image smaller.

    Raises:
        ValueError: The filter is another one.
    """
    if resample not in FILTERS:
        raise ValueError(f"the filter {resample} is not one of {sorted(FILTERS)}")
    if image.shape[-2:] == (height, width):
        return image
    settings: dict[str, Any] = {"mode": FILTERS[resample], "align_corners": False}
    found = torch.nn.functional.interpolate(
        image.reshape(-1, *image.shape[-3:]), size=(height, width), antialias=antialias, **settings
    )
    return found.reshape(*image.shape[:-2], height, width)


def missing_filter(resample: int) -> str:
    """Why this torch cannot resize with a filter of Pillow; "" if it can.

    Args:
        resample: Number of the filter in Pillow.
    """
    if resample not in FILTERS:
        return f"the filter {resample} of Pillow, which needs torchvision"
    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    if resample == _LANCZOS and (major, minor) < (2, 12):
        return f"the filter 1 of Pillow (Lanczos), which torch {torch.__version__} does not have"
    return ""


def normalised(
    image: torch.Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    factor: float = 1.0,
) -> torch.Tensor:
    """float32 `(factor * image - mean) / std`, per channel.

    Args:
        image: `[..., channels, height, width]`.
        mean: Per channel.
        std: Per channel.
        factor: Pixel values are first multiplied by it, usually 1 / 255.
    """
    centre = torch.tensor(mean) * (1.0 / factor)
    spread = torch.tensor(std) * (1.0 / factor)
    return image.float().sub(centre[:, None, None]).div(spread[:, None, None])
