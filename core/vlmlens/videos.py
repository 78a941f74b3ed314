"""Videos: which frames of one a sample's images are, and by which rule frames are taken."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from operator import index
from typing import Any, Literal

from vlmlens._display import brief, count
from vlmlens.errors import DataError

__all__ = ["FrameRule", "Spread", "Video"]

Spread = Literal["interior", "start", "middle", "ends"]
"""How k frames are spread over n, rounded down (the last one: to the nearest, halves to even):
i*n/(k+1) for i = 1..k; i*n/k for i = 0..k-1; (i+1/2)*n/k; i*(n-1)/(k-1)."""


@dataclass(frozen=True, slots=True)
class Video:
    """One video: the file, and which of its frames a sample's images are.

    Without `frames`, none has been chosen yet: a run reads the file, and the frames become the
    sample's images.

    Args:
        source: Path of the file; "" for frames that came without one.
        frames: Number of each frame in the source, from 0, in order: one per image of the sample.
        times: Seconds from the start at which each frame is shown, as the file says; empty if it is
            not known.
        fps: Frames per second of the source, on average; None if it is not known.
        total: Number of frames in the source; None if it is not known.
        duration: Seconds that the source lasts; None if it is not known.

    Raises:
        DataError: Frames are not in order, or a number makes no sense.

    >>> Video("a.mp4", frames=(0, 12), fps=24.0, total=24).seconds
    (0.0, 0.5)
    """

    source: str = ""
    frames: tuple[int, ...] = ()
    times: tuple[float, ...] = ()
    fps: float | None = None
    total: int | None = None
    duration: float | None = None

    def __post_init__(self) -> None:
        try:
            for name, value in _plain(self).items():
                object.__setattr__(self, name, value)
            problem = _problem(self)
        except (TypeError, ValueError) as error:
            problem = str(error).removesuffix(".")
        if problem:
            raise DataError(
                f"The video {self.source!r}: {problem}.",
                subject=self.source,
                hint="Frames are whole numbers from 0, in order; times are seconds.",
            )

    @property
    def decoded(self) -> bool:
        """Whether its frames are chosen, and are the sample's images."""
        return bool(self.frames)

    @property
    def seconds(self) -> tuple[float, ...] | None:
        """When each frame is shown: `times`, else by `fps`; None if neither is known."""
        if self.times or not self.fps:
            return self.times or None
        return tuple(number / self.fps for number in self.frames)

    def as_seen(self) -> Video:
        """What of it can change what a model sees: all but the name of a file that was read."""
        return replace(self, source="") if self.decoded else self

    def to_dict(self) -> dict[str, Any]:
        """What is known, as JSON-ready data."""
        found = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in found.items()
            if value not in ("", (), None)
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Video:
        """The inverse of `to_dict`."""
        return cls(**data)

    def __repr__(self) -> str:
        what = count(len(self.frames), "frame") if self.decoded else "no frame chosen"
        return brief(self, self.source, what)


