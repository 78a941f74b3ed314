"""Janus: its own vision tower, an aligner, a Llama. Its image generation modules do not run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vlmlens.hf import LLAVA_SITES, CropGeometry, PlacedImage, RasterAdapter
from vlmlens.sites import Axis, SiteTemplate
from vlmlens_adapter_janus.manifest import MANIFEST

_TOWER = "model.vision_model"


class JanusAdapter(RasterAdapter):
    """`JanusForConditionalGeneration`.

    The tower's final norm runs twice in a pass: on all patches, then on the first one alone, for a
    pooled vector that nothing reads. The site is the first call.
    """

    image_placeholders: ClassVar[Sequence[str]] = MANIFEST.placeholders
    shares_prefix: ClassVar[bool] = True
    templates: ClassVar[Sequence[SiteTemplate]] = (
        SiteTemplate("vision.block.{i}", (f"{_TOWER}.encoder.layers.{{i}}",), Axis.VISION),
        SiteTemplate("vision.norm", (f"{_TOWER}.post_layernorm",), Axis.VISION, call=0),
        SiteTemplate("projector", ("model.aligner",), Axis.PROJECTOR),
        *(site for site in LLAVA_SITES if site.axis is Axis.LLM),
    )

    def geometry(self, image: PlacedImage) -> CropGeometry:
        """See `RasterAdapter.geometry`: the longer side fills the square, the rest is padded."""
        processor = self.processor.image_processor
        square = int(processor.size["height"])
        scale = square / max(image.height, image.width)
        height = max(round(image.height * scale), processor.min_size)
        width = max(round(image.width * scale), processor.min_size)
        left, top = (square - width) // 2, (square - height) // 2
        return CropGeometry(width, height, left=-left, top=-top)
