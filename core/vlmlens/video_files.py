"""Reading video files with PyAV (`vlmlens[video]`): how many frames, when each is shown, and some.

Frames are counted in the order in which they are shown. Memory holds one of them at a time, and a
number per frame. A file is read as what it is: a text that names other files or addresses (a
playlist) is no video, and nothing is fetched.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens.errors import MissingDependency
from vlmlens.images import check_plain

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset(
    {
        ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts",
        ".3gp", ".3g2", ".flv", ".wmv", ".asf", ".ogv", ".mxf", ".vob",
    }
)  # fmt: skip
"""Suffixes of video files, in lower case."""

_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,mxf,gif,h264,hevc,"
    "m4v,ivf,nut,dv"
)
"""FFmpeg's names of formats that hold their video themselves; none of them names other files."""

_WITH_DURATION = ("matroska", "avi", "flv")
"""Formats whose beginning says how long the file lasts."""

_SAME_RATE = 0.02
_LATE = 1.0


class BadVideo(ValueError):
    """A video file cannot be used; the message says why, in words for people."""


@dataclass(frozen=True)
class Clip:
    """What a video file says.

    Args:
        path: The file.
        size: (width, height) of its frames, as stored.
        total: How many frames it has.
        fps: Frames per second, on average; None for a single frame without a duration.
        stamps: When each frame is shown, in order, in units of `unit`; empty if it is not said.
        keys: (shown at, stored at) of the frames that need no other one, in order.
        unit: Seconds.
    """

    path: str
    size: tuple[int, int]
    total: int
    fps: float | None
    stamps: Sequence[int] = ()
    keys: Sequence[tuple[int, int]] = ()
    unit: float = 1.0

    @property
    def duration(self) -> float | None:
        """Seconds, by the number of frames; None if it is not known."""
        return self.total / self.fps if self.fps else None

    def seconds(self, numbers: Iterable[int]) -> tuple[float, ...]:
        """When frames are shown, from the first one on; empty if it is not known."""
        if not self.stamps:
            return ()
        return tuple(round((self.stamps[i] - self.stamps[0]) * self.unit, 6) for i in numbers)


def is_video(path: str) -> bool:
    """Whether a file is a video, by its suffix."""
    return Path(path).suffix.lower() in SUFFIXES


def check_can_read() -> None:
    """Raise `MissingDependency` without PyAV."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            "Videos are read by the package 'av' (PyAV), which is not installed.",
            subject="av",
            hint="pip install 'vlmlens[video]', or give the frames as images.",
        ) from error


def opened(path: str, *, max_pixels: float = math.inf) -> Clip:
    """Look through a file; no frame is decoded, unless the file does not say when they are shown.

    Args:
        path: The file.
        max_pixels: Frames with more pixels are refused.

    Raises:
        BadVideo: It cannot be read, or holds no frame.
    """
    with _stream(path, max_pixels) as (container, stream):
        found = _looked_through(path, container, stream)
    return found if found.stamps else _counted(found, max_pixels)


def read_frames(clip: Clip, numbers: Iterable[int]) -> Iterator[tuple[int, Image]]:
    """Some frames as upright RGB images, each with its number: one after the other, in order.

    Args:
        clip: The file.
        numbers: Of the frames.

    Raises:
        BadVideo: One of them is damaged, or is not there.
    """
    left = sorted(set(numbers))
    for jump in (True, False) if clip.stamps else (False,):
        try:
            with _stream(clip.path) as (container, stream):
                walk = _by_stamps(clip, left, container, stream, jump=jump)
                for number, frame in walk if clip.stamps else _by_count(left, container, stream):
                    if frame.is_corrupt:
                        raise BadVideo(f"frame {number} of {clip.total} is damaged")
                    yield number, _upright(frame)
                    left = left[1:]
        except BadVideo:
            if not jump:
                raise
        if not left:
            return


@contextmanager
def _stream(path: str, max_pixels: float = math.inf) -> Iterator[tuple[Any, Any]]:
    """A file's best video stream, in its open container."""
    import av

    try:
        check_plain(path)
        if not Path(path).stat().st_size:
            raise BadVideo("the file is empty")
        name = f"file:{Path(path).absolute()}"
        with av.open(name, options={"format_whitelist": _FORMATS}) as container:
            stream: Any = container.streams.best("video")
            if stream is None:
                raise BadVideo("it holds no video")
            width, height = stream.codec_context.width, stream.codec_context.height
            if width * height > max_pixels:
                raise BadVideo(f"its frames have {width} x {height} pixels, too many (max_pixels)")
            stream.thread_type = "AUTO"
            yield container, stream
    except av.FFmpegError as error:
        raise BadVideo(f"it cannot be read ({error.strerror})") from error
    except (OSError, UnicodeError) as error:
        raise BadVideo(str(getattr(error, "strerror", None) or error)) from error