@dataclass(frozen=True, slots=True)
class FrameRule:
    """Which frames of a video are taken. A family with a rule of another kind subclasses it.

    Args:
        count: How many frames; None: as many as `fps` gives.
        fps: How many frames per second of the video; None: `count`.
        spread: Where they lie.
        least: The fewest frames, as far as the video has them.
        most: The most frames.
        multiple: Their number is a multiple of this: a count is rounded to the nearest one, what
            `fps` gives is rounded down. A video with fewer frames gives them all.

    Raises:
        DataError: Not exactly one of `count` and `fps` is given, or a number is not positive.

    >>> FrameRule(count=3).indices(total=8, fps=None)
    (2, 4, 6)
    >>> FrameRule(count=None, fps=1, spread="ends").indices(total=60, fps=20.0)
    (0, 30, 59)
    """

    count: int | None = 8
    fps: float | None = None
    spread: Spread = "interior"
    least: int = 1
    most: int = 768
    multiple: int = 1

    def __post_init__(self) -> None:
        given = [value for value in (self.count, self.fps) if value is not None]
        numbers = (*given, self.least, self.most, self.multiple)
        if len(given) != 1 or not all(0 < value < math.inf for value in numbers):
            raise DataError(
                f"Frames cannot be taken by count {self.count} and fps {self.fps}.",
                subject="frames",
                hint="Give one of both, a positive number: --set frames=16, or --set fps=1.",
            )

    def asked(self, count: int | None = None, fps: float | None = None) -> FrameRule:
        """The rule with the user's number of frames, or frames per second, instead of its own."""
        if count is None and fps is None:
            return self
        return replace(self, count=count, fps=fps)

    @property
    def said(self) -> str:
        """The rule in words, for people."""
        if self.count is None:
            return f"{self.fps:g} per second, at least {self.least}, at most {self.most}"
        k = self._number(self.most, None)
        if type(self) is not FrameRule:
            return f"{k} of n, where the family takes them"
        return {
            "interior": f"numbers i*n/{k + 1} of n, i = 1 to {k}",
            "start": f"numbers i*n/{k} of n, i = 0 to {k - 1}",
            "middle": f"numbers (i+1/2)*n/{k} of n, i = 0 to {k - 1}",
            "ends": f"{k} of n, evenly from the first to the last",
        }[self.spread]

    def indices(self, total: int, fps: float | None) -> tuple[int, ...]:
        """Numbers of the frames, in order.

        Args:
            total: How many frames the video has: at least one.
            fps: Frames per second of the video, on average.

        Raises:
            DataError: The rule needs `fps`, and it is not known.
        """
        k = min(self._number(total, fps), total)
        return tuple(_places(self.spread, k, total))

    def _number(self, total: int, fps: float | None) -> int:
        if self.count is not None:
            return max(round(self.count / self.multiple), 1) * self.multiple
        if not fps or self.fps is None:
            raise DataError(
                "How many frames per second the video has is not known.",
                subject="fps",
                hint="Say how many frames to take: --set frames=8.",
            )
        wanted = min(max(int(total / fps * self.fps), self.least), self.most, total)
        return max(wanted // self.multiple, 1) * self.multiple


def _places(spread: Spread, k: int, n: int) -> list[int]:
    if spread == "interior":
        return [i * n // (k + 1) for i in range(1, k + 1)]
    if spread == "start":
        return [i * n // k for i in range(k)]
    if spread == "middle":
        return [(2 * i + 1) * n // (2 * k) for i in range(k)]
    return [round(i * (n - 1) / max(k - 1, 1)) for i in range(k)]


def _plain(video: Video) -> dict[str, Any]:
    """Its numbers as Python's own, whatever kind they came as."""
    return {
        "source": os.fsdecode(video.source),
        "frames": tuple(_whole(number) for number in video.frames),
        "times": tuple(float(second) for second in video.times),
        "fps": None if video.fps is None else float(video.fps),
        "total": None if video.total is None else _whole(video.total),
        "duration": None if video.duration is None else float(video.duration),
    }


def _whole(number: Any) -> int:
    if isinstance(number, bool):
        raise TypeError(f"{number} is no number of a frame")
    return index(number)


def _problem(video: Video) -> str:
    """What is wrong with its numbers; "" if nothing is."""
    frames, times = video.frames, video.times
    if list(frames) != sorted(frames) or (frames and frames[0] < 0):
        return f"its frames {frames[:8]} are not in order"
    if frames and video.total is not None and frames[-1] >= video.total:
        return f"it has {video.total} frames, so none has the number {frames[-1]}"
    if times and len(times) != len(frames):
        return f"it has {len(frames)} frames and {len(times)} times"
    rates = [value for value in (video.fps, video.duration) if value is not None]
    if not all(math.isfinite(value) and value >= 0 for value in (*times, *rates)) or video.fps == 0:
        return f"fps {video.fps}, duration {video.duration}, times {times[:8]}"
    return ""
