"""From the mask decoder's raster to masks of the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import interpolate


def watched(*modules: nn.Module) -> bool:
    """Whether a hook reads or edits the output of a module, or of one inside it."""
    return any(
        part._forward_hooks or part._forward_pre_hooks
        for module in modules
        for part in module.modules()
    )


def mask_logits(
    decoded: torch.Tensor, side: int, resized: Sequence[int], original: Sequence[int]
) -> torch.Tensor:
    """Mask logits in pixels of the image, float32 `[objects, height, width]`.

    Args:
        decoded: The mask decoder's output, `[objects, 1, rows, columns]`.
        side: Of the square that the grounding encoder sees, in pixels.
        resized: (height, width) of the image in that square, at its top left.
        original: (height, width) of the image.
    """
    square = _smooth(decoded.float(), (side, side))
    return _smooth(square[..., : resized[0], : resized[1]], original)[:, 0]


def _smooth(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
