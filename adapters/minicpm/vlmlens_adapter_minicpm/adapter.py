"""MiniCPM-V of every generation; itself 4.6 and 4.7, which transformers has.

An image becomes an overview and slices, whose patches are merged on the way and after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Self

from vlmlens.abc.adapter import LoadRequest
from vlmlens.hf import (
    SIGLIP_SITES,
    PlacedImage,
    TransformersAdapter,
    joined,
    raster_layout,
)
from vlmlens.hf.checkpoints import explained, quiet, read_config_json
from vlmlens.sites import Axis, Rename, SiteTemplate
from vlmlens.tokens import AxisLayout, PatchGrid
from vlmlens.videos import FrameRule
from vlmlens_adapter_minicpm.manifest import MANIFEST
from vlmlens_adapter_minicpm.older.config import generation_of
from vlmlens_adapter_minicpm.videos import SecondFrames
from vlmlens_adapter_minicpm.views import sliced_views


class MiniCpmAdapter(TransformersAdapter):
    """`MiniCPMV4_6ForConditionalGeneration`, `MiniCPMV4_7ForConditionalGeneration`.

    The tower merges 2 x 2 patches after one of its blocks (unless the checkpoint keeps four times
    the tokens), the connector once more: later blocks have a quarter of the rows.

    Checkpoints of older generations are read by its subclasses, which `load` and `skeleton` choose
    by the config.
    """

    image_placeholders: ClassVar[Sequence[str]] = MANIFEST.placeholders
    video_placeholders: ClassVar[Sequence[str]] = ("<video>", "<|video_pad|>")
    video_processors: ClassVar[Mapping[str, str]] = {
        "minicpmv4_6": "MiniCPMV4_6VideoProcessor",
        "minicpmv4_7": "MiniCPMV4_6VideoProcessor",
    }
    templates: ClassVar[Sequence[SiteTemplate]] = (
        *SIGLIP_SITES[:2],
        SiteTemplate("projector", ("model.merger",), Axis.PROJECTOR),
        *SIGLIP_SITES[2:],
    )
    renames: ClassVar[Sequence[Rename]] = (
        Rename(r"^llm\.lm_head$", "lm_head"),
        Rename(r"^llm\.model(?=\.|$)", "model.language_model"),
        Rename(r"^vpm(?=\.|$)", "model.vision_tower"),
    )

    @classmethod
    def load(cls, request: LoadRequest) -> Self:
        """See `ModelAdapter.load`."""
        chosen = cls._chosen(request)
        return super().load(request) if chosen is cls else chosen.load(request)

    @classmethod
    def skeleton(cls, request: LoadRequest) -> Self:
        """See `ModelAdapter.skeleton`."""
        chosen = cls._chosen(request)
        return super().skeleton(request) if chosen is cls else chosen.skeleton(request)

    @classmethod
    def _chosen(cls, request: LoadRequest) -> type[Self]:
        """The class that reads a checkpoint: this one, or a subclass for its generation.

        Raises:
            CheckpointError: No class does.
        """
        from vlmlens_adapter_minicpm.older.adapter import GENERATIONS

        model = cls.model_name(request)
        with explained(model), quiet():
            generation = generation_of(read_config_json(model, cls.arguments(request)), model)
        older = None if generation is None else GENERATIONS[generation]
        return older if older is not None and issubclass(older, cls) else cls

    @property
    def merged(self) -> int:
        """Patches along a side that become one token of the language model."""
        return 2 if self.config.downsample_mode == "4x" else 4

    @cached_property
    def takes_video(self) -> bool:
        """See `ModelAdapter.takes_video`: unless several frames are put on one canvas."""
        processor = getattr(self.processor, "video_processor", None)
        return super().takes_video and getattr(processor, "stack_frames", 1) == 1

    @property
    def frame_rule(self) -> FrameRule:
        """See `ModelAdapter.frame_rule`: one frame per second."""
        if not self.takes_video:
            return FrameRule()
        return SecondFrames.of(self.processor.video_processor)

    def patch_grid(self, image: PlacedImage) -> PatchGrid | None:
        """See `TransformersAdapter.patch_grid`: the overview, then the slices by rows."""
        return self._views(image, self.merged)

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.image_layouts`."""
        levels = [
            raster_layout([joined([self._views(i, merged) for i in group]) for group in images])
            for merged in (1, 2)
        ]
        return {
            Axis.VISION: replace(levels[0], others=levels[1:]),
            Axis.PROJECTOR: raster_layout(grids),
        }

    def _views(self, image: PlacedImage, merged: int) -> PatchGrid | None:
        """All views of an image, or of each frame of a video.

        `merged x merged` patches are one token.
        """
        if not image.frames:
            return self._views_of(image, merged, self.processor.image_processor)
        frames = (replace(image, image=number, frames=0) for number in range(image.frames))
        settings = self.processor.video_processor
        return joined([self._views_of(frame, merged, settings) for frame in frames])

    def _views_of(self, image: PlacedImage, merged: int, settings: Any) -> PatchGrid | None:
        size, resolution = (image.height, image.width), settings.scale_resolution
        cut = settings.get_sliced_grid(size, settings.max_slice_nums, resolution)
        slices = cut if settings.slice_mode else None
        arguments = {
            "scale_resolution": resolution,
            "patch_size": settings.patch_size,
            "downsample_mode": settings.downsample_mode,
        }
        whole = settings.find_best_resize(size, allow_upscale=slices is None, **arguments)
        cell = merged * settings.patch_size
        views = sliced_views(image.image, whole, (1, 1), cell, "global")
        if slices is not None:
            canvas = settings.get_refine_size(size, slices, allow_upscale=True, **arguments)
            views += sliced_views(image.image, canvas, slices, cell, "tile {}")
        return joined(views)
