"""InternLM2 with partial LoRA: attention over one fused projection, a gated MLP, the body."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import (
    LlamaRMSNorm,
    apply_rotary_pos_emb,
    eager_attention_forward,
)
from transformers.utils.output_capturing import capture_outputs

from vlmlens.hf.token_ids import counted_positions
from vlmlens_adapter_internlm_xcomposer.config import XComposerConfig
from vlmlens_adapter_internlm_xcomposer.lora import PartialLoraLinear
from vlmlens_adapter_internlm_xcomposer.rope import lengths_when_read, rotation


class XComposerAttention(nn.Module):
    """Attention with grouped queries.

    The rows of `wqkv` stand by key-value head: the query heads that share it, its key, its value.
    """

    def __init__(self, config: XComposerConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer_idx = config, layer
        self.head_dim = config.head_dim
        self.groups = config.num_key_value_heads
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = True
        width = config.hidden_size
        fused = (config.num_attention_heads + 2 * self.groups) * self.head_dim
        self.wqkv = PartialLoraLinear(width, fused, config, bias=config.bias)
        self.wo = PartialLoraLinear(width, width, config, bias=config.bias)

    def forward(
        self,
        hidden: torch.Tensor,
        image_rows: torch.Tensor | None,
        mode: str,
        rotary: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor | None,
        cache: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """`[samples, positions, width]` -> the same, and the attention weights where known.

        Args:
            hidden: The normed residual stream.
            image_rows: See `PartialLoraLinear`; `mode` likewise.
            mode: See there.
            rotary: See `rotation`.
            mask: As the attention implementation wants it.
            cache: Keys and values of earlier tokens, or None.
            kwargs: For the attention implementation.
        """
        query, key, value = self.split(self.wqkv(hidden, image_rows, mode))
        query, key = apply_rotary_pos_emb(query, key, *rotary)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        mixed, weights = attend(
            self, query, key, value, mask, dropout=0.0, scaling=self.scaling, **kwargs
        )
        return self.wo(mixed.flatten(2), image_rows, mode), weights

    def split(self, fused: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`[samples, positions, fused]` -> queries, keys, values `[samples, heads, ...]`."""
        by_group = fused.unflatten(-1, (self.groups, self.num_key_value_groups + 2, self.head_dim))
        query = by_group[..., :-2, :].flatten(2, 3)
        parts = (query, by_group[..., -2, :], by_group[..., -1, :])
        query, key, value = (part.transpose(1, 2) for part in parts)
        return query, key, value


class XComposerFeedForward(nn.Module):
    """`w2(act(w1 x) * w3 x)`, without biases."""

    def __init__(self, config: XComposerConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.w1 = PartialLoraLinear(width, inner, config, bias=False)
        self.w3 = PartialLoraLinear(width, inner, config, bias=False)
        self.w2 = PartialLoraLinear(inner, width, config, bias=False)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(
        self, hidden: torch.Tensor, image_rows: torch.Tensor | None, mode: str
    ) -> torch.Tensor:
        """`[samples, positions, width]` -> the same; arguments: see `PartialLoraLinear`."""
        gate = self.act_fn(self.w1(hidden, image_rows, mode))
        output: torch.Tensor = self.w2(gate * self.w3(hidden, image_rows, mode), image_rows, mode)
        return output


class XComposerLayer(nn.Module):
    """Attention and feed-forward, each behind its norm, added to the residual stream."""

    def __init__(self, config: XComposerConfig, layer: int) -> None:
        super().__init__()
        self.attention = XComposerAttention(config, layer)
        self.feed_forward = XComposerFeedForward(config)
        self.attention_norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.ffn_norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self,
        hidden: torch.Tensor,
        image_rows: torch.Tensor | None,
        mode: str,
        rotary: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor | None,
        cache: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """`[samples, positions, width]` -> the same; arguments: see `XComposerAttention`."""
        normed = self.attention_norm(hidden)
        mixed, _ = self.attention(normed, image_rows, mode, rotary, mask, cache, **kwargs)
        hidden = hidden + mixed
        output: torch.Tensor = hidden + self.feed_forward(self.ffn_norm(hidden), image_rows, mode)
        return output


class XComposerPreTrainedModel(PreTrainedModel):
    """Settings for transformers, of the model and its body."""

    config: XComposerConfig
    config_class = XComposerConfig
    base_model_prefix = "model"
    _no_split_modules = ["XComposerLayer", "CLIPEncoderLayer", "CLIPVisionEmbeddings"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _can_record_outputs = {  # noqa: RUF012
        "hidden_states": XComposerLayer,
        "attentions": XComposerAttention,
    }


class XComposerBody(XComposerPreTrainedModel):
    """Token embeddings, layers, final norm."""

    def __init__(self, config: XComposerConfig) -> None:
        super().__init__(config)
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        numbers = range(config.num_hidden_layers)
        self.layers = nn.ModuleList([XComposerLayer(config, layer) for layer in numbers])
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings."""
        return self.tok_embeddings

    @capture_outputs  # type: ignore[untyped-decorator]
    def forward(
        self,
        embeddings: torch.Tensor,
        image_rows: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        prompt_lengths: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the layers.

        Args:
            embeddings: `[samples, positions, width]`, image features in their places.
            image_rows: See `PartialLoraLinear`.
            attention_mask: `[samples, all positions]`, 0 at padding, cached positions included.
            position_ids: int64 `[samples, positions]`; None: counted without padding.
            past_key_values: Cache of earlier tokens.
            use_cache: Whether to make a cache where there is none.
            prompt_lengths: See `lengths_when_read`.
            kwargs: For the attention implementation.
        """
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        seen = past_key_values.get_seq_length() if past_key_values is not None else 0
        if position_ids is None:
            position_ids = _positions(embeddings, attention_mask, seen)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        mode, hidden = self.config.infer_mode, embeddings
        lengths = lengths_when_read(position_ids, prompt_lengths)
        rotary = rotation(position_ids, lengths, self.config, hidden.dtype)
        for layer in self.layers:
            hidden = layer(hidden, image_rows, mode, rotary, mask, past_key_values, **kwargs)
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden), past_key_values=past_key_values
        )


def _positions(
    embeddings: torch.Tensor, attention_mask: torch.Tensor | None, seen: int
) -> torch.Tensor:
    """int64 `[samples, positions]`: each token's number in its own sample; padding repeats one."""
    samples, length = embeddings.shape[:2]
    if attention_mask is None or attention_mask.dim() != 2:
        return torch.arange(seen, seen + length, device=embeddings.device).expand(samples, -1)
    return counted_positions(attention_mask, length)
