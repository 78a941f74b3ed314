"""Videos of SmolVLM2: which frames are taken, and how a prompt with a video is written."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from transformers.video_utils import VideoMetadata

from vlmlens.videos import FrameRule
from vlmlens_adapter_smolvlm.number_words import MODULE


@dataclass(frozen=True, slots=True)
class SmolVLMFrames(FrameRule):
    """Frames where transformers' video processor of SmolVLM2 puts them.

    At most `most` frames are taken, at most `fps` per second, from the first to the last; a second
    at either end of a long video is left out.

    Args:
        limit: The most frames of the checkpoint; None: as many as asked for.
        rate: Its frames per second.
        places: Its `sample_frames`.
    """

    limit: int | None = None
    rate: float | None = None
    places: Callable[..., Any] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, processor: Any) -> FrameRule:
        """The rule of a video processor; without settings for it, 8 frames inside the video."""
        most, fps = processor.num_frames, processor.fps
        if not (most and fps):
            return FrameRule()
        places = processor.sample_frames
        return cls(count=None, fps=fps, most=most, limit=most, rate=fps, places=places)

    def indices(self, total: int, fps: float | None) -> tuple[int, ...]:
        """See `FrameRule.indices`; without the video's frames per second, as many as asked for."""
        if not fps or self.places is None:
            return FrameRule(count=self.count or self.limit).indices(total, None)
        known = VideoMetadata(total_num_frames=total, fps=fps, duration=total / fps)
        most, rate = self.count or self.limit, self.fps or self.rate
        return tuple(int(number) for number in self.places(known, num_frames=most, fps=rate))


def video_template() -> str:
    """The chat template that transformers takes for prompts with a video, for any checkpoint."""
    found: str = importlib.import_module(MODULE).DEFAULT_CHAT_TEMPLATE
    return found
