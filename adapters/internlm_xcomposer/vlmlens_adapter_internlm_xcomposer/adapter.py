"""InternLM-XComposer 2.5: a CLIP tower over tiles, a projector, InternLM2 with partial LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from vlmlens.abc.adapter import LoadRequest
from vlmlens.abc.options import Options
from vlmlens.hf import PlacedImage, TransformersAdapter, joined, tower_layout
from vlmlens.hf.own_class import OwnClass
from vlmlens.hf.weights import StoredTensor
from vlmlens.sites import Axis, Rename, SiteTemplate
from vlmlens.tokens import AxisLayout, PatchGrid
from vlmlens_adapter_internlm_xcomposer.chat import END, PLACE, ChatProcessor, load_tokenizer
from vlmlens_adapter_internlm_xcomposer.config import xcomposer_config
from vlmlens_adapter_internlm_xcomposer.manifest import MANIFEST
from vlmlens_adapter_internlm_xcomposer.model import XComposerForConditionalGeneration
from vlmlens_adapter_internlm_xcomposer.regions import image_rows, sequence_grid, tower_grid
from vlmlens_adapter_internlm_xcomposer.tiling import Canvas, laid_out
from vlmlens_adapter_internlm_xcomposer.weights import native_weights

_TOWER = "vit.vision_tower.vision_model"


class XComposerOptions(Options):
    """Which branches of the weights are used."""

    infer_mode: Literal["base", "web", "write"] = Field(
        default="base",
        description="Low-rank branches on all tokens: none, for web pages, or for articles.",
    )


class XComposerAdapter(OwnClass, TransformersAdapter):
    """`InternLMXComposer2ForCausalLM` of version 2.5; module paths are those of its own code."""

    Options: ClassVar[type[Options]] = XComposerOptions
    image_placeholders: ClassVar[Sequence[str]] = MANIFEST.placeholders
    module_class: ClassVar[type[Any]] = XComposerForConditionalGeneration
    templates: ClassVar[Sequence[SiteTemplate]] = (
        SiteTemplate("vision.block.{i}", (f"{_TOWER}.encoder.layers.{{i}}",), Axis.VISION),
        SiteTemplate("projector", ("vision_proj",), Axis.PROJECTOR),
        SiteTemplate("llm.embed", ("model.tok_embeddings",), Axis.LLM),
        SiteTemplate("llm.block.{i}", ("model.layers.{i}",), Axis.LLM),
        SiteTemplate("llm.norm", ("model.norm",), Axis.LLM),
        SiteTemplate("llm.head", ("output",), Axis.LLM),
    )
    renames: ClassVar[Sequence[Rename]] = (
        Rename(r"^(llm\.block\.[^.]+)\.mlp(?=\.|$)", r"\1.feed_forward"),
    )

    def __init__(self, module: Any, request: LoadRequest) -> None:
        super().__init__(module, request)
        options = request.options
        if isinstance(options, XComposerOptions):
            module.config.infer_mode = options.infer_mode

    @classmethod
    def native_config(
        cls, said: Mapping[str, Any], model: str, arguments: Mapping[str, Any]
    ) -> Any:
        """See `OwnClass.native_config`."""
        del arguments
        return xcomposer_config(said, model)

    @classmethod
    def native_weights(
        cls, model: str, config: Any, arguments: Mapping[str, Any]
    ) -> Mapping[str, StoredTensor]:
        """See `OwnClass.native_weights`."""
        return native_weights(model, config, arguments)

    @classmethod
    def special_token_ids(
        cls, model: str, config: Any, arguments: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """See `OwnClass.special_token_ids`; a text also ends where the model ends its turn."""
        del config
        tokenizer = load_tokenizer(model, arguments)
        return {
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(END)],
            "pad_token_id": tokenizer.pad_token_id,
        }

    def read_processor(self, model: str, arguments: Mapping[str, Any]) -> Any:
        """See `LoadedModel.read_processor`."""
        return ChatProcessor(load_tokenizer(model, arguments), self.config)

    @property
    def context(self) -> int:
        """See `ModelAdapter.context`: rotary scaling reaches beyond what it was trained on."""
        return int(self.config.longest)

    def with_answers(
        self, inputs: Mapping[str, Any], answers: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        """See `TransformersAdapter.with_answers`; rotary scaling does not know what will follow."""
        lengths = inputs["attention_mask"].sum(1)
        return {**super().with_answers(inputs, answers), "prompt_lengths": lengths}

    def run_model(self, inputs: Mapping[str, Any], *, head: bool) -> None:
        """See `TransformersAdapter.run_model`."""
        (self._module if head else self._module.body)(**inputs, use_cache=False)

    def decode(self, token_ids: Sequence[int]) -> str:
        """See `ModelAdapter.decode`; image positions, which have no token, read `<ImageHere>`."""
        pieces = self.tokenizer.convert_ids_to_tokens(
            [number for number in token_ids if number != self.image_token_id]
        )
        known = iter(pieces)
        shown = [PLACE if n == self.image_token_id else next(known) for n in token_ids]
        text: str = self.tokenizer.convert_tokens_to_string(shown)
        return text

    def describe(self) -> dict[str, Any]:
        """See `ModelAdapter.describe`."""
        return {**super().describe(), "infer_mode": self.config.infer_mode}

    # ------------------------------------------------------------------ layouts

    def patch_grid(self, image: PlacedImage) -> PatchGrid:
        """See `TransformersAdapter.patch_grid`: the whole, then the tiles as one raster."""
        return sequence_grid(image.image, self._canvas(image), self.config.merged_side)

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.image_layouts`: the tower sees views, each with a CLS token.

        `vit` lies on the axis of its tower, and gives merged tokens.
        """
        side = 2 * self.config.merged_side
        fine = [
            joined([tower_grid(image.image, self._canvas(image), side) for image in group])
            for group in images
        ]
        views = [0 if grid is None else len(grid) // side**2 for grid in fine]
        tokens = image_rows(grids)
        tower = tower_layout(views, side**2, fine, special=1)
        return {Axis.VISION: replace(tower, others=(tokens,)), Axis.PROJECTOR: tokens}

    def sequence_layouts(
        self,
        inputs: Mapping[str, Any],
        grids: Sequence[PatchGrid | None],
        answer_lengths: Sequence[int],
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.sequence_layouts`; image branches see image tokens alone."""
        layouts = super().sequence_layouts(inputs, grids, answer_lengths)
        return {
            axis: replace(layout, others=(image_rows(grids),)) for axis, layout in layouts.items()
        }

    def _canvas(self, image: PlacedImage) -> Canvas:
        rows, columns = image.inputs["image_grids"][image.index].tolist()
        number = rows if image.width < image.height else columns
        return laid_out(image.width, image.height, self.processor.image_processor.tile, number)
