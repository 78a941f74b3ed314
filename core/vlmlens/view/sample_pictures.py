"""Pictures of samples, opened as a run opens them, made small, and kept in memory up to a bound."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING

from vlmlens.errors import ImageError
from vlmlens.images import UNREADABLE, open_image, upright_size
from vlmlens.report._pictures import LARGE, MIDDLE, SMALL, TINY, encoded
from vlmlens.runs.trust import ASK, NOWHERE
from vlmlens.samples import Sample, check_decoded
from vlmlens.spec.model import MAX_PIXELS

if TYPE_CHECKING:
    from vlmlens.view.shown_run import ShownRun

SIDES = (TINY, SMALL, MIDDLE, LARGE, 1024)
"""Longest sides in pixels that can be asked for."""

_KEPT_BYTES = 32 << 20
_AT_ONCE = BoundedSemaphore(2)
"""How many pictures are decoded at once: each may need hundreds of megabytes."""


@dataclass(frozen=True)
class SmallPicture:
    """A picture as a file.

    Args:
        content: The file.
        kind: Its media type.
    """

    content: bytes
    kind: str


class KeptPictures:
    """Pictures that were made small last, by what they were made of.

    Args:
        most: How many bytes are kept.
    """

    def __init__(self, most: int = _KEPT_BYTES) -> None:
        self._most = most
        self._bytes = 0
        self._lock = Lock()
        self._kept: OrderedDict[object, SmallPicture] = OrderedDict()

    @property
    def bytes(self) -> int:
        """How many bytes are kept now."""
        return self._bytes

    def get(self, key: object) -> SmallPicture | None:
        """A picture that is kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def keep(self, key: object, made: SmallPicture) -> None:
        """Keep a picture; the one that was asked for longest ago makes room."""
        with self._lock:
            if key in self._kept or len(made.content) > self._most:
                return
            self._kept[key] = made
            self._bytes += len(made.content)
            while self._bytes > self._most:
                _, gone = self._kept.popitem(last=False)
                self._bytes -= len(gone.content)


_KEPT = KeptPictures()


def small_picture(run: ShownRun, number: int, image: int, side: int) -> SmallPicture:
    """A picture of a sample, at most `side` pixels long.

    Args:
        run: The run.
        number: The sample's number.
        image: The number of its picture.
        side: One of `SIDES`.

    Raises:
        ImageError: It cannot be read, has more pixels than the run allows, or lies outside the
            folder of a run that is not trusted.
        DataError: The frames of its video are not chosen yet.
    """
    sample = run.samples[number]
    source = sample.images[image]
    key = (str(run.run.path), source, sample.rules, side, _state(source))
    known = _KEPT.get(key) if isinstance(source, str) else None
    if known is not None:
        return known
    picture_size(run, sample, image)
    with _AT_ONCE:
        (opened,) = _alone(sample, image).open_images()
        made = SmallPicture(*encoded(opened, side))
    if isinstance(source, str):
        _KEPT.keep(key, made)
    return made


def picture_size(run: ShownRun, sample: Sample, image: int) -> tuple[int, int]:
    """Width and height of a picture as the model sees it; its pixels are not read.

    Raises:
        ImageError: It is not there, is no picture, or has more pixels than the run allows.
        DataError: The frames of its video are not chosen yet.
    """
    check_decoded(sample)
    source, most = sample.images[image], _most_pixels(run)
    if not isinstance(source, str):
        return sample.rules.size or source.size
    if source.startswith(NOWHERE):
        raise ImageError(
            f"Sample {sample.id!r}: the picture lies outside the run's folder, and the run was "
            "not made by you on this machine, or was edited since.",
            subject=sample.id,
            hint=ASK,
        )
    from PIL.Image import DecompressionBombError

    try:
        with open_image(source) as opened:
            stored, size = opened.size, upright_size(opened)
    except (*UNREADABLE, DecompressionBombError) as error:
        raise _cannot(sample, str(error)) from error
    if prod(stored) > most:
        raise _cannot(sample, f"{stored[0]} x {stored[1]} pixels, the limit is {most}")
    return sample.rules.size or size


def _most_pixels(run: ShownRun) -> int:
    """The limit of the run; what a run says that is not trusted cannot raise it."""
    most = run.run.spec.max_pixels
    return most if run.run.trusted else min(most, MAX_PIXELS)


def _alone(sample: Sample, image: int) -> Sample:
    return replace(sample, images=sample.images[image : image + 1], video=None)


def _state(source: object) -> tuple[int, int]:
    try:
        found = Path(str(source)).stat()
    except (OSError, ValueError):
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _cannot(sample: Sample, why: str) -> ImageError:
    return ImageError(
        f"Sample {sample.id!r}: the picture cannot be shown ({why}).",
        subject=sample.id,
        hint="Replace the file.",
    )
