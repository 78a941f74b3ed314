"""Video processors of transformers with torch alone, for machines without torchvision.

transformers marks every video processor as one that needs torchvision. What they need of it is
little: to resize, crop and normalize. Here the family's own class computes sizes, patches and
frames as always, and those three steps are done by torch, in torchvision's order of arithmetic.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
import transformers
from transformers.image_transforms import get_size_with_aspect_ratio
from transformers.video_processing_utils import BaseVideoProcessor

from vlmlens.errors import MissingDependency
from vlmlens.hf.image_processing import missing_filter, resized

_FUNCTIONS = "torchvision.transforms.v2.functional"
_BILINEAR = 2
_BASE: Any = BaseVideoProcessor


class TorchVideos(_BASE):  # type: ignore[misc]
    """What transformers' video processors take from torchvision, done with torch.

    It stands behind a family's class among the bases: see `torch_video_processor`.
    """

    @property
    def backend(self) -> str:
        """What makes the pixel values."""
        return "torch"

    def convert_to_rgb(self, video: torch.Tensor, *args: Any, **settings: Any) -> torch.Tensor:
        """The frames: they are RGB already."""
        del args, settings
        return video

    def resize(
        self,
        image: torch.Tensor,
        size: Any,
        resample: int | None = None,
        antialias: bool = True,
        **settings: Any,
    ) -> torch.Tensor:
        """Frames `[..., channels, height, width]` at the size that the settings ask for.

        Raises:
            MissingDependency: torch has no such filter.
            ValueError: The size says neither height and width nor an edge.
        """
        del settings
        number = _BILINEAR if resample is None else int(resample)
        if problem := missing_filter(number):
            raise MissingDependency(
                f"The video processor asks for {problem}.",
                subject=str(number),
                hint="pip install torchvision, in the version that fits the installed torch; "
                "Lanczos needs torch 2.12.",
            )
        return resized(image, *_target(image, size), resample=number, antialias=antialias)

    def normalize(
        self,
        image: torch.Tensor,
        mean: Sequence[float] | torch.Tensor,
        std: Sequence[float] | torch.Tensor,
        **settings: Any,
    ) -> torch.Tensor:
        """float32 `(image - mean) / std`, per channel."""
        del settings
        centre, spread = (torch.as_tensor(each, dtype=image.dtype) for each in (mean, std))
        return image.sub(centre.view(-1, 1, 1)).div(spread.view(-1, 1, 1))

    def center_crop(self, image: torch.Tensor, size: Any, **settings: Any) -> torch.Tensor:
        """The middle of the frames; black is put around those that are smaller."""
        del settings
        across, down = size.width - image.shape[-1], size.height - image.shape[-2]
        around = (*_halves(across), *_halves(down))
        padded = torch.nn.functional.pad(image, around)
        top = (padded.shape[-2] - size.height) // 2
        left = (padded.shape[-1] - size.width) // 2
        return padded[..., top : top + size.height, left : left + size.width]


def torch_video_processor(name: str) -> type[Any]:
    """A video processor class of transformers that needs no torchvision.

    Args:
        name: Of transformers' class, such as "Qwen2VLVideoProcessor".
    """
    known: Any = getattr(transformers, name)
    with _functions_lent():
        family = getattr(importlib.import_module(known.__module__), name)
    return type(name, (family, TorchVideos), {})


@contextmanager
def _functions_lent() -> Iterator[None]:
    """Let modules be imported that import torchvision's functions only to name their types."""
    parts = _FUNCTIONS.split(".")
    names = [".".join(parts[: i + 1]) for i in range(len(parts))]
    lent = {name: ModuleType(name) for name in names if name not in sys.modules}
    sys.modules.update(lent)
    try:
        yield
    finally:
        for name in lent:
            del sys.modules[name]


def _halves(missing: int) -> tuple[int, int]:
    """How much is put on either side where that many pixels are missing."""
    wanted = max(missing, 0)
    return wanted // 2, (wanted + 1) // 2


def _target(image: torch.Tensor, size: Any) -> tuple[int, int]:
    """Height and width after resizing, as transformers reads `size`."""
    height, width = image.shape[-2:]
    if size.shortest_edge and size.longest_edge:
        found = get_size_with_aspect_ratio((height, width), size.shortest_edge, size.longest_edge)
        return int(found[0]), int(found[1])
    if size.shortest_edge:
        longer = int(size.shortest_edge * max(height, width) / min(height, width))
        shape = (longer, int(size.shortest_edge))
        return shape if width <= height else shape[::-1]
    if size.height and size.width:
        return int(size.height), int(size.width)
    raise ValueError(f"the size {size} of the video processor has no height and width")
