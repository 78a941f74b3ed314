"""Image processors of vision towers, and where the patches of an image lie in it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from vlmlens.errors import CheckpointError, CheckpointNotFound, DataError
from vlmlens.hf.checkpoints import checkpoint_json
from vlmlens.hf.image_processing import TensorImageProcessor, normalised, resized
from vlmlens.hf.layouts import CropGeometry, PlacedImage, grid_patches
from vlmlens.hf.raster import crop_geometry
from vlmlens.tokens import PatchGrid

_FILE, _WHOLE = "preprocessor_config.json", "processor_config.json"
_CROPPED = ({"shortest_edge"}, {"height", "width"})
"""What the size of a processor that crops may say, so that it is known where the crop lies."""


@dataclass(frozen=True, slots=True)
class ImagesAlone:
    """What stands in a processor's place where no text is read.

    Args:
        image_processor: Makes pixel values.
    """

    image_processor: Any
    tokenizer: None = None


class DINOv3Images(TensorImageProcessor):
    """DINOv3's image processing with torch alone; transformers has it with torchvision only.

    Values are first scaled to 0..1, then the image is resized with antialiasing, then normalised.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012  transformers' own form
    resample = 2
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    do_resize = do_rescale = do_normalize = do_convert_rgb = True
    size = {"height": 224, "width": 224}  # noqa: RUF012  likewise

    def features(self, images: Sequence[torch.Tensor], **settings: Any) -> dict[str, Any]:
        """See `TensorImageProcessor.features`: `pixel_values`, `[images, 3, height, width]`.

        Raises:
            CheckpointError: The checkpoint asks for a crop, which is not done here.
        """
        if settings.get("do_center_crop"):
            raise CheckpointError(
                "The image processor of this DINOv3 checkpoint crops, which needs torchvision.",
                subject="do_center_crop",
                hint="pip install torchvision, in the version that fits the installed torch.",
            )
        return {"pixel_values": torch.stack([self._made(image, settings) for image in images])}

    def _made(self, image: torch.Tensor, settings: Mapping[str, Any]) -> torch.Tensor:
        made = image.float()
        if settings["do_rescale"]:
            made = made * settings["rescale_factor"]
        if settings["do_resize"]:
            size = settings["size"]
            made = resized(
                made, size["height"], size["width"],
                resample=int(settings["resample"]), antialias=True,
            )  # fmt: skip
        if settings["do_normalize"]:
            made = normalised(made, settings["image_mean"], settings["image_std"])
        return made


_WITHOUT_TORCHVISION: Mapping[str, type[Any]] = {"DINOv3ViTImageProcessor": DINOv3Images}
"""By the name in a checkpoint, without the ending "Fast" of older versions."""


def read_image_processor(model: str, arguments: Mapping[str, Any]) -> ImagesAlone:
    """The image processor of a checkpoint.

    Args:
        model: Hub id or folder.
        arguments: For every `from_pretrained`.

    Raises:
        CheckpointNotFound: The checkpoint does not say how images are processed.
        OSError, ImportError, ValueError: As transformers raises them.
    """
    whole = checkpoint_json(model, _WHOLE, arguments).get("image_processor")
    said = whole if isinstance(whole, dict) else checkpoint_json(model, _FILE, arguments)
    if not said:
        raise CheckpointNotFound(
            f"The checkpoint {model!r} has no {_FILE}: how its images are resized and normalised "
            "is not known.",
            subject=model,
            hint=f"Copy {_FILE} from the checkpoint that it was made of.",
        )
    name = str(said.get("image_processor_type", "")).removesuffix("Fast")
    own = _WITHOUT_TORCHVISION.get(name)
    if own is not None and importlib.util.find_spec("torchvision") is None:
        return ImagesAlone(own.from_pretrained(model, **arguments))
    return ImagesAlone(transformers.AutoImageProcessor.from_pretrained(model, **arguments))


def pixels(processor: Any, images: Sequence[Any]) -> dict[str, Any]:
    """The model's inputs for some images.

    Raises:
        DataError: The processor makes images of several sizes, which do not fit into one batch.
    """
    try:
        return dict(processor(images=list(images), return_tensors="pt"))
    except ValueError as error:
        if len({image.size for image in images}) < 2:
            raise
        raise DataError(
            f"{type(processor).__name__} makes images of several sizes, which do not fit into one "
            f"batch: {' '.join(str(error).split())[:120]}",
            subject="images",
            hint="Use --batch-size 1, or a checkpoint whose image processor crops or resizes to "
            "one size.",
        ) from error


def patches_of(image: PlacedImage, patch: tuple[int, int], processor: Any) -> PatchGrid | None:
    """Where the patches of one image lie in it, from the sizes of the processor's output.

    Args:
        image: The image.
        patch: (height, width) of a patch in the processor's output.
        processor: The image processor.

    Returns:
        The grid; None if the processor crops or pads in a way that is not known here.
    """
    height, width = (int(n) for n in image.inputs["pixel_values"].shape[-2:])
    geometry = _geometry(image, height, width, processor)
    if geometry is None:
        return None
    return grid_patches(image.image, height // patch[0], width // patch[1], patch, geometry)


def _geometry(image: PlacedImage, height: int, width: int, processor: Any) -> CropGeometry | None:
    """How an image was resized, and which part of it was cropped."""
    if getattr(processor, "do_pad", False) or hasattr(processor, "crop_pct"):
        return None
    if not getattr(processor, "do_center_crop", False):
        return CropGeometry(width, height)
    if not getattr(processor, "do_resize", True):
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return CropGeometry(image.width, image.height, left=left, top=top)
    size = {name for name, value in dict(processor.size).items() if value is not None}
    return crop_geometry(processor, image.height, image.width) if size in _CROPPED else None
