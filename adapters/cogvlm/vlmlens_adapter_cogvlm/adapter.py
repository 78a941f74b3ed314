"""CogVLM: an EVA2-CLIP-E tower, a GLU adapter, a Vicuna with a vision expert in every layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from transformers import GenerationConfig

from vlmlens.abc.adapter import LoadRequest
from vlmlens.abc.options import Options
from vlmlens.errors import DataError
from vlmlens.hf import PlacedImage, RasterAdapter, tower_layout
from vlmlens.hf.checkpoints import explained
from vlmlens.hf.layouts import sequence_layout
from vlmlens.hf.load_options import hub_arguments
from vlmlens.hf.token_ids import token_kinds
from vlmlens.hf.weights import place_weights, read_config_json, renamed, stored_weights
from vlmlens.samples import Sample
from vlmlens.sites import Axis, SiteTemplate
from vlmlens.tokens import AxisLayout, PatchGrid, TokenKind, TokenLayout
from vlmlens_adapter_cogvlm.config import cogvlm_config
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


class CogVLMAdapter(RasterAdapter):
    """`CogVLMForCausalLM` of the first version, without its remote code."""

    Options: ClassVar[type[Options]] = CogVLMOptions
    templates: ClassVar[Sequence[SiteTemplate]] = (
        SiteTemplate("vision.block.{i}", ("model.vision.transformer.layers.{i}",), Axis.VISION),
        SiteTemplate("projector", ("model.vision.linear_proj",), Axis.PROJECTOR),
        SiteTemplate("llm.embed", ("model.embed_tokens",), Axis.LLM),
        SiteTemplate("llm.block.{i}", ("model.layers.{i}",), Axis.LLM),
        SiteTemplate("llm.norm", ("model.norm",), Axis.LLM),
        SiteTemplate("llm.head", ("lm_head",), Axis.LLM),
    )

    @classmethod
    def read_config(cls, model: str, arguments: Mapping[str, Any]) -> Any:
        """See `TransformersAdapter.read_config`."""
        return cogvlm_config(read_config_json(model, arguments), model)

    @classmethod
    def read_module(cls, model: str, config: Any, arguments: Mapping[str, Any]) -> Any:
        """See `TransformersAdapter.read_module`."""
        weights = renamed(stored_weights(model, arguments), (), _IGNORED)
        module = place_weights(CogVLMForConditionalGeneration, config, weights, model, arguments)
        module.generation_config = GenerationConfig(
            bos_token_id=config.bos_token_id,
            eos_token_id=config.eos_token_id,
            pad_token_id=config.pad_token_id,
        )
        return module

    @classmethod
    def empty_module(cls, config: Any, request: LoadRequest) -> Any:
        """See `TransformersAdapter.empty_module`."""
        del request
        return CogVLMForConditionalGeneration(config)

    @cached_property
    def processor(self) -> Any:
        """See `TransformersAdapter.processor`."""
        model, options = self.model_name(self.request), self.request.options
        chosen = options if isinstance(options, CogVLMOptions) else CogVLMOptions()
        with explained(model):
            tokenizer, digest = load_tokenizer(
                model, hub_arguments(self.request), self.config, chosen.tokenizer
            )
        template = chosen.template or self.config.template_version
        return CogVLMProcessor(tokenizer, digest, self.config, template)

    def describe(self) -> dict[str, Any]:
        """See `ModelAdapter.describe`; the tokenizer may come from elsewhere."""
        made = self.processor
        return {**super().describe(), "template": made.template, "tokenizer": made.tokenizer_digest}

    @property
    def image_token_id(self) -> int:
        """No id: an image's positions hold the padding id, and are told by their types."""
        return -1

    @property
    def pad_token_id(self) -> int:
        """See `TransformersAdapter.pad_token_id`."""
        return int(self.config.pad_token_id)

    def open_images(self, samples: Sequence[Sample]) -> list[list[Any]]:
        """See `TransformersAdapter.open_images`: one image or none.

        Raises:
            DataError: A sample has more.
        """
        for sample in samples:
            if len(sample.images) > 1:
                raise DataError(
                    f"The sample {sample.id!r} has {len(sample.images)} images; CogVLM takes one "
                    "or none.",
                    subject=sample.id,
                    hint="Leave such samples out, or choose another adapter.",
                )
        return super().open_images(samples)

    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        """See `TransformersAdapter.patch_grid`: the patches between the image's two ends."""
        patches = super().patch_grid(image)
        around = np.array([0, *range(len(patches)), 0])
        grid = patches.take(around)
        grid.box[[0, -1]] = np.nan
        return grid

    def sequence_layouts(
        self,
        inputs: Mapping[str, Any],
        grids: Sequence[PatchGrid | None],
        answer_lengths: Sequence[int],
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.sequence_layouts`."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        marked = ids.masked_fill(inputs["token_type_ids"] == VISION, self.image_token_id)
        kinds = token_kinds(marked, mask, self.image_token_id, self.special_ids, answer_lengths)
        return {Axis.LLM: sequence_layout(ids, mask, kinds, grids)}

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.image_layouts`.

        `model.vision` itself gives what goes into the sequence: the patches between two ends.
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
