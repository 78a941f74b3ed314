"""RasterAdapter: for families that turn each image into one square grid of patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from vlmlens.hf.adapter import TransformersAdapter
from vlmlens.hf.layouts import CropGeometry, PlacedImage, grid_patches, tower_layout
from vlmlens.sites import Axis, Rename, SiteTemplate
from vlmlens.tokens import AxisLayout, PatchGrid

LLAVA_SITES: Sequence[SiteTemplate] = (
    SiteTemplate(
        "vision.block.{i}",
        (
            "model.vision_tower.encoder.layers.{i}",
            "model.vision_tower.vision_model.encoder.layers.{i}",
        ),
        Axis.VISION,
    ),
    SiteTemplate("projector", ("model.multi_modal_projector",), Axis.PROJECTOR),
    SiteTemplate("llm.embed", ("model.language_model.embed_tokens",), Axis.LLM),
    SiteTemplate("llm.block.{i}", ("model.language_model.layers.{i}",), Axis.LLM),
    SiteTemplate("llm.norm", ("model.language_model.norm",), Axis.LLM),
    SiteTemplate("llm.head", ("lm_head",), Axis.LLM),
)
"""Sites of transformers' LLaVA-shaped models: a tower, a projector, a language model."""

SIGLIP_SITES: Sequence[SiteTemplate] = (
    LLAVA_SITES[0],
    SiteTemplate(
        "vision.norm",
        ("model.vision_tower.post_layernorm", "model.vision_tower.vision_model.post_layernorm"),
        Axis.VISION,
    ),
    *LLAVA_SITES[1:],
)
"""The same with a SigLIP tower, whose final norm sees every patch (CLIP's sees CLS only)."""

LLAVA_RENAMES: Sequence[Rename] = (
    Rename(r"^language_model\.lm_head", "lm_head"),
    Rename(r"^language_model\.model(?=\.|$)", "model.language_model"),
    Rename(r"^(vision_tower|multi_modal_projector)(?=\.|$)", r"model.\1"),
    Rename(r"^model\.vision_tower\.vision_model(?=\.|$)", "model.vision_tower"),
)
"""What moved in LLaVA-shaped models: below `model` in 4.52, `vision_model` away in 5."""


class RasterAdapter(TransformersAdapter):
    """Each image becomes one square grid, whose tokens the language model reads row by row."""

    templates: ClassVar[Sequence[SiteTemplate]] = LLAVA_SITES

    @property
    def patch(self) -> int:
        """Side of a patch in resized pixels."""
        return int(self.config.vision_config.patch_size)

    @property
    def side(self) -> int:
        """Patches along a side of the grid."""
        return int(self.config.vision_config.image_size) // self.patch

    @cached_property
    def tower_special(self) -> int:
        """Tokens before the patches in the vision tower: 1 where it has a CLS token."""
        parameters = (name for name, _ in self.module.named_parameters())
        return int(any(name.endswith("embeddings.class_embedding") for name in parameters))

    def geometry(self, image: PlacedImage) -> CropGeometry:
        """How the processor resizes and places an image."""
        return crop_geometry(self.processor.image_processor, image.height, image.width)

    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        """See `TransformersAdapter.patch_grid`."""
        patch, side = self.patch, self.side
        return grid_patches(image.image, side, side, (patch, patch), self.geometry(image))

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.image_layouts`."""
        counts, patches = [len(group) for group in images], self.side**2
        return {
            Axis.VISION: tower_layout(counts, patches, grids, special=self.tower_special),
            Axis.PROJECTOR: tower_layout(counts, patches, grids),
        }


def crop_geometry(image_processor: Any, height: int, width: int) -> CropGeometry:
    """The geometry of a processor that scales the shorter side or squashes, then may crop.

    Args:
        image_processor: With `size`, and `crop_size` where it crops the middle.
        height: Of the original image, in pixels.
        width: Likewise.
    """
    size = image_processor.size
    if "shortest_edge" in size:
        short = size["shortest_edge"]
        if height < width:
            new_height, new_width = short, int(short * width / height)
        else:
            new_height, new_width = int(short * height / width), short
    else:
        new_height, new_width = size["height"], size["width"]
    if not getattr(image_processor, "do_center_crop", False):
        return CropGeometry(new_width, new_height)
    crop = image_processor.crop_size
    left, top = (new_width - crop["width"]) // 2, (new_height - crop["height"]) // 2
    return CropGeometry(new_width, new_height, left=left, top=top)
