"""Frames of a sample's video, as transformers' video processors take them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from transformers.video_utils import VideoMetadata

from vlmlens.errors import DataError
from vlmlens.samples import Sample
from vlmlens.videos import FrameRule, Video


class Frames(list[Any]):
    """The opened frames of a sample's video, in order.

    Where a family takes videos, this stands in the place of a sample's list of images.

    Args:
        frames: The frames; None for each where only the place of the video matters.
        video: What is known of the video.
    """

    def __init__(self, frames: Sequence[Any], video: Video) -> None:
        super().__init__(frames)
        self.video = video

    @classmethod
    def of(cls, sample: Sample, frames: Sequence[Any]) -> Frames:
        """The frames of a sample.

        Raises:
            DataError: The frames differ in size, or it has no video.
        """
        if sample.video is None:
            raise DataError(f"The sample {sample.id!r} has no video.", subject=sample.id)
        sizes = {frame.size for frame in frames}
        if len(sizes) > 1:
            wide, high = min(sizes)
            raise DataError(
                f"The frames of {sample.id!r} differ in size: {wide} x {high}, and others.",
                subject=sample.id,
                hint="Give frames of one size, or several images without `video`.",
            )
        return cls(frames, sample.video)

    def pixels(self) -> np.ndarray[Any, Any]:
        """uint8 `[frames, height, width, 3]`."""
        return np.stack([np.asarray(frame) for frame in self])

    def metadata(self) -> VideoMetadata:
        """What transformers wants to know of the video."""
        wide, high = self[0].size
        return VideoMetadata(
            total_num_frames=self.video.total or self.video.frames[-1] + 1,
            fps=self.video.fps,
            width=wide,
            height=high,
            duration=self.video.duration,
            frames_indices=list(self.video.frames),
        )


def parts(images: Sequence[Any]) -> list[dict[str, Any]]:
    """A message's parts for its images, or for its video."""
    if isinstance(images, Frames):
        return [{"type": "video", "video": None if None in images else images.pixels()}]
    return [{"type": "image", "image": image} for image in images]


def video_settings(groups: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Arguments of transformers' processors for the videos among samples' images."""
    videos = [group for group in groups if isinstance(group, Frames)]
    if not videos:
        return {}
    return {
        "video_metadata": [video.metadata() for video in videos],
        "do_sample_frames": False,
        "input_data_format": "channels_last",
    }


def check_one_kind(samples: Sequence[Sample], groups: Sequence[Sequence[Any]]) -> None:
    """Raise where a batch has both videos and images: the tower would run twice.

    Raises:
        DataError: It has.
    """
    videos = [isinstance(group, Frames) for group in groups]
    pictures = [bool(group) and not one for group, one in zip(groups, videos, strict=True)]
    if any(videos) and any(pictures):
        one, other = samples[videos.index(True)].id, samples[pictures.index(True)].id
        raise DataError(
            f"The sample {one!r} has a video and {other!r} has images: they cannot be in one "
            "batch.",
            subject=one,
            hint="Encode them apart; of a run: split the data, or use --batch-size 1.",
        )


def untimed(video: Video) -> str:
    """Why it is not known when frames are shown; "" if it is."""
    missing = [name for name in ("fps", "total") if getattr(video, name) is None]
    return f"its video does not say {' and '.join(missing)}" if missing else ""


class Places(Protocol):
    """`sample_frames` of transformers' video processors."""

    def __call__(self, metadata: Any, num_frames: int) -> Any:
        """The numbers of that many frames."""


@dataclass(frozen=True, slots=True)
class ProcessorFrames(FrameRule):
    """Frames where transformers' video processor of the family puts them.

    Args:
        places: Its `sample_frames`.
    """

    places: Places | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, processor: Any) -> ProcessorFrames:
        """The rule of a video processor.

        Where it names no number of frames: 2 per second if it counts by time, else 8.
        """
        timed = hasattr(processor, "min_frames")
        fps = processor.fps or (2.0 if timed else None)
        return cls(
            count=None if fps else processor.num_frames or 8,
            fps=fps,
            least=processor.min_frames if timed else 1,
            most=processor.max_frames if timed else 768,
            multiple=processor.temporal_patch_size if takes_pairs(processor) else 1,
            places=processor.sample_frames,
        )

    def indices(self, total: int, fps: float | None) -> tuple[int, ...]:
        """See `FrameRule.indices`; a video with too few frames gives them all."""
        wanted = self._number(total, fps)
        if wanted >= total or self.places is None:
            return tuple(range(min(wanted, total)))
        found = self.places(VideoMetadata(total_num_frames=total), num_frames=wanted)
        return tuple(int(number) for number in found)


def takes_pairs(processor: Any) -> bool:
    """Whether a video processor takes frames in whole steps of time."""
    return "temporal_patch_size" in inspect.signature(processor.sample_frames).parameters


def fewest(processor: Any) -> int:
    """How many frames a video processor needs; those that take whole steps pad a single frame."""
    step = int(getattr(processor, "temporal_patch_size", None) or 1)
    return 1 if takes_pairs(processor) else step


def made_here(processors: Mapping[str, str], model_type: str, processor: Any) -> bool:
    """Whether a checkpoint's videos are made by the class that was checked for its type.

    Args:
        processors: By model type, the name of transformers' class.
        model_type: Of the checkpoint.
        processor: The checkpoint's processor.
    """
    found = type(getattr(processor, "video_processor", None)).__name__
    return processors.get(model_type) == found
