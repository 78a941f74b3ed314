"""GLaMM as a transformers model, with its cache, generation, loading and attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import GenerationMixin, LlamaModel, PreTrainedModel, SamModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from vlmlens.hf.causal_model import ShowsImagesOnce, forward_with_head
from vlmlens.hf.token_ids import counted_positions
from vlmlens_adapter_glamm.config import GlammConfig
from vlmlens_adapter_glamm.masks import mask_logits, watched
from vlmlens_adapter_glamm.regions import RegionEncoder
from vlmlens_adapter_glamm.vision import GlobalEncoder


class GlammPreTrainedModel(PreTrainedModel):
    """The base of both classes."""

    config: GlammConfig
    config_class = GlammConfig
    base_model_prefix = "model"
    _no_split_modules = ["LlamaDecoderLayer", "CLIPEncoderLayer", "SamVisionLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True


class GlammModel(GlammPreTrainedModel):
    """All of GLaMM but the language model's head.

    A pass runs the global image encoder, the region encoder where there are boxes, and the language
    model. The grounding path (`text_hidden_fcs`, `grounding_encoder`) does not change what the
    language model outputs; it runs only if one of its modules has a hook.
    """

    def __init__(self, config: GlammConfig) -> None:
        super().__init__(config)
        wide, seen = config.text_config.hidden_size, config.vision_config.hidden_size
        self.vision_tower = GlobalEncoder(config)
        self.mm_projector = nn.Sequential(nn.Linear(seen, wide), nn.GELU(), nn.Linear(wide, wide))
        self.language_model = LlamaModel(config.text_config)
        self.text_hidden_fcs = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Linear(wide, wide),
                    nn.ReLU(),
                    nn.Linear(wide, config.out_dim),
                    nn.Dropout(0.0),
                )
            ]
        )
        self.grounding_encoder = SamModel(config.grounding_config)
        self.region_encoder = RegionEncoder(config) if config.with_region else None
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """The language model's."""
        return self.language_model.embed_tokens

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        boxes: torch.Tensor | None = None,
        box_counts: torch.Tensor | None = None,
        grounding_pixel_values: torch.Tensor | None = None,
        original_sizes: torch.Tensor | None = None,
        resized_sizes: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """One pass.

        Args:
            input_ids: int64 `[samples, positions]`, with `image_token_id` where the image's
                features go.
            attention_mask: `[samples, positions]` (with a cache, of all positions so far), 0 at
                padding.
            position_ids: int64 `[samples, positions]`; None: counted without padding.
            past_key_values: A cache.
            inputs_embeds: `[samples, positions, width]` instead of `input_ids` and all images.
            pixel_values: `[images, 3, size, size]` for the global image encoder.
            boxes: float32 `[boxes, 4]` of all samples: left, top, right, bottom in fractions of
                the image; they replace a sample's first tokens `bbox_token_id`, in order.
            box_counts: int64 `[samples]`: how many of them each sample has.
            grounding_pixel_values: `[images, 3, side, side]` for the grounding encoder.
            original_sizes: Not used here; see `GlammForConditionalGeneration.mask_logits`.
            resized_sizes: Likewise.
            kwargs: For the language model.
        """
        del original_sizes, resized_sizes
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("neither input_ids nor inputs_embeds are given")
            inputs_embeds = self.embedded(input_ids, pixel_values, boxes, box_counts)
        output = self.language(
            inputs_embeds, attention_mask, position_ids, past_key_values=past_key_values, **kwargs
        )
        if input_ids is not None and output.last_hidden_state is not None:
            self._run_watched(output.last_hidden_state, input_ids, grounding_pixel_values)
        return output

    # ------------------------------------------------------------------ language

    def embedded(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        boxes: torch.Tensor | None = None,
        box_counts: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The input of the language model, `[samples, positions, width]`; arguments: see `forward`.

        Raises:
            ValueError: There is another number of image positions than features, or of boxes.
        """
        slots = input_ids == self.config.image_token_id
        embeddings: torch.Tensor = self.language_model.embed_tokens(input_ids.masked_fill(slots, 0))
        if pixel_values is None:
            return embeddings
        patches, levels = self.vision_tower(pixel_values)
        features = self.mm_projector(patches)
        embeddings = _placed(embeddings, slots, features.flatten(0, 1), "image positions")
        if boxes is None or box_counts is None:
            return embeddings
        if self.region_encoder is None:
            raise ValueError("this checkpoint has no region encoder")
        images = image_numbers(input_ids, self.config.image_token_id)
        regions = self.region_encoder(levels, boxes, images.repeat_interleave(box_counts))
        where = input_ids == self.config.bbox_token_id
        where &= where.cumsum(1) <= box_counts[:, None]
        return _placed(embeddings, where, regions, "tokens for boxes")

    def language(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """The language model's output; positions are counted without padding.

        Args:
            inputs_embeds: `[samples, positions, width]`.
            attention_mask: As for `forward`.
            position_ids: Likewise.
            kwargs: For the language model.
        """
        if position_ids is None and attention_mask is not None and attention_mask.dim() == 2:
            position_ids = counted_positions(attention_mask, inputs_embeds.shape[1])
        output: BaseModelOutputWithPast = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **kwargs,
        )
        return output

    # ------------------------------------------------------------------ grounding

    def prompts(self, hidden: torch.Tensor, input_ids: torch.Tensor) -> list[torch.Tensor]:
        """Per sample, the mask decoder's prompt for each object, `[objects, out_dim]`.

        It is the projected state at the position before the `[SEG]` token: the position that
        predicts it.

        Args:
            hidden: `[samples, positions, width]`, after the final norm.
            input_ids: int64 `[samples, positions]`.
        """
        projected = self.text_hidden_fcs[0](hidden)
        asked = input_ids == self.config.seg_token_id
        return [row[at.nonzero()[:, 0] - 1] for row, at in zip(projected, asked, strict=True)]

    def images(self, pixels: torch.Tensor) -> torch.Tensor:
        """The grounding encoder's embeddings, `[images, channels, rows, columns]`."""
        encoder = self.grounding_encoder.vision_encoder
        embeddings: torch.Tensor = encoder(pixels.to(encoder.dtype)).last_hidden_state
        return embeddings

    def decoded(self, image: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
        """Mask logits at the decoder's size, `[objects, 1, rows, columns]`.

        Args:
            image: `[1, channels, rows, columns]`, of `images`.
            prompts: `[objects, out_dim]`, at least one.
        """
        grounding = self.grounding_encoder
        _, dense = grounding.prompt_encoder(None, None, None, None)
        masks, _ = grounding.mask_decoder(
            image_embeddings=image,
            image_positional_embeddings=grounding.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=prompts[None, :, None].to(image),
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        logits: torch.Tensor = masks[0]
        return logits

    def _run_watched(
        self, hidden: torch.Tensor, input_ids: torch.Tensor, pixels: torch.Tensor | None
    ) -> None:
        """Run those parts of the grounding path that have hooks, and what they need."""
        grounding = self.grounding_encoder
        decoding = watched(
            grounding.prompt_encoder, grounding.mask_decoder, grounding.shared_image_embedding
        )
        asked: list[torch.Tensor] = []
        if decoding or watched(self.text_hidden_fcs):
            asked = self.prompts(hidden, input_ids)
        if pixels is None or not (decoding or watched(grounding.vision_encoder)):
            return
        embeddings = self.images(pixels)
        if not decoding:
            return
        for number, prompts in zip(
            image_numbers(input_ids, self.config.image_token_id).tolist(), asked, strict=True
        ):
            if number >= 0 and len(prompts):
                self.decoded(embeddings[number : number + 1], prompts)


class GlammForConditionalGeneration(GlammPreTrainedModel, ShowsImagesOnce, GenerationMixin):
    """GLaMM with the language model's head, and masks."""

    prompt_inputs = (
        "pixel_values", "boxes", "box_counts", "grounding_pixel_values", "original_sizes",
        "resized_sizes",
    )  # fmt: skip

    def __init__(self, config: GlammConfig) -> None:
        super().__init__(config)
        text = config.text_config
        self.model = GlammModel(config)
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """The language model's."""
        embeddings: nn.Module = self.model.get_input_embeddings()
        return embeddings

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        head: nn.Module = self.lm_head
        return head

    forward = forward_with_head(GlammModel.forward)

    def mask_logits(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        *,
        grounding_pixel_values: torch.Tensor | None = None,
        original_sizes: torch.Tensor | None = None,
        resized_sizes: torch.Tensor | None = None,
        **inputs: Any,
    ) -> list[torch.Tensor | None]:
        """A mask for every `[SEG]` token.

        Args:
            input_ids: int64 `[samples, positions]`.
            attention_mask: `[samples, positions]`, 0 at padding.
            grounding_pixel_values: `[images, 3, side, side]` for the grounding encoder.
            original_sizes: int64 `[images, 2]`: height and width of each image.
            resized_sizes: int64 `[images, 2]`: those of the image in the grounding encoder's input.
            inputs: `pixel_values`, `boxes` and `box_counts`, as for `GlammModel.forward`.

        Returns:
            Per sample, float32 `[objects, height, width]`, above 0 where the object is; None where
            the sample has no image.
        """
        if grounding_pixel_values is None or original_sizes is None or resized_sizes is None:
            return [None] * len(input_ids)
        asked = [torch.zeros(0, device=input_ids.device)] * len(input_ids)
        if bool((input_ids == self.config.seg_token_id).any()):
            embeddings = self.model.embedded(input_ids, **inputs)
            output = self.model.language(embeddings, attention_mask, use_cache=False)
            asked = self.model.prompts(output.last_hidden_state, input_ids)
        numbers = image_numbers(input_ids, self.config.image_token_id).tolist()
        resized, original = resized_sizes.tolist(), original_sizes.tolist()
        side = int(self.config.grounding_config.vision_config.image_size)
        masks: list[torch.Tensor | None] = []
        for number, prompts in zip(numbers, asked, strict=True):
            if number < 0:
                masks.append(None)
            elif not len(prompts):
                masks.append(torch.zeros(0, *original[number], device=input_ids.device))
            else:
                image = self.model.images(grounding_pixel_values[number : number + 1])
                decoded = self.model.decoded(image, prompts)
                masks.append(mask_logits(decoded, side, resized[number], original[number]))
        return masks


def image_numbers(input_ids: torch.Tensor, image_token_id: int) -> torch.Tensor:
    """int64 `[samples]`: the number in the batch of each sample's image, -1 where it has none."""
    shown = (input_ids == image_token_id).any(1)
    return torch.where(shown, shown.long().cumsum(0) - 1, -1)


def _placed(
    embeddings: torch.Tensor, where: torch.Tensor, vectors: torch.Tensor, what: str
) -> torch.Tensor:
    """The embeddings with vectors at some positions, in order."""
    found = int(where.sum())
    if found != len(vectors):
        raise ValueError(f"there are {found} {what} and {len(vectors)} vectors for them")
    return embeddings.masked_scatter(where[..., None], vectors.to(embeddings))
