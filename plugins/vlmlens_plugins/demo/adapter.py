"""The embedded model: a real LLaVA with few parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from vlmlens.hf import LLAVA_SITES, RasterAdapter
from vlmlens.sites import Axis, SiteTemplate
from vlmlens_plugins.demo.manifests import ADAPTER

CHECKPOINT = Path(__file__).with_name("checkpoint")


class DemoAdapter(RasterAdapter):
    """LLaVA: a CLIP tower whose CLS token is left out, a two-layer projector, a Llama."""

    image_placeholders: ClassVar[Sequence[str]] = ADAPTER.placeholders
    shares_prefix: ClassVar[bool] = True
    default_model: ClassVar[str | None] = str(CHECKPOINT)
    templates: ClassVar[Sequence[SiteTemplate]] = (
        SiteTemplate("vision.embed", ("model.vision_tower.pre_layrnorm",), Axis.VISION),
        *LLAVA_SITES,
    )

    def describe(self) -> dict[str, Any]:
        """See `ModelAdapter.describe`; the embedded checkpoint goes by that name."""
        name = "embedded" if self.request.model is None else self.request.model
        return {**super().describe(), "checkpoint": name}
