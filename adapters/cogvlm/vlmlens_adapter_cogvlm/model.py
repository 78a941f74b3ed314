"""CogVLM as a transformers model, with its cache, generation, loading and attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm
from transformers.utils.output_capturing import capture_outputs

from vlmlens.hf.causal_model import forward_with_head
from vlmlens_adapter_cogvlm.config import CogVLMConfig
from vlmlens_adapter_cogvlm.language import CogVLMAttention, CogVLMDecoderLayer
from vlmlens_adapter_cogvlm.positions import VISION, rotary_positions, takes_vision_expert
from vlmlens_adapter_cogvlm.vision import CogVLMPatchEmbedding, CogVLMVision


class CogVLMPreTrainedModel(PreTrainedModel):
    """The base of both classes."""

    config: CogVLMConfig
    config_class = CogVLMConfig
    base_model_prefix = "model"
    _no_split_modules = ["CogVLMDecoderLayer", "CogVLMVisionBlock", "CogVLMPatchEmbedding"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _can_record_outputs = {  # noqa: RUF012
        "hidden_states": CogVLMDecoderLayer,
        "attentions": CogVLMAttention,
    }

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, CogVLMPatchEmbedding):
            init.zeros_(module.cls_embedding)
        if isinstance(module, CogVLMVision):
            init.zeros_(module.boi)
            init.zeros_(module.eoi)


class CogVLMModel(CogVLMPreTrainedModel):
    """The vision tower and the language model, without its head."""

    def __init__(self, config: CogVLMConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            CogVLMDecoderLayer(config, i) for i in range(config.num_hidden_layers)
        )
        self.norm = Olmo2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.vision = CogVLMVision(config)
        self.rotary_emb = LlamaRotaryEmbedding(config)
        self.post_init()  # type: ignore[no-untyped-call]

    @capture_outputs  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """One pass.

        Args:
            input_ids: int64 `[samples, positions]`; ids at image positions are replaced.
            attention_mask: `[samples, positions]` (with a cache, of all positions so far), 0 at
                padding.
            position_ids: int64 `[samples, positions]`; None: they follow from the types.
            past_key_values: transformers' cache.
            inputs_embeds: `[samples, positions, width]` instead of `input_ids`.
            token_type_ids: int64 `[samples, positions]`, 1 for the rows of an image; None: text.
            pixel_values: `[images, 3, side, side]`, in the order of the samples.
            use_cache: Whether to return a cache.
            kwargs: `output_hidden_states` and `output_attentions` (with eager attention).

        Raises:
            ValueError: The arguments do not fit together.
        """
        del kwargs
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        hidden = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        types = _types(hidden, token_type_ids)
        if pixel_values is not None or (inputs_embeds is None and bool((types == VISION).any())):
            hidden = self._with_images(hidden, types == VISION, pixel_values)
        if past_key_values is None and (self.config.use_cache if use_cache is None else use_cache):
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            position_ids = _positions(types, attention_mask, past_key_values)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=hidden,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
        )
        rotation = self.rotary_emb(hidden, position_ids)
        image = takes_vision_expert(types)
        for layer in self.layers:
            hidden = layer(hidden, image, rotation, mask, past_key_values)
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden), past_key_values=past_key_values
        )

    def _with_images(
        self, hidden: torch.Tensor, image: torch.Tensor, pixel_values: torch.Tensor | None
    ) -> torch.Tensor:
        """The embeddings with image rows in their places; the input is not changed."""
        if pixel_values is None:
            raise ValueError("token_type_ids has image positions, and there are no pixel_values")
        rows = self.vision(pixel_values).flatten(0, 1)
        if len(rows) != int(image.sum()):
            raise ValueError(
                f"token_type_ids has {int(image.sum())} image positions, the images {len(rows)}"
            )
        return hidden.masked_scatter(image[..., None], rows.to(hidden))


class CogVLMForConditionalGeneration(CogVLMPreTrainedModel, GenerationMixin):
    """CogVLM with its head; upstream calls it `CogVLMForCausalLM`."""

    def __init__(self, config: CogVLMConfig) -> None:
        super().__init__(config)
        self.model = CogVLMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    forward = forward_with_head(CogVLMModel.forward, float32=True)

    def generate(  # type: ignore[override]
        self,
        input_ids: torch.Tensor,
        *,
        token_type_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **settings: Any,
    ) -> Any:
        """As in transformers, whose default positions and mask would ignore images.

        Args:
            input_ids: int64 `[samples, positions]`.
            token_type_ids: int64 `[samples, positions]`, 1 for the rows of an image.
            attention_mask: `[samples, positions]`, 0 at padding; None: there is none.
            settings: As in transformers.
        """
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        settings.setdefault("position_ids", rotary_positions(types, mask))
        return super().generate(  # type: ignore[misc]
            input_ids, token_type_ids=types, attention_mask=mask, **settings
        )

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **settings: Any
    ) -> dict[str, Any]:
        """Every new token is text; transformers would repeat the last type."""
        before = model_kwargs["token_type_ids"]
        updated = super()._update_model_kwargs_for_generation(
            outputs, model_kwargs, *args, **settings
        )
        grown = updated["token_type_ids"].shape[1] - before.shape[1]
        updated["token_type_ids"] = pad(before, (0, grown))
        return dict(updated)


def _types(hidden: torch.Tensor, token_type_ids: torch.Tensor | None) -> torch.Tensor:
    if token_type_ids is None:
        return torch.zeros(hidden.shape[:2], dtype=torch.long, device=hidden.device)
    return token_type_ids.to(hidden.device)


def _positions(
    types: torch.Tensor, attention_mask: torch.Tensor | None, past_key_values: Any
) -> torch.Tensor:
    if past_key_values is not None and past_key_values.get_seq_length():
        raise ValueError("with a filled cache, position_ids must be given")
    return rotary_positions(types, attention_mask)
