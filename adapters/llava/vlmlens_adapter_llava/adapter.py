"""LLaVA: a CLIP tower, a two-layer projector, a Llama or Mistral."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vlmlens.sites import Rename
from vlmlens.transformers import RasterAdapter


class LlavaAdapter(RasterAdapter):
    """`LlavaForConditionalGeneration`: the tower's CLS token does not reach the projector."""

    renames: ClassVar[Sequence[Rename]] = (
        Rename(r"^language_model\.lm_head", "lm_head"),
        Rename(r"^language_model\.model(?=\.|$)", "model.language_model"),
        Rename(r"^vision_tower\.vision_model(?=\.|$)", "model.vision_tower"),
        Rename(r"^(vision_tower|multi_modal_projector)(?=\.|$)", r"model.\1"),
    )
