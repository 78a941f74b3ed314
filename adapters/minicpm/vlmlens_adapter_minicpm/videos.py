"""Which frames of a video MiniCPM-V takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers.video_utils import VideoMetadata

from vlmlens.videos import FrameRule


@dataclass(frozen=True, slots=True)
class SecondFrames(FrameRule):
    """The frame at each second; of a longer video, as many as the processor takes, spread evenly.

    Another number of frames, or of frames per second, is taken from the start of equal shares.

    Args:
        processor: Transformers' video processor.
    """

    processor: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, processor: Any) -> SecondFrames:
        """The rule of a video processor."""
        most = int(processor.max_num_frames)
        return cls(count=None, fps=1.0, spread="start", most=most, processor=processor)

    def indices(self, total: int, fps: float | None) -> tuple[int, ...]:
        """See `FrameRule.indices`."""
        if self.fps != 1 or not fps:
            return tuple(super(SecondFrames, self).indices(total, fps))
        known = VideoMetadata(total_num_frames=total, fps=fps, duration=total / fps)
        found = self.processor.sample_frames(known, stack_frames=1)
        return tuple(min(int(number), total - 1) for number in found)
