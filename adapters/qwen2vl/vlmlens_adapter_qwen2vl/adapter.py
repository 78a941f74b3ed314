"""Qwen-VL: a vision tower over packed patches, a merger of 2 x 2 patches, a Qwen decoder.

The tower sees the patches of all images of a batch as one sequence, in which the four patches of
a merged token stand together; Qwen2.5-VL moreover puts whole windows of merged tokens together,
and undoes that only after the merger. Layouts give the rows back per sample, in raster order.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from pydantic import Field

from vlmlens.abc.options import Options
from vlmlens.hf import (
    CropGeometry,
    PlacedImage,
    TransformersAdapter,
    frame_patches,
    grid_patches,
    joined,
    packed_layout,
)
from vlmlens.sites import Axis, Rename, SiteMap, SiteTemplate, read_anatomy
from vlmlens.tokens import AxisLayout, PatchGrid
from vlmlens_adapter_qwen2vl.manifest import MANIFEST
from vlmlens_adapter_qwen2vl.order import merged_rows, patch_rows

_VIDEO_MARKS = ("<video>", "<|video_pad|>", "<|vision_start|><|video_pad|><|vision_end|>")
_VIDEO_PROCESSORS = {
    "qwen2_vl": "Qwen2VLVideoProcessor",
    "qwen2_5_vl": "Qwen2VLVideoProcessor",
    "qwen3_vl": "Qwen3VLVideoProcessor",
    "qwen3_vl_moe": "Qwen3VLVideoProcessor",
}
_BEFORE_WINDOWS = ("model.visual.patch_embed", "model.visual.rotary_pos_emb")


class QwenVLOptions(Options):
    """How large the images and the frames of videos may be."""

    min_pixels: int | None = Field(
        default=None, ge=1, description="Scale smaller images up to this area; else as checkpoint."
    )
    max_pixels: int | None = Field(
        default=None, ge=1, description="Scale larger images down to this area; else as checkpoint."
    )
    video_min_pixels: int | None = Field(
        default=None,
        ge=1,
        description="The same for each frame of a video; in Qwen3-VL, for all frames together.",
    )
    video_max_pixels: int | None = Field(
        default=None,
        ge=1,
        description="The same for each frame of a video; in Qwen3-VL, for all frames together.",
    )
    video_cap: bool = Field(
        default=False,
        description="Bound the area of frames by their number, too, as qwen-vl-utils does.",
    )


class QwenVLAdapter(TransformersAdapter):
    """`Qwen2VL`, `Qwen2_5_VL`, `Qwen3VL` and `Qwen3VLMoeForConditionalGeneration`.

    Qwen3-VL adds `vision.deepstack.{i}` to the image positions of what `llm.block.{i}` gives,
    between the blocks: the next block's input is the sum.
    """

    Options: ClassVar[type[Options]] = QwenVLOptions
    image_placeholders: ClassVar[Sequence[str]] = MANIFEST.placeholders
    video_placeholders: ClassVar[Sequence[str]] = _VIDEO_MARKS
    video_processors: ClassVar[Mapping[str, str]] = _VIDEO_PROCESSORS
    shares_prefix: ClassVar[bool] = True
    shares_images: ClassVar[bool] = True
    templates: ClassVar[Sequence[SiteTemplate]] = (
        SiteTemplate("vision.block.{i}", ("model.visual.blocks.{i}",), Axis.VISION),
        SiteTemplate(
            "vision.norm", ("model.visual.merger.ln_q", "model.visual.merger.norm"), Axis.VISION
        ),
        SiteTemplate(
            "vision.deepstack.{i}", ("model.visual.deepstack_merger_list.{i}",), Axis.PROJECTOR
        ),
        SiteTemplate("projector", ("model.visual.merger",), Axis.PROJECTOR),
        SiteTemplate("llm.embed", ("model.language_model.embed_tokens",), Axis.LLM),
        SiteTemplate("llm.block.{i}", ("model.language_model.layers.{i}",), Axis.LLM),
        SiteTemplate("llm.norm", ("model.language_model.norm",), Axis.LLM),
        SiteTemplate("llm.head", ("lm_head",), Axis.LLM),
    )
    renames: ClassVar[Sequence[Rename]] = (
        Rename(r"^visual(?=\.|$)", "model.visual"),
        Rename(
            r"^model\.(layers|norm|embed_tokens|rotary_emb)(?=\.|$)", r"model.language_model.\1"
        ),
    )

    @cached_property
    def sites(self) -> SiteMap:
        """See `ModelAdapter.sites`; without what Qwen2.5-VL computes before it sorts by window.

        The rows of those modules are in another order than those of the vision blocks.
        """
        hidden = _BEFORE_WINDOWS if self.window else ()
        paths = [name for name, _ in self.module.named_modules() if not name.startswith(hidden)]
        return SiteMap(self.templates, paths, self.renames, read_anatomy(self.module))

    @cached_property
    def processor(self) -> Any:
        """The checkpoint's processor, with the sizes that the options ask for."""
        processor, options = super().processor, self.request.options
        chosen = options if isinstance(options, QwenVLOptions) else QwenVLOptions()
        _set_size(processor.image_processor, chosen.min_pixels, chosen.max_pixels)
        videos = processor.video_processor
        if hasattr(videos, "size"):
            _set_size(videos, chosen.video_min_pixels, chosen.video_max_pixels)
            videos.cap_pixels_per_frame = chosen.video_cap
        return processor

    @property
    def merge(self) -> int:
        """Patches along each side of a merged token."""
        return int(self.config.vision_config.spatial_merge_size)

    @property
    def window(self) -> int:
        """Merged tokens along each side of a window; 0 where there are no windows."""
        vision = self.config.vision_config
        pixels = getattr(vision, "window_size", 0)
        return int(pixels) // self.merge // int(vision.patch_size)

    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        """See `TransformersAdapter.patch_grid`: the merged tokens of the whole image.

        Of a video, those of each pair of frames, which the tower reads as one.
        """
        steps, rows, cols = _patches(image)
        return _rasters(image, steps, rows // self.merge, cols // self.merge)

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.image_layouts`; the tower's grid is finer than the merger's."""
        merge, window = self.merge, self.window
        shapes = [[_patches(image) for image in group] for group in images]
        each = [[(r, c) for steps, r, c in group for _ in range(steps)] for group in shapes]
        merged = [[merged_rows(r // merge, c // merge, window) for r, c in g] for g in each]
        patches = [[patch_rows(r, c, merge, window) for r, c in g] for g in each]
        fine = [joined([_rasters(image, *_patches(image)) for image in group]) for group in images]
        return {
            Axis.VISION: packed_layout(patches, fine),
            Axis.PROJECTOR: packed_layout(merged, grids),
        }

    def tail_positions(self, places: torch.Tensor, beginning: Mapping[str, Any]) -> torch.Tensor:
        """See `TransformersAdapter.tail_positions`: those that transformers gives a text there.

        Text goes on after an image's largest side, however far a video's time has gone.
        """
        count = self._module.model.get_rope_index
        known = self.with_answers(beginning, [[self.pad_token_id]] * len(places))
        taken = inspect.signature(count).parameters
        positions, _ = count(**{name: known[name] for name in known if name in taken})
        prefix = beginning["input_ids"].shape[1]
        found: torch.Tensor = positions[..., -1:] + (places - prefix).to(positions.device)
        return found

    def block_widths(self) -> Mapping[str, int]:
        """See `TransformersAdapter.block_widths`; Qwen2-VL calls its tower's width `embed_dim`."""
        vision = self.config.vision_config
        width = int(getattr(vision, "embed_dim", vision.hidden_size))
        tower = [site for site in self.sites.canonical.values() if site.axis is Axis.VISION]
        return {**super().block_widths(), **{site.path: width for site in tower}}

    def describe(self) -> dict[str, Any]:
        """See `ModelAdapter.describe`; with the areas of images, and what is chosen for videos."""
        size = self.processor.image_processor.size
        pixels = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
        return {**super().describe(), **pixels, **self._chosen_for_videos()}

    def _chosen_for_videos(self) -> dict[str, Any]:
        """The options for videos that differ from the checkpoint's own settings."""
        options = self.request.options
        if not isinstance(options, QwenVLOptions):
            return {}
        return options.model_dump(
            include={"video_min_pixels", "video_max_pixels", "video_cap"}, exclude_defaults=True
        )


def _set_size(processor: Any, least: int | None, most: int | None) -> None:
    """Write the smallest and the largest area into an image or video processor."""
    size = processor.size
    processor.size = type(size)(
        shortest_edge=least or size["shortest_edge"], longest_edge=most or size["longest_edge"]
    )


def _patches(image: PlacedImage) -> tuple[int, int, int]:
    """Steps of time, rows and columns of an image's or video's patches before they are merged."""
    name = "video_grid_thw" if image.frames else "image_grid_thw"
    steps, rows, cols = image.inputs[name][image.index].tolist()
    return steps, rows, cols


def _rasters(image: PlacedImage, steps: int, rows: int, cols: int) -> PatchGrid:
    """A grid of `rows x cols` cells over the whole image, or over each step of a video."""
    grid = grid_patches(image.image, rows, cols, (1, 1), CropGeometry(cols, rows))
    return frame_patches(grid, image.frames, steps) if image.frames else grid
