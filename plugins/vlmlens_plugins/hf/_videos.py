"""Videos in the generic adapter: the families whose own video inputs are known and checked."""

from __future__ import annotations

from typing import Any

from vlmlens.hf import (
    CropGeometry,
    PlacedImage,
    crop_geometry,
    frame_patches,
    grid_patches,
)
from vlmlens.tokens import PatchGrid

PROCESSORS = {
    "llava_next_video": "LlavaNextVideoVideoProcessor",
    "qwen2_vl": "Qwen2VLVideoProcessor",
    "qwen2_5_vl": "Qwen2VLVideoProcessor",
    "qwen3_vl": "Qwen3VLVideoProcessor",
    "qwen3_vl_moe": "Qwen3VLVideoProcessor",
}
"""By model type, the class of transformers that makes the tensors of videos."""
_FRAMES = "pixel_values_videos"
_STEPS = "video_grid_thw"


def video_patches(image: PlacedImage, config: Any, processor: Any) -> PatchGrid:
    """Where a video's tokens lie in its frames.

    Args:
        image: The video.
        config: The model's config.
        processor: Its video processor.
    """
    if _STEPS in image.inputs:
        steps, rows, cols = image.inputs[_STEPS][image.index].tolist()
        rows, cols = rows // int(processor.merge_size), cols // int(processor.merge_size)
        grid = grid_patches(0, rows, cols, (1, 1), CropGeometry(cols, rows))
        return frame_patches(grid, image.frames, steps)
    cell = int(config.vision_config.patch_size) * int(config.spatial_pool_stride)
    rows, cols = (side // cell for side in image.inputs[_FRAMES].shape[-2:])
    geometry = crop_geometry(processor, image.height, image.width)
    grid = grid_patches(0, rows, cols, (cell, cell), geometry)
    return frame_patches(grid, image.frames, image.frames)
