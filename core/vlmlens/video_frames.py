"""Frames of videos as images of samples: PNG files in vlmlens' cache, read from a file once.

Frames are named by the digest of the video and their number. What a video file says of itself is
kept, too, so that a later run does not open it unless it needs other frames.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import time
import zlib
from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from vlmlens._disk import made_cache
from vlmlens._files import cache_folder, write_bytes
from vlmlens.errors import DataError, VideoError
from vlmlens.samples import Sample
from vlmlens.video_files import BadVideo, Clip, check_can_read, opened, read_frames
from vlmlens.videos import FrameRule, Video

__all__ = ["FrameFiles", "with_frames"]

_FOLDER = "frames-1"
_SETTLED = 0.1
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def with_frames(samples: Iterable[Sample], rule: FrameRule | None = None) -> list[Sample]:
    """The samples with the frames of their videos as images. A run does this by itself.

    Args:
        samples: The samples; those without a video, or with frames already, stay as they are.
        rule: Which frames to take; None: eight, spread evenly.

    Raises:
        MissingDependency: PyAV is not installed.
        VideoError: A video is missing, or cannot be read.
    """
    files = FrameFiles(rule or FrameRule())
    found = []
    for sample in samples:
        try:
            found.append(files.framed(sample))
        except BadVideo as error:
            raise VideoError(
                f"Sample {sample.id!r}: the video {source_of(sample)!r}: {error}.",
                subject=source_of(sample),
                hint="Replace the file, or remove the sample.",
            ) from error
    return found


def source_of(sample: Sample) -> str:
    """The path of a sample's video; "" if there is none."""
    return sample.video.source if sample.video is not None else ""


class FrameFiles:
    """Chooses frames of videos and makes files of them.

    Args:
        rule: Which frames to take.
        max_pixels: Videos with more pixels per frame are refused.
    """

    def __init__(self, rule: FrameRule, *, max_pixels: float = math.inf) -> None:
        self._rule = rule
        self._max_pixels = max_pixels
        self._known: dict[str, tuple[Video, tuple[str, ...]]] = {}

    def framed(self, sample: Sample) -> Sample:
        """The sample with the frames of its video as images.

        Raises:
            MissingDependency: PyAV is not installed.
            BadVideo: The video cannot be used; the message says why.
        """
        if sample.video is None or sample.video.decoded:
            return sample
        if sample.images:
            raise BadVideo("the sample has images, too, and their frames are not numbered")
        source = sample.video.source
        if source not in self._known:
            self._known[source] = self._frames(source)
        video, images = self._known[source]
        return replace(sample, video=video, images=images)

    def _frames(self, source: str) -> tuple[Video, tuple[str, ...]]:
        _check_file(source)
        known = _remembered(source)
        clip, digest = known or self._opened(source)
        if clip.size[0] * clip.size[1] > self._max_pixels:
            raise BadVideo("its frames have {} x {} pixels, too many".format(*clip.size))
        try:
            numbers = self._rule.indices(clip.total, clip.fps)
        except DataError as error:
            raise BadVideo(f"{error.message} {error.hint}".rstrip(".")) from error
        paths = {number: _path(digest, number) for number in numbers}
        missing = [number for number, path in paths.items() if not path.exists()]
        if missing:
            clip = clip if known is None else self._opened(source)[0]
            _write(clip, missing, digest)
        times = clip.seconds(numbers)
        video = Video(source, numbers, times, clip.fps, clip.total, clip.duration)
        return video, tuple(str(paths[number]) for number in numbers)

    def _opened(self, source: str) -> tuple[Clip, str]:
        check_can_read()
        began = time.time()
        try:
            state, digest = _state(source), _digest(source)
            clip = opened(source, max_pixels=self._max_pixels)
            same = state == _state(source)
        except OSError as error:
            raise BadVideo(error.strerror or str(error)) from error
        if same and max(state[1:3]) < (began - _SETTLED) * 1e9:
            _remember(source, state, clip, digest)
        return clip, digest


def _check_file(source: str) -> None:
    if _URL.match(source):
        raise BadVideo("it is an address; download the video first")
    if not source:
        raise BadVideo("no file is named")
    if not Path(source).is_file():
        raise BadVideo("it is a folder" if Path(source).is_dir() else "there is no such file")


def _write(clip: Clip, numbers: Sequence[int], digest: str) -> None:
    """Make a file of each frame; each is there as a whole or not at all."""
    made_cache(_FOLDER, digest[:2])
    for number, image in read_frames(clip, numbers):
        sink = BytesIO()
        image.save(sink, "PNG", compress_level=1)
        write_bytes(_path(digest, number), sink.getvalue(), durable=False)


def _path(digest: str, number: int) -> Path:
    return cache_folder() / _FOLDER / digest[:2] / f"{digest}-{number:06d}.png"


def _digest(source: str) -> str:
    with Path(source).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(source: str) -> tuple[int, ...]:
    found = Path(source).stat()
    return found.st_size, found.st_ctime_ns, found.st_mtime_ns, found.st_ino


def _record(source: str, state: tuple[int, ...]) -> Path:
    name = hashlib.sha256(f"{os.path.abspath(source)}\0{state}".encode(errors="surrogateescape"))  # noqa: PTH100 - links
    return cache_folder() / _FOLDER / "clips" / f"{name.hexdigest()}.json"


def _remember(source: str, state: tuple[int, ...], clip: Clip, digest: str) -> None:
    steps = [0, *(b - a for a, b in pairwise(clip.stamps))]
    known: dict[str, Any] = {
        "digest": digest,
        "size": clip.size,
        "total": clip.total,
        "fps": clip.fps,
        "unit": clip.unit,
        "steps": base64.b64encode(zlib.compress(array("q", steps).tobytes())).decode(),
        "timed": bool(clip.stamps),
    }
    path = _record(source, state)
    made_cache(_FOLDER, "clips")
    write_bytes(path, json.dumps(known).encode(), durable=False)


def _remembered(source: str) -> tuple[Clip, str] | None:
    """What is known of a file that has not changed; its clip can tell numbers, not read frames."""
    with suppress(OSError, ValueError, KeyError, TypeError, zlib.error):
        known = json.loads(_record(source, _state(source)).read_bytes())
        steps = array("q")
        steps.frombytes(zlib.decompress(base64.b64decode(known["steps"])))
        stamps = array("q", accumulate(steps)) if known["timed"] else ()
        size, total = tuple(map(int, known["size"])), int(known["total"])
        width, height = size
        clip = Clip(source, (width, height), total, known["fps"], stamps, (), known["unit"])
        return clip, str(known["digest"])
    return None
