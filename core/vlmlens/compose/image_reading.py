"""Reading image files as far as needed to know that they are complete, and what to tell of them."""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from io import BytesIO
from math import prod
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from vlmlens.compose.image_cache import Seen, image_cache, state_of
from vlmlens.errors import ImageError
from vlmlens.images import (
    DEFAULT,
    UNREADABLE,
    ImageRules,
    NotAPlainFile,
    UnclearPixels,
    check_mode,
    check_plain,
    is_deep,
    is_transparent,
    open_content,
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


_IN_MEMORY = 16 << 20
"""Bytes of a file that is read whole; the digest of a larger one is taken piece by piece."""


def key_of(image: str | Image) -> str | int:
    """What an image is known by: its path, or its identity in memory."""
    return image if isinstance(image, str) else id(image)


class ImageReader:
    """Reads images in threads, each file once, and not at all if an earlier run has seen it.

    Use it as a context manager.

    Args:
        max_pixels: Images with more are refused.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._open = ExitStack()

    def __enter__(self) -> Self:
        workers = min(16, 2 * (os.cpu_count() or 1))
        self._open.enter_context(_bombs_raise())
        self._cache = self._open.enter_context(image_cache())
        self._pool = self._open.enter_context(ThreadPoolExecutor(workers, "vlmlens-images"))
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def look(self, samples: Iterable[Sample]) -> dict[str | int, Seen]:
        """What is seen of the samples' images, by `key_of`."""
        by_rules: dict[ImageRules, dict[str | int, str | Image]] = {}
        for sample in samples:
            known = by_rules.setdefault(sample.rules, {})
            known.update((key_of(image), image) for image in sample.images)
        found: dict[str | int, Seen] = {}
        for rules, images in by_rules.items():
            found.update(self._look(images, rules))
        return found

    def _look(
        self, images: Mapping[str | int, str | Image], rules: ImageRules
    ) -> dict[str | int, Seen]:
        paths, said = [path for path in images if isinstance(path, str)], str(rules.bits)
        found: dict[str | int, Seen] = {
            path: seen
            for path, seen in self._cache.known(paths, said).items()
            if seen.reason is not None or prod(seen.size or ()) <= self._max_pixels
        }
        began = time.time()
        rest = [(key, image) for key, image in images.items() if key not in found]
        read = self._pool.map(lambda each: self._read(each[1], rules), rest)
        new = dict(zip((key for key, _ in rest), read, strict=True))
        found.update(new)
        self._cache.keep({k: each for k, each in new.items() if isinstance(k, str)}, said, began)
        return found

    def _read(self, image: str | Image, rules: ImageRules) -> Seen:
        state = state_of(image) if isinstance(image, str) else ()
        return replace(_look(image, rules, self._max_pixels), state=state)


def decoded(content: bytes, *, max_pixels: int, rules: ImageRules = DEFAULT) -> Image:
    """The picture that the content of a file holds, as a model sees it: upright, in 8-bit RGB.

    Args:
        content: Of a file in one of `vlmlens.images.FORMATS`.
        max_pixels: A picture with more is refused before it is decoded.
        rules: How pixels become 8-bit RGB where the file leaves that open.

    Raises:
        ImageError: It holds no picture, a damaged one, or one that is too large.
    """
    from PIL import Image as PILImage

    try:
        opened = open_content(BytesIO(content))
        reason = _reason(_unfit(opened, max_pixels))
        if not reason and opened.format == "PNG":
            opened.verify()
            opened = open_content(BytesIO(content))
        if not reason:
            with _alone(opened):
                return rgb(opened, rules)
    except (PILImage.DecompressionBombError, PILImage.DecompressionBombWarning):
        reason = f"more than {max_pixels} pixels, the limit"
    except (*UNREADABLE, UserWarning) as error:
        reason = _why("", error) if content else "an empty file (0 bytes)"
    raise ImageError(
        f"The picture cannot be used: {reason}.",
        subject="picture",
        hint="Choose a PNG, JPEG, WebP or another picture of pixels.",
    )


def _reason(seen: Seen | None) -> str:
    return (seen.reason if seen else None) or ""


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
        with _content(image) as (content, digest):
            opened = open_content(content)
            told = replace(_told(opened, Seen(opened.size)), digest=digest)
            return _unfit(opened, max_pixels) or _whole(opened, content, rules, told)
    except (PILImage.DecompressionBombError, PILImage.DecompressionBombWarning):
        return Seen(reason=f"more than {max_pixels} pixels, the limit (max_pixels)")
    except UNREADABLE as error:
        return Seen(reason=_why(image, error))


@contextmanager
def _content(path: str) -> Iterator[tuple[BinaryIO, str]]:
    """A file's content, and its SHA-256."""
    check_plain(path)
    with open(path, "rb") as file:  # noqa: PTH123 - faster for many files
        if os.fstat(file.fileno()).st_size > _IN_MEMORY:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            yield file, digest
        else:
            data = file.read()
            yield BytesIO(data), hashlib.sha256(data).hexdigest()


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


def _whole(image: Image, content: BinaryIO, rules: ImageRules, told: Seen) -> Seen:
    """Read a file that was just opened completely. The image cannot be used afterwards."""
    deep = is_deep(image)
    if image.format == "PNG":
        image.verify()
        if deep:
            content.seek(0)
            _decoded(open_content(content), rules)
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
        empty = isinstance(image, str) and image != "" and Path(image).stat().st_size == 0
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
