"""What Qwen-VL makes of a video: two frames are one step of time."""

from __future__ import annotations

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
