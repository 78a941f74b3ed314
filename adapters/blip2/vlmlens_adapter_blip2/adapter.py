"""BLIP-2: a ViT, a Q-Former whose 32 queries stand before the prompt, an OPT or a Flan-T5.

With Flan-T5 the queries and the prompt stand in the encoder (`llm.encoder.*`, the encoder axis),
and the answer in the decoder (`llm.*`, the llm axis), which begins with a start token: its last
position predicts the answer, as in every other family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from transformers import AddedToken

from vlmlens.abc.adapter import Generation
from vlmlens.abc.editable import Edits
from vlmlens.errors import CheckpointError, CompositionError
from vlmlens.hf import PlacedImage, RasterAdapter, tower_layout
from vlmlens.hf.layouts import sample_layout, sequence_layout
from vlmlens.hf.token_ids import pad_rows, token_kinds
from vlmlens.passes.batch import Batch, ForwardOutput, Logits
from vlmlens.passes.modes import inference
from vlmlens.sites import Axis, SiteTemplate
from vlmlens.tokens import AxisLayout, PatchGrid
from vlmlens_adapter_blip2.manifest import MANIFEST

_OPT, _T5 = "language_model.model.decoder", "language_model.decoder"
_ENCODER = "language_model.encoder"
_NORM = "vision_model.post_layernorm"


class Blip2Adapter(RasterAdapter):
    """`Blip2ForConditionalGeneration`.

    The ViT's final norm runs twice: over all tokens (`vision.norm`), then over the pooled CLS
    token alone (`vision.pooled`).
    """

    image_placeholders: ClassVar[Sequence[str]] = MANIFEST.placeholders
    images_between: ClassVar[bool] = False
    images_per_sample: ClassVar[int | None] = 1
    shares_images: ClassVar[bool] = True
    templates: ClassVar[Sequence[SiteTemplate]] = (
        SiteTemplate("vision.block.{i}", ("vision_model.encoder.layers.{i}",), Axis.VISION),
        SiteTemplate("vision.norm", (_NORM,), Axis.VISION, call=0),
        SiteTemplate("vision.pooled", (_NORM,), Axis.SAMPLE, call=1),
        SiteTemplate("qformer.block.{i}", ("qformer.encoder.layer.{i}",), Axis.PROJECTOR),
        SiteTemplate("projector", ("language_projection",), Axis.PROJECTOR),
        SiteTemplate("llm.encoder.embed", ("language_model.shared",), Axis.ENCODER),
        SiteTemplate("llm.encoder.block.{i}", (f"{_ENCODER}.block.{{i}}",), Axis.ENCODER),
        SiteTemplate("llm.encoder.norm", (f"{_ENCODER}.final_layer_norm",), Axis.ENCODER),
        SiteTemplate("llm.embed", (f"{_OPT}.embed_tokens", f"{_T5}.embed_tokens"), Axis.LLM),
        SiteTemplate("llm.block.{i}", (f"{_OPT}.layers.{{i}}", f"{_T5}.block.{{i}}"), Axis.LLM),
        SiteTemplate("llm.norm", (f"{_OPT}.final_layer_norm", f"{_T5}.final_layer_norm"), Axis.LLM),
        SiteTemplate("llm.head", ("language_model.lm_head",), Axis.LLM),
    )

    @property
    def has_encoder(self) -> bool:
        """Whether the language model is an encoder-decoder (Flan-T5)."""
        return not self.config.use_decoder_only_language_model

    @property
    def padding_side(self) -> str:
        """Right for Flan-T5, whose relative positions would count left padding in."""
        return "right" if self.has_encoder else "left"

    @cached_property
    def processor(self) -> Any:
        """The checkpoint's processor, which reads `content` of an image token that may be a str."""
        processor = super().processor
        if isinstance(processor.image_token, str):
            processor.image_token = AddedToken(
                processor.image_token, normalized=False, special=True
            )
        return processor

    # ------------------------------------------------------------------ encode

    def process(self, prompts: Sequence[str], images: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """See `TransformersAdapter.process`: the prompt as it is, without a template."""
        encoded = self.processor(
            text=list(prompts),
            images=[image for group in images for image in group],
            padding=True,
            padding_side=self.padding_side,
            return_tensors="pt",
        )
        self._check_queries(encoded["input_ids"])
        inputs = dict(encoded)
        return self.with_answers(inputs, [()] * len(prompts)) if self.has_encoder else inputs

    def templated(self, prompt: str, images: Sequence[Any]) -> str:
        """See `TransformersAdapter.templated`: there is no template."""
        del images
        return prompt

    def with_answers(
        self, inputs: Mapping[str, Any], answers: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        """See `TransformersAdapter.with_answers`: Flan-T5's answers follow the decoder's start."""
        if not self.has_encoder:
            return super().with_answers(inputs, answers)
        start = self.config.text_config.decoder_start_token_id
        rows = [torch.tensor([start, *answer]) for answer in answers]
        ones = [torch.ones_like(row) for row in rows]
        return {
            **inputs,
            "decoder_input_ids": pad_rows(rows, self.pad_token_id, side="right"),
            "decoder_attention_mask": pad_rows(ones, 0, side="right"),
        }

    def sequence_layouts(
        self,
        inputs: Mapping[str, Any],
        grids: Sequence[PatchGrid | None],
        answer_lengths: Sequence[int],
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.sequence_layouts`: a query stands for no place in the image."""
        del grids
        if not self.has_encoder:
            return {Axis.LLM: self._layout(inputs, "", answer_lengths)}
        return {
            Axis.ENCODER: self._layout(inputs, "", ()),
            Axis.LLM: self._layout(inputs, "decoder_", answer_lengths),
        }

    def _layout(
        self, inputs: Mapping[str, Any], prefix: str, answer_lengths: Sequence[int]
    ) -> AxisLayout:
        ids, mask = inputs[f"{prefix}input_ids"], inputs[f"{prefix}attention_mask"]
        image = ids == self.image_token_id
        kinds = token_kinds(ids, mask, image, self.special_ids, answer_lengths)
        return sequence_layout(ids, mask, kinds, None)

    def image_layouts(
        self, images: Sequence[Sequence[PlacedImage]], grids: Sequence[PatchGrid | None]
    ) -> Mapping[Axis, AxisLayout]:
        """See `TransformersAdapter.image_layouts`."""
        counts = [len(group) for group in images]
        queries = tower_layout(counts, self.config.num_query_tokens, [None] * len(counts))
        tower = super().image_layouts(images, grids)[Axis.VISION]
        return {
            Axis.VISION: tower,
            Axis.PROJECTOR: queries,
            Axis.SAMPLE: sample_layout(len(counts)),
        }

    def _check_queries(self, ids: torch.Tensor) -> None:
        """Raise if the image would silently be missing from a prompt."""
        wanted = self.config.num_query_tokens
        token = self.config.image_token_id
        if token is None or bool(((ids == token).sum(1) != wanted).any()):
            raise CheckpointError(
                f"This checkpoint's processor does not put {wanted} image tokens before a prompt.",
                subject=self.model_name(self.request),
                hint="It is older than its model class, or a prompt holds the image token: take a "
                "newer revision, whose config.json has image_token_index and whose "
                "processor_config.json has num_query_tokens.",
            )

    # ------------------------------------------------------------------ forward

    def forward(self, batch: Batch, *, logits: Logits = "none") -> ForwardOutput:
        """See `ModelAdapter.forward`; the language model has no part without its head."""
        keep = {} if self.has_encoder or logits == "all" else {"logits_to_keep": 1}
        with inference():
            output = self._module(**batch.inputs, use_cache=False, **keep).logits
        if logits == "none":
            return ForwardOutput(None)
        if logits == "all":
            return ForwardOutput(output)
        if keep:
            return ForwardOutput(output[:, -1])
        last = [int(layout.rows[-1]) for layout in batch.layouts[Axis.LLM].samples]
        return ForwardOutput(output.flatten(0, 1)[last])

    def run_model(self, inputs: Mapping[str, Any], *, head: bool) -> None:
        """See `TransformersAdapter.run_model`."""
        keep = {} if self.has_encoder or head else {"logits_to_keep": 1}
        self._module(**{"pixel_values": None, **inputs}, use_cache=False, **keep)

    def generate(self, batch: Batch, *, max_new_tokens: int, edits: Edits = ()) -> list[Generation]:
        """See `ModelAdapter.generate`.

        Raises:
            CompositionError: Flan-T5 with answers of different lengths to go on from.
        """
        written = batch.inputs["decoder_input_ids" if self.has_encoder else "input_ids"]
        if self.has_encoder and not batch.inputs["decoder_attention_mask"].all():
            raise CompositionError(
                "An encoder-decoder cannot go on from answers of different lengths at once.",
                hint="Encode and generate these samples one by one.",
            )
        ids = self.generated_ids(batch.inputs, max_new_tokens)
        return self.written(ids[:, written.shape[1] :])

    # ------------------------------------------------------------------ readout

    def scale_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Older T5 checkpoints scale the head's input; Flan-T5 does not."""
        text = self.config.text_config
        scaled = getattr(text, "scale_decoder_outputs", False)
        return logits * text.hidden_size**-0.5 if scaled else logits

    def answer_ids(self, answer: str) -> list[int]:
        """See `ModelAdapter.answer_ids`: OPT writes after the prompt, Flan-T5 on a clean page."""
        return self._plain_ids(answer if self.has_encoder else f" {answer}")

    def block_widths(self) -> Mapping[str, int]:
        """See `TransformersAdapter.block_widths`."""
        width = self.config.qformer_config.hidden_size
        sites = self.sites.canonical.items()
        queries = {site.path: width for name, site in sites if name.startswith("qformer.")}
        return {**super().block_widths(), **queries}
