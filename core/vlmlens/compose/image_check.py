"""Screening: which samples have images that cannot be used, found before anything heavy starts.

Every image file is looked at once, in threads, by the cheapest reading that sees a damaged file:

- JPEG is decoded at an eighth of its size: the whole stream is read, most arithmetic is not done;
- PNG has its checksums verified, which a truncated or altered file does not pass;
- other formats, and images in memory, are decoded.

Pixels that are good are not kept. Of images with an absurd shape (a pixel, a line), one per shape
is put through the model's own processor, which may refuse it. What is odd and fine: CMYK, 16 bit,
palettes, animations (their first frame), an orientation in EXIF, the wrong suffix on an image.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens.errors import ImageError
from vlmlens.samples import UNREADABLE, BadSample, Sample, check_mode
from vlmlens.spec.model import MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image

_SHOWN = 10
_SHORT_SIDE = 8
_LONG_TO_SHORT = 20
_PLAIN_SIZE = (224, 224)
_EIGHTH = (1, 1)

Size = tuple[int, int]
Encode = Callable[[Sequence[Sample]], object]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What reading an image showed: its size, or what is wrong with it."""

    size: Size | None = None
    reason: str | None = None


def bad_samples(
    samples: Sequence[Sample],
    *,
    max_pixels: int = MAX_PIXELS,
    encode: Encode | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[BadSample]:
    """The samples whose images cannot be used, in order, each with its first bad image.

    Args:
        samples: What a run is to use.
        max_pixels: Larger images are bad; up to there, Pillow opens them without complaint.
        encode: Encodes samples as the model will; tried on images of absurd shape.
        advance: Told how many distinct images have been read.
    """
    allow_pixels(max_pixels)
    seen = _read_all(samples, max_pixels, advance)
    found: dict[str, BadSample] = {}
    for sample in samples:
        for image in sample.images:
            reason = seen[_key(image)].reason
            if reason is not None:
                found.setdefault(sample.id, _bad(sample, image, reason))
    rest = [sample for sample in samples if sample.id not in found]
    found.update({bad.id: bad for bad in _refused(rest, seen, encode)} if encode else {})
    return [found[sample.id] for sample in samples if sample.id in found]


def without(samples: Sequence[Sample], bad: Iterable[BadSample]) -> list[Sample]:
    """The samples that are left.

    Raises:
        ImageError: None is.
    """
    dropped = {each.id: each for each in bad}
    kept = [sample for sample in samples if sample.id not in dropped]
    if samples and not kept:
        raise bad_images_error(list(dropped.values()), len(samples), hint="No sample is left.")
    return kept


def bad_images_error(bad: Sequence[BadSample], total: int, *, hint: str = "") -> ImageError:
    """The error that lists bad samples: how many, and the first ten with their reasons."""
    return ImageError(
        summary(bad, total),
        subject=bad[0].image,
        hint=hint or "Replace the files, or leave these samples out with --on-bad-sample skip.",
    )


def summary(bad: Sequence[BadSample], total: int) -> str:
    """How many samples are bad, and the first ten with their reasons, a line each."""
    lines = [f"  {_named(each)}: {each.reason}" for each in bad[:_SHOWN]]
    more = len(bad) - len(lines)
    head = f"{len(bad)} of {total} samples have an image that cannot be used:"
    return "\n".join([head, *lines, *([f"  and {more} more"] if more else [])])


def allow_pixels(max_pixels: int) -> None:
    """Let Pillow open images of that many pixels in this process; its limit is never lowered."""
    from PIL import Image as PILImage

    limit = PILImage.MAX_IMAGE_PIXELS
    if limit is not None and limit < max_pixels:
        PILImage.MAX_IMAGE_PIXELS = max_pixels


def _named(bad: BadSample) -> str:
    return bad.image if bad.image.endswith(bad.id) else f"{bad.id} ({bad.image})"


def _bad(sample: Sample, image: str | Image, reason: str) -> BadSample:
    return BadSample(sample.id, image if isinstance(image, str) else "in memory", reason)


def _key(image: str | Image) -> str | int:
    return image if isinstance(image, str) else id(image)


# ------------------------------------------------------------------------- reading


def _read_all(
    samples: Sequence[Sample], max_pixels: int, advance: Callable[[int], None] | None
) -> dict[str | int, _Seen]:
    images = {_key(image): image for sample in samples for image in sample.images}
    seen: dict[str | int, _Seen] = {}
    workers = min(16, 2 * (os.cpu_count() or 1))
    with _bombs_raise(), ThreadPoolExecutor(workers, "vlmlens-images") as pool:
        verdicts = pool.map(lambda image: _look(image, max_pixels), images.values())
        for done, (key, verdict) in enumerate(zip(images, verdicts, strict=True), start=1):
            seen[key] = verdict
            if advance is not None:
                advance(done)
    return seen


@contextmanager
def _bombs_raise() -> Iterator[None]:
    """Where Pillow would only warn of too many pixels, raise; `allow_pixels` says how many."""
    from PIL import Image as PILImage

    with warnings.catch_warnings():
        warnings.simplefilter("error", PILImage.DecompressionBombWarning)
        yield


def _look(image: str | Image, max_pixels: int) -> _Seen:
    """Read one image as far as it takes to know that it is whole."""
    from PIL import Image as PILImage

    try:
        if not isinstance(image, str):
            return _unfit(image, max_pixels) or _decoded(image)
        with PILImage.open(image) as opened:
            return _unfit(opened, max_pixels) or _whole(opened)
    except (PILImage.DecompressionBombError, PILImage.DecompressionBombWarning):
        return _Seen(reason=f"more than {max_pixels} pixels, the limit (max_pixels)")
    except UNREADABLE as error:
        return _Seen(reason=_why(image, error))


def _unfit(image: Image, max_pixels: int) -> _Seen | None:
    """What its header already tells against an image."""
    width, height = image.size
    if width * height > max_pixels:
        return _Seen(reason=f"{width} x {height} pixels, the limit (max_pixels) is {max_pixels}")
    try:
        check_mode(image.mode)
    except ValueError as error:
        return _Seen(reason=str(error))
    return None


def _whole(image: Image) -> _Seen:
    """Read a file that was just opened; the image is of no use afterwards."""
    size = image.size
    if image.format == "PNG":
        image.verify()
        return _Seen(size)
    if image.format == "JPEG":
        image.draft(None, _EIGHTH)
    _decoded(image)
    return _Seen(size)


def _decoded(image: Image) -> _Seen:
    image.getexif()
    image.load()
    return _Seen(image.size)


def _why(image: str | Image, error: Exception) -> str:
    """The reason, in words that say what to look for."""
    from PIL import UnidentifiedImageError

    if isinstance(error, OSError) and error.errno is not None:
        return _file_trouble(image, error)
    if isinstance(error, UnidentifiedImageError):
        empty = isinstance(image, str) and Path(image).stat().st_size == 0
        return "an empty file (0 bytes)" if empty else "no image in a format that Pillow reads"
    return f"damaged or cut off ({error})"


def _file_trouble(image: str | Image, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        link = isinstance(image, str) and Path(image).is_symlink()
        return "a link to no file" if link else "the file does not exist"
    return f"cannot be read: {error.strerror}"


# ---------------------------------------------------------------- the model's processor


def _refused(
    samples: Sequence[Sample], seen: Mapping[str | int, _Seen], encode: Encode
) -> Iterator[BadSample]:
    """Samples of absurd shape that the processor refuses, though it takes a plain image there."""
    verdicts: dict[tuple[Size | None, ...], str | None] = {}
    for sample in samples:
        sizes = tuple(seen[_key(image)].size for image in sample.images)
        odd = [image for image, size in zip(sample.images, sizes, strict=True) if _absurd(size)]
        if not odd:
            continue
        if sizes not in verdicts:
            verdicts[sizes] = _refusal(sample, encode)
        reason = verdicts[sizes]
        if reason is not None:
            shapes = ", ".join("{} x {}".format(*size) for size in sizes if size and _absurd(size))
            yield _bad(sample, odd[0], f"{shapes} pixels, which the model refuses ({reason})")


def _absurd(size: Size | None) -> bool:
    if size is None:
        return False
    short, long = sorted(size)
    return short <= _SHORT_SIDE or long > _LONG_TO_SHORT * short


def _refusal(sample: Sample, encode: Encode) -> str | None:
    complaint = _complaint(sample, encode)
    if complaint is None or _complaint(_plain(sample), encode) is not None:
        return None
    return complaint


def _complaint(sample: Sample, encode: Encode) -> str | None:
    try:
        encode([sample])
    except Exception as error:  # noqa: BLE001 - processors raise what they like
        return " ".join(str(error).split())[:200] or type(error).__name__
    return None


def _plain(sample: Sample) -> Sample:
    """The sample with ordinary images instead of its own."""
    from PIL import Image as PILImage

    images: tuple[Any, ...] = tuple(PILImage.new("RGB", _PLAIN_SIZE) for _ in sample.images)
    return replace(sample, images=images)