def _looked_through(path: str, container: Any, stream: Any) -> Clip:
    """What the packets of a file say; without stamps where one of them does not say its own."""
    stamps, keys, found, dropped, end = array("q"), [], 0, 0, 0.0
    for packet in container.demux():
        if not packet.size:
            continue
        if packet.pts is not None:
            end = max(end, (packet.pts + (packet.duration or 0)) * float(packet.time_base))
        if packet.stream_index != stream.index:
            continue
        if packet.is_discard:
            dropped += 1
            continue
        found += 1
        if packet.pts is not None:
            stamps.append(packet.pts)
            if packet.is_keyframe:
                keys.append((packet.pts, packet.pts if packet.dts is None else packet.dts))
    if not found:
        raise BadVideo("it holds no frame")
    _check_whole(container, stream, found + dropped, end)
    shown = sorted(set(stamps))
    known = len(shown) == found and bool(keys) and min(keys)[0] == shown[0]
    unit = float(stream.time_base)
    size = stream.codec_context.width, stream.codec_context.height
    rate = _rate(stream, shown if known else [], unit)
    if not known:
        return Clip(path, size, found, rate)
    return Clip(path, size, found, rate, array("q", shown), sorted(keys), unit)


def _check_whole(container: Any, stream: Any, frames: int, end: float) -> None:
    """Refuse a file of which a part is missing, where its beginning says what it should hold.

    Args:
        container: The open file.
        stream: Its video.
        frames: How many there are.
        end: When what is there ends, in seconds.
    """
    if "mov" in container.format.name and frames < stream.frames:
        raise BadVideo(f"it is cut off: {frames} of {stream.frames} frames are there")
    said = (container.duration or 0) / 1e6
    promised = any(name in container.format.name for name in _WITH_DURATION)
    if promised and said - end > max(_LATE, _LATE * said / 10):
        raise BadVideo(f"it is cut off: {end:.1f} of {said:.1f} seconds are there")


def _rate(stream: Any, shown: Sequence[int], unit: float) -> float | None:
    """Frames per second: what the file says, where the times of its frames agree."""
    said = float(stream.average_rate) if stream.average_rate else None
    if len(shown) < 2:
        return said
    counted = (len(shown) - 1) / ((shown[-1] - shown[0]) * unit)
    return said if said and abs(counted / said - 1) < _SAME_RATE else counted


def _counted(clip: Clip, max_pixels: float) -> Clip:
    """The same clip with its frames counted by decoding them."""
    with _stream(clip.path, max_pixels) as (container, stream):
        total = sum(1 for _ in container.decode(stream))
    if not total:
        raise BadVideo("it holds no frame")
    return Clip(clip.path, clip.size, total, clip.fps)


def _by_stamps(
    clip: Clip, wanted: Sequence[int], container: Any, stream: Any, *, jump: bool
) -> Iterator[tuple[int, Any]]:
    """Frames by when they are shown. To `jump` leaves out what no wanted frame needs."""
    firsts = [shown for shown, _ in clip.keys]
    frames, reached = container.decode(stream), clip.stamps[0]
    for number in wanted:
        stamp = clip.stamps[number]
        shown, stored = clip.keys[bisect_right(firsts, stamp) - 1]
        if jump and shown > reached:
            container.seek(stored, stream=stream)
            frames = container.decode(stream)
        frame = next((each for each in frames if each.pts is not None and each.pts >= stamp), None)
        if frame is None or frame.pts != stamp:
            raise BadVideo(f"frame {number} of {clip.total} cannot be decoded")
        reached = stamp
        yield number, frame


def _by_count(wanted: Sequence[int], container: Any, stream: Any) -> Iterator[tuple[int, Any]]:
    """Frames by counting them from the first one on."""
    frames = enumerate(container.decode(stream))
    for number in wanted:
        found = next((frame for at, frame in frames if at == number), None)
        if found is None:
            raise BadVideo(f"frame {number} cannot be decoded")
        yield number, found


def _upright(frame: Any) -> Image:
    image: Image = frame.to_image()
    return image.rotate(frame.rotation, expand=True) if frame.rotation % 360 else image
