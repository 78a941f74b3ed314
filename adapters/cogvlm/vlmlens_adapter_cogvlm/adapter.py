"""CogVLM: an EVA2-CLIP-E tower, a GLU adapter, a Vicuna with a vision expert in every layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from vlmlens.abc.options import Options
from vlmlens.hf import PlacedImage, RasterAdapter, tower_layout
from vlmlens.hf.own_class import OwnClass
from vlmlens.hf.weights import StoredTensor, renamed, stored_weights
from vlmlens.sites import Axis, SiteTemplate
from vlmlens.tokens import AxisLayout, PatchGrid, TokenKind, TokenLayout
from vlmlens_adapter_cogvlm.config import SPECIAL_TOKEN_IDS, cogvlm_config
from vlmlens_adapter_cogvlm.model import CogVLMForConditionalGeneration
from vlmlens_adapter_cogvlm.positions import VISION
from vlmlens_adapter_cogvlm.prompts import CogVLMProcessor
from vlmlens_adapter_cogvlm.tokenizer import load_tokenizer

_IGNORED = (r"\.rotary_emb\.inv_freq$",)
"""Angles that upstream stores; they follow from the head's width."""


class CogVLMOptions(Options):
    """How prompts are made."""

    template: Literal["base", "vqa", "chat"] | None = Field(
        default=None,
        description="What is put around a question; else what the checkpoint's config says.",
    )
    tokenizer: str | None = Field(
        default=None,
        description="Hub id or folder of the tokenizer; else the checkpoint's own, else "
        "lmsys/vicuna-7b-v1.5.",
    )


class CogVLMAdapter(OwnClass, RasterAdapter):
    """`CogVLMForCausalLM` of the first version, without its remote code."""

    Options: ClassVar[type[Options]] = CogVLMOptions
    module_class: ClassVar[type[Any]] = CogVLMForConditionalGeneration
    images_between: ClassVar[bool] = False
    images_per_sample: ClassVar[int | None] = 1
    images_optional: ClassVar[bool] = True
    templates: ClassVar[Sequence[SiteTemplate]] = (
        SiteTemplate("vision.block.{i}", ("model.vision.transformer.layers.{i}",), Axis.VISION),
        SiteTemplate("projector", ("model.vision.linear_proj",), Axis.PROJECTOR),
        SiteTemplate("llm.embed", ("model.embed_tokens",), Axis.LLM),
        SiteTemplate("llm.block.{i}", ("model.layers.{i}",), Axis.LLM),
        SiteTemplate("llm.norm", ("model.norm",), Axis.LLM),
        SiteTemplate("llm.head", ("lm_head",), Axis.LLM),
    )

    @classmethod
    def native_config(
        cls, said: Mapping[str, Any], model: str, arguments: Mapping[str, Any]
    ) -> Any:
        """See `OwnClass.native_config`."""
        del arguments
        return cogvlm_config(said, model)

    @classmethod
    def native_weights(
        cls, model: str, config: Any, arguments: Mapping[str, Any]
    ) -> Mapping[str, StoredTensor]:
        """See `OwnClass.native_weights`."""
        del config
        return renamed(stored_weights(model, arguments), (), _IGNORED)

    @classmethod
    def special_token_ids(
        cls, model: str, config: Any, arguments: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """See `OwnClass.special_token_ids`."""
        del model, arguments
        return {name: getattr(config, name) for name in SPECIAL_TOKEN_IDS}

    def read_processor(self, model: str, arguments: Mapping[str, Any]) -> Any:
        """See `LoadedModel.read_processor`."""
        options = self.request.options
        chosen = options if isinstance(options, CogVLMOptions) else CogVLMOptions()
        tokenizer, digest = load_tokenizer(model, arguments, self.config, chosen.tokenizer)
        template = chosen.template or self.config.template_version
        return CogVLMProcessor(tokenizer, digest, self.config, template)

    def describe(self) -> dict[str, Any]:
        """See `ModelAdapter.describe`; the tokenizer may come from elsewhere."""
        made = self.processor
        return {**super().describe(), "template": made.template, "tokenizer": made.tokenizer_digest}

    @property
    def image_token_id(self) -> int:
        """No id: image positions hold the padding id; token types mark them."""
        return -1

    @property
    def pad_token_id(self) -> int:
        """See `TransformersAdapter.pad_token_id`."""
        return int(self.config.pad_token_id)

    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        """See `TransformersAdapter.patch_grid`: the patches between the image's two ends."""
        patches = super().patch_grid(image)
        around = np.array([0, *range(len(patches)), 0])
        grid = patches.take(around)
        grid.box[[0, -1]] = np.nan
        return grid

    def image_positions(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """See `TransformersAdapter.image_positions`."""
        found: torch.Tensor = inputs["token_type_ids"] == VISION
        return found

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.image_layouts`.

        `model.vision` outputs what goes into the sequence: the patches between two end rows.
        """
        counts, patches = [len(group) for group in images], self.side**2
        inner = [grid and grid.take(np.arange(1, len(grid) - 1)) for grid in grids]
        plain = tower_layout(counts, patches, inner)
        tower = tower_layout(counts, patches, inner, special=1)
        ends = AxisLayout(
            sum(counts) * (patches + 2),
            [_between_ends(layout) for layout in tower_layout(counts, patches + 2, inner).samples],
        )
        return {
            Axis.VISION: AxisLayout(tower.total, tower.samples, others=(ends,)),
            Axis.PROJECTOR: plain,
        }


def _between_ends(layout: TokenLayout) -> TokenLayout:
    """A sample's rows, the first and the last of which are special."""
    kinds = layout.kinds.copy()
    kinds[[0, -1][: len(kinds)]] = TokenKind.SPECIAL
    return TokenLayout(layout.rows, kinds, patches=layout.patches)
