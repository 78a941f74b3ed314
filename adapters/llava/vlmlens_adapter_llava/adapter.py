"""LLaVA: a CLIP tower, a two-layer projector, a Llama or Mistral."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vlmlens.hf import LLAVA_RENAMES, RasterAdapter
from vlmlens.sites import Rename
from vlmlens_adapter_llava.manifest import MANIFEST


class LlavaAdapter(RasterAdapter):
    """`LlavaForConditionalGeneration`: the tower's CLS token does not reach the projector."""

    image_placeholders: ClassVar[Sequence[str]] = MANIFEST.placeholders
    shares_prefix: ClassVar[bool] = True
    shares_images: ClassVar[bool] = True
    reads_feature_layer: ClassVar[bool] = True
    renames: ClassVar[Sequence[Rename]] = LLAVA_RENAMES
