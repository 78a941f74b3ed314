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


def steps_of(frames: int, steps: int) -> list[tuple[int, int]]:
    """The first frame of each step of time, and how many frames it stands for.

    The last of an odd number of frames stands alone; the model sees it twice.

    >>> steps_of(5, 3)
    [(0, 2), (2, 2), (4, 1)]
    """
    each = -(-frames // steps)
    return [(each * i, min(each, frames - each * i)) for i in range(steps)]


def pairs_frames(processor: Any) -> bool:
    """Whether a video processor is of Qwen2-VL: it takes pairs of frames, and a single one."""
    return type(processor).__name__ == VIDEO_PROCESSORS["qwen2_vl"]


def frame_rule(processor: Any, takes_video: bool) -> FrameRule:
    """Two frames per second, at least 4 and at most 768, where the processor puts them.

    Args:
        processor: The video processor.
        takes_video: Whether it is of transformers; else the general rule holds.
    """
    if not takes_video:
        return FrameRule()
    pairs = pairs_frames(processor)
    return ProcessorFrames(
        count=None,
        fps=processor.fps or 2.0,
        spread="start" if pairs else "ends",
        least=processor.min_frames,
        most=processor.max_frames,
        multiple=processor.temporal_patch_size if pairs else 1,
        places=processor.sample_frames,
    )
