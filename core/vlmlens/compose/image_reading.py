"""Reading image files as far as needed to know that they are complete, and what to tell of them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from vlmlens.images import (
    UNREADABLE,
    ImageRules,
    NotAPlainFile,
    UnclearPixels,
    check_mode,
    is_deep,
    is_transparent,
    open_image,
    pages,
    rgb,
)
from vlmlens.samples import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

_EIGHTH = (1, 1)
_LARGE = 20_000_000
_one_large = Lock()
"""Held while an image of more than `_LARGE` pixels is decoded: they are decoded one by one."""


Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Seen:
    """The outcome of reading an image: its size, or what is wrong with it; what to tell of it."""

    size: Size | None = None
    reason: str | None = None
    transparent: bool = False
    deep: bool = False
    pages: int = 1


def key_of(image: str | Image) -> str | int:
    """What an image is known by: its path, or its identity in memory."""
    return image if isinstance(image, str) else id(image)


def read_all(
    samples: Sequence[Sample], max_pixels: int, advance: Callable[[int], None] | None
) -> dict[str | int, Seen]:
    """Read each image once, in threads, in the cheapest way that detects a damaged file.

    Args:
        samples: Whose images are read.
        max_pixels: More are refused.
        advance: Called with the number of images that were read.
    """
    images = {key_of(image): (image, sample.rules) for sample in samples for image in sample.images}
    seen: dict[str | int, Seen] = {}
    workers = min(16, 2 * (os.cpu_count() or 1))
    with _bombs_raise(), ThreadPoolExecutor(workers, "vlmlens-images") as pool:
        verdicts = pool.map(lambda each: _look(each[0], each[1], max_pixels), images.values())
        for done, (key, verdict) in enumerate(zip(images, verdicts, strict=True), start=1):
            seen[key] = verdict
            if advance is not None:
                advance(done)
    return seen


@contextmanager
def _bombs_raise() -> Iterator[None]:
    """Turn Pillow's warning about too many pixels into an error (see `allow_pixels`)."""
    from PIL import Image as PILImage

    with warnings.catch_warnings():
        warnings.simplefilter("error", PILImage.DecompressionBombWarning)
        yield


def _look(image: str | Image, rules: ImageRules, max_pixels: int) -> Seen:
    """Read one image as far as needed to know that it is complete."""
    from PIL import Image as PILImage

    try:
        if not isinstance(image, str):
            return _unfit(image, max_pixels) or _told(image, _decoded(image, rules))
        with open_image(image) as opened:
            told = _told(opened, Seen(opened.size))
            return _unfit(opened, max_pixels) or _whole(opened, image, rules, told)
    except (PILImage.DecompressionBombError, PILImage.DecompressionBombWarning):
        return Seen(reason=f"more than {max_pixels} pixels, the limit (max_pixels)")
    except UNREADABLE as error:
        return Seen(reason=_why(image, error))


def _unfit(image: Image, max_pixels: int) -> Seen | None:
    """What is wrong with an image, judged by its header."""
    width, height = image.size
    if width * height > max_pixels:
        return Seen(reason=f"{width} x {height} pixels, the limit (max_pixels) is {max_pixels}")
    try:
        if not is_deep(image):
            check_mode(image.mode)
    except ValueError as error:
        return Seen(reason=str(error))
    return None


def _told(image: Image, seen: Seen) -> Seen:
    """What to tell of an image beside its size, judged by its header."""
    return replace(seen, transparent=is_transparent(image), pages=pages(image))


def _whole(image: Image, path: str, rules: ImageRules, told: Seen) -> Seen:
    """Read a file that was just opened completely. The image cannot be used afterwards."""
    deep = is_deep(image)
    if image.format == "PNG":
        image.verify()
        if deep:
            with open_image(path) as again:
                _decoded(again, rules)
        return replace(told, deep=deep)
    if image.format == "JPEG":
        image.draft(None, _EIGHTH)
    _decoded(image, rules)
    return replace(told, deep=deep)


def _decoded(image: Image, rules: ImageRules) -> Seen:
    deep = is_deep(image)
    with _alone(image):
        if deep:
            rgb(image, rules)
        image.getexif()
        image.load()
    return Seen(image.size, deep=deep)


def _alone(image: Image) -> AbstractContextManager[Any]:
    width, height = image.size
    return _one_large if width * height > _LARGE else nullcontext()


def _why(image: str | Image, error: Exception) -> str:
    """The reason, in words that help to find the problem."""
    from PIL import UnidentifiedImageError

    if isinstance(error, OSError) and error.errno is not None:
        return _file_trouble(image, error)
    if isinstance(error, UnidentifiedImageError):
        empty = isinstance(image, str) and Path(image).stat().st_size == 0
        return "an empty file (0 bytes)" if empty else "no image in a format that Pillow reads"
    if isinstance(error, NotAPlainFile | UnclearPixels):
        return str(error)
    return f"damaged or cut off ({error})"


def _file_trouble(image: str | Image, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        link = isinstance(image, str) and Path(image).is_symlink()
        windows = isinstance(image, str) and "\\" in image
        why = " (it has the backslashes of Windows)" if windows else ""
        return "a link to no file" if link else f"the file does not exist{why}"
    return f"cannot be read: {error.strerror}"
