"""Replacing images: by blank ones, altered ones, or another sample's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from vlmlens.errors import MissingAnnotation
from vlmlens.images import UNREADABLE, open_image
from vlmlens.regions import ATTRIBUTE as REGIONS
from vlmlens.samples import Sample
from vlmlens.videos import Video
from vlmlens_plugins.analysis._statistics import generator

_COLORS = {"gray": (128, 128, 128), "black": (0, 0, 0), "white": (255, 255, 255)}
ONE_FOR_ALL = frozenset({*_COLORS, "none"})
"""Kinds with which a question is the same for all images of its size."""

_ORIENTATION = 0x0112
_TURNED = 5

Pixels = npt.NDArray[np.uint8]


def blanked(sample: Sample, blank: str, seed: int, *, blur: float = 0.1, grid: int = 8) -> Sample:
    """The sample with every image replaced by one of its size that shows less, or by none.

    Noise is uniform, drawn anew for each sample id, as is the order of shuffled patches.

    Args:
        sample: With images.
        blank: Any kind but "other", for which see `others`.
        seed: Of noise and of orders.
        blur: Radius of a Gaussian blur, as a share of the longer side.
        grid: Patches along each side that are shuffled; pixels that fill no patch stay.
    """
    return shown(*handed_over(sample, blank, seed, blur=blur, grid=grid))


def handed_over(
    sample: Sample,
    blank: str,
    seed: int,
    *,
    blur: float = 0.1,
    grid: int = 8,
    regions: bool = False,
) -> tuple[Sample, dict[str, Any]]:
    """What `shown` makes a blank question of: a sample, and the arguments of a unit of work.

    A sample whose image is gone altogether is without it here, so that equal blank questions are
    the same unit. For that, it is without its regions, too, unless edits need them. The other
    arguments are those of `blanked`.
    """
    said: dict[str, Any] = {"blank": blank}
    if blank in ("noise", "shuffle"):
        said |= {"seed": seed, "draw": sample.id}
    if blank == "noise" or blank in _COLORS:
        said["sizes"] = [list(size) for size in image_sizes(sample)]
    if blank in ("none", "noise") or blank in _COLORS:
        kept = dict(sample.attributes) if regions else without_regions(sample.attributes)
        if blank != "none":
            said |= video_said(sample)
        return replace(sample, images=(), attributes=kept), said
    if blank == "blur":
        said["radius"] = blur
    if blank == "shuffle":
        said["grid"] = grid
    return sample, said


def with_images_of(sample: Sample, other: Sample) -> Sample:
    """The sample with another one's images, and the regions of these."""
    kept = without_regions(sample.attributes)
    if REGIONS in other.attributes:
        kept[REGIONS] = other.attributes[REGIONS]
    return replace(sample, images=other.images, attributes=kept, video=other.video)


def without_regions(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes without the regions, which only edits of rows by name depend on."""
    return {name: value for name, value in attributes.items() if name != REGIONS}


def shown(sample: Sample, arguments: Mapping[str, Any]) -> Sample:
    """The question that a model is shown.

    Args:
        sample: From `handed_over`, or with its own images.
        arguments: From `handed_over`; without "blank", the sample is shown as it is.
    """
    blank = arguments.get("blank")
    if blank is None:
        return sample
    rng = generator(arguments.get("seed", 0), f"blind-{blank}", arguments.get("draw", ""))
    if blank == "none":
        made = []
    elif blank in _COLORS:
        made = [Image.new("RGB", (w, h), _COLORS[blank]) for w, h in arguments["sizes"]]
    elif blank == "noise":
        made = [
            Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8))
            for w, h in arguments["sizes"]
        ]
    elif blank == "mean":
        made = [_mean_color(image) for image in sample.open_images()]
    elif blank == "blur":
        made = [_blurred(image, arguments["radius"]) for image in sample.open_images()]
    else:
        made = [_shuffled(image, arguments["grid"], rng) for image in sample.open_images()]
    return replace(sample, images=tuple(made), video=video_of(arguments) or sample.video)


def video_said(sample: Sample) -> dict[str, Any]:
    """What the arguments of a unit say of a sample's video; nothing if it has none."""
    return {} if sample.video is None else {"video": sample.video.as_seen().to_dict()}


def video_of(arguments: Mapping[str, Any]) -> Video | None:
    """What `video_said` told."""
    return Video.from_dict(arguments["video"]) if "video" in arguments else None


def image_sizes(sample: Sample) -> list[tuple[int, int]]:
    """(width, height) of each image as it is shown, read without decoding files.

    Raises:
        ImageError: One cannot be read.
    """
    try:
        return [_size(image) for image in sample.images]
    except UNREADABLE:
        return [image.size for image in sample.open_images()]


def others(samples: Sequence[Sample], seed: int) -> dict[str, Sample]:
    """For each sample id, a sample of another group, whose images it can be shown.

    Groups are put in a random circle, and each is shown what the next one is about. Samples with
    different numbers of images are kept apart, as are videos and images.

    Raises:
        MissingAnnotation: A sample has no counterpart.
    """
    found: dict[str, Sample] = {}
    for count, video in sorted({_form(sample) for sample in samples}):
        alike = [sample for sample in samples if _form(sample) == (count, video)]
        found |= _circle(alike, generator(seed, "blind-other", str(count)))
    return found


def _form(sample: Sample) -> tuple[int, bool]:
    return len(sample.images), sample.video is not None


def _circle(samples: Sequence[Sample], rng: np.random.Generator) -> dict[str, Sample]:
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.split_group, []).append(sample)
    if len(groups) < 2:
        raise MissingAnnotation(
            f"Sample {samples[0].id!r} cannot be shown another sample's image: no other group has "
            "samples with as many images.",
            subject=samples[0].id,
            hint="Leave the blank `other` out, or add samples.",
        )
    names = [list(groups)[i] for i in rng.permutation(len(groups))]
    following = dict(zip(names, names[1:] + names[:1], strict=True))
    shown = {}
    for sample in samples:
        donors = groups[following[sample.split_group]]
        shown[sample.id] = donors[int(rng.integers(len(donors)))]
    return shown


def _mean_color(image: Image.Image) -> Image.Image:
    color = np.asarray(image, np.float64).mean((0, 1)).round().astype(int)
    return Image.new("RGB", image.size, (int(color[0]), int(color[1]), int(color[2])))


def _blurred(image: Image.Image, share: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(share * max(image.size)))


def _shuffled(image: Image.Image, grid: int, rng: np.random.Generator) -> Image.Image:
    pixels: Pixels = np.array(image)
    rows, columns = (min(grid, side) for side in pixels.shape[:2])
    height, width = pixels.shape[0] // rows, pixels.shape[1] // columns
    part = pixels[: rows * height, : columns * width]
    patches = part.reshape(rows, height, columns, width, 3).transpose(0, 2, 1, 3, 4)
    mixed = rng.permutation(patches.reshape(-1, height, width, 3))
    laid = mixed.reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    pixels[: rows * height, : columns * width] = laid.reshape(part.shape)
    return Image.fromarray(pixels)


def _size(image: str | Image.Image) -> tuple[int, int]:
    if isinstance(image, str):
        with open_image(image) as opened:
            return _upright_size(opened)
    return _upright_size(image)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    turned = image.getexif().get(_ORIENTATION, 1) >= _TURNED
    return (height, width) if turned else (width, height)
