"""What Qwen-VL makes of a video: two frames are one step of time."""

from __future__ import annotations

from typing import Any

from vlmlens.hf import ProcessorFrames
from vlmlens.videos import FrameRule

VIDEO_PLACEHOLDERS = ("<video>", "<|video_pad|>", "<|vision_start|><|video_pad|><|vision_end|>")
VIDEO_PROCESSORS = {
    "qwen2_vl": "Qwen2VLVideoProcessor",
    "qwen2_5_vl": "Qwen2VLVideoProcessor",
    "qwen3_vl": "Qwen3VLVideoProcessor",
    "qwen3_vl_moe": "Qwen3VLVideoProcessor",
}
"""By model type, the class of transformers that makes the tensors of videos."""


def frames_of(frames: int, steps: int) -> list[tuple[int, int]]:
    """The first and the last frame of each step; an odd last frame stands for two.

    >>> frames_of(5, 3)
    [(0, 1), (2, 3), (4, 4)]
    """
    each = -(-frames // steps)
    return [(each * i, min(each * i + each, frames) - 1) for i in range(steps)]


def frame_rule(processor: Any, takes_video: bool) -> FrameRule:
    """Two frames per second, at least 4 and at most 768, where the processor puts them.

    Args:
        processor: The video processor.
        takes_video: Whether it is of transformers; else the general rule holds.
    """
    if not takes_video:
        return FrameRule()
    pairs = type(processor).__name__ == VIDEO_PROCESSORS["qwen2_vl"]
    return ProcessorFrames(
        count=None,
        fps=processor.fps or 2.0,
        spread="start" if pairs else "ends",
        least=processor.min_frames,
        most=processor.max_frames,
        multiple=processor.temporal_patch_size if pairs else 1,
        places=processor.sample_frames,
    )
