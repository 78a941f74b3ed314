"""Molmo as a transformers model, with its cache, generation, loading and attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPast

from vlmlens.hf.causal_model import ShowsImagesOnce, forward_with_head
from vlmlens.hf.token_ids import counted_positions
from vlmlens_adapter_molmo.v1.config import MolmoConfig
from vlmlens_adapter_molmo.v1.language import language_model
from vlmlens_adapter_molmo.v1.vision import MolmoConnector, MolmoVisionTower


class MolmoPreTrainedModel(PreTrainedModel):
    """The base of both classes."""

    config: MolmoConfig
    config_class = MolmoConfig
    base_model_prefix = "model"
    _no_split_modules = [  # noqa: RUF012
        "CLIPEncoderLayer", "Qwen2DecoderLayer", "Olmo2DecoderLayer", "OlmoeDecoderLayer",
    ]  # fmt: skip
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, MolmoVisionTower):
            init.zeros_(module.class_embedding)
            init.zeros_(module.positional_embedding)
        if isinstance(module, MolmoConnector):
            init.zeros_(module.pad_embed)


class MolmoModel(MolmoPreTrainedModel):
    """The vision tower, the connector and the language model, without its head."""

    def __init__(self, config: MolmoConfig) -> None:
        super().__init__(config)
        self.vision_tower = MolmoVisionTower(config)
        self.multi_modal_projector = MolmoConnector(config)
        self.language_model = language_model(config.text_config)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """The table of the language model, additional tokens included."""
        table: nn.Module = self.language_model.get_input_embeddings()
        return table

    def get_image_features(
        self, images: torch.Tensor, image_masks: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Tokens `[samples, crops, cells, width]`.

        Args:
            images: `[samples, crops, patches, 3 * patch * patch]`, -1 all over where a sample has
                fewer crops.
            image_masks: `[samples, crops, patches]`, see `MolmoConnector`.
        """
        features = self.vision_tower(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        real = (images != -1).flatten(2).any(-1).to(features)
        tokens: torch.Tensor = self.multi_modal_projector(
            features * real[..., None, None], image_masks
        )
        return tokens

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        images: torch.Tensor | None = None,
        image_masks: torch.Tensor | None = None,
        image_input_idx: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """One pass.

        Args:
            input_ids: int64 `[samples, positions]`; negative at padding where there is no mask.
            attention_mask: `[samples, positions]` (with a cache, of all positions so far), 0 at
                padding, on either side.
            position_ids: int64 `[samples, positions]`; None: they follow from the mask.
            past_key_values: transformers' cache.
            inputs_embeds: `[samples, positions, width]` instead of `input_ids`.
            images: See `get_image_features`.
            image_masks: Likewise.
            image_input_idx: int64 `[samples, crops, cells]`: to which position a token is added,
                counted from the first that is no padding; negative: to none.
            kwargs: `use_cache`, `output_hidden_states`, `output_attentions` (with eager attention).

        Raises:
            ValueError: Both or neither of `input_ids` and `inputs_embeds`; images without a place.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if (images is None) != (image_input_idx is None):
            raise ValueError("images and image_input_idx go together")
        if input_ids is not None:
            if attention_mask is None and bool((input_ids < 0).any()):
                attention_mask = (input_ids >= 0).long()
            inputs_embeds = self.get_input_embeddings()(input_ids.clamp(min=0))
        if images is not None and image_input_idx is not None:
            tokens = self.get_image_features(images, image_masks)
            inputs_embeds = _with_tokens(inputs_embeds, tokens, image_input_idx, attention_mask)
        if position_ids is None and attention_mask is not None:
            position_ids = counted_positions(attention_mask, inputs_embeds.shape[1])  # type: ignore[union-attr]
        output: BaseModelOutputWithPast = self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        return output


class MolmoForConditionalGeneration(MolmoPreTrainedModel, ShowsImagesOnce, GenerationMixin):
    """Molmo with its head, which cannot write the additional tokens."""

    prompt_inputs = ("images", "image_masks", "image_input_idx")

    def __init__(self, config: MolmoConfig) -> None:
        super().__init__(config)
        text: Any = config.text_config
        self.model = MolmoModel(config)
        self.lm_head = nn.Linear(text.hidden_size, config.head_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    forward = forward_with_head(MolmoModel.forward)
    """Logits `[samples, positions, tokens of the head]`."""


def _with_tokens(
    embeds: Any,
    tokens: torch.Tensor,
    image_input_idx: torch.Tensor,
    attention_mask: torch.Tensor | None,
) -> torch.Tensor:
    """The embeddings with image tokens added in their places; the input is not changed."""
    index = image_input_idx.to(embeds.device)
    sample, crop, cell = torch.nonzero(index >= 0, as_tuple=True)
    position = index[sample, crop, cell]
    if attention_mask is not None:
        position = position + attention_mask.to(embeds.device).long().argmax(1)[sample]
    whole: torch.Tensor = embeds.clone()
    added = tokens.to(whole)[sample, crop, cell]
    whole[sample, position] = whole[sample, position] + added
    return whole
