"""The older generations as one transformers model, with its cache, generation and loading.

The module tree is upstream's: `vpm` (the tower), `resampler`, `llm` (the language model).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import GenerationMixin, GraniteModel, PreTrainedModel, Qwen2Model
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from vlmlens.hf.causal_model import ShowsImagesOnce
from vlmlens_adapter_minicpm.older.config import Generation, MiniCpmSlicedConfig
from vlmlens_adapter_minicpm.older.resampler import Resampler, ResamplerAttention
from vlmlens_adapter_minicpm.older.towers import NavitTower, TimmTower, Tower

IMAGE = 1
"""In `mm_token_type_ids`: a position where a token of the resampler goes."""


class LanguageModel(nn.Module):
    """A decoder and its head; hidden states are divided before the head."""

    def __init__(self, config: MiniCpmSlicedConfig) -> None:
        super().__init__()
        text: Any = config.text_config
        kind: type[Any] = GraniteModel if text.model_type == "granite" else Qwen2Model
        self.divisor = config.head_divisor
        self.model = kind(text)
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)

    def forward(self, *, logits_to_keep: int = 0, **inputs: Any) -> CausalLMOutputWithPast:
        """Logits `[samples, positions, vocabulary]` of the last positions; 0: of all."""
        outputs = self.model(**inputs)
        kept = outputs.last_hidden_state[:, -logits_to_keep or None :]
        return CausalLMOutputWithPast(
            logits=self.lm_head(kept / self.divisor),
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class MiniCpmSlicedForConditionalGeneration(PreTrainedModel, ShowsImagesOnce, GenerationMixin):
    """MiniCPM-V 2, MiniCPM-V 2.6, and MiniCPM-o 2.6 without audio and speech."""

    prompt_inputs = ("pixel_values", "target_sizes", "mm_token_type_ids")
    config: MiniCpmSlicedConfig
    config_class = MiniCpmSlicedConfig
    _no_split_modules = [  # noqa: RUF012
        "GraniteDecoderLayer", "Qwen2DecoderLayer", "TimmBlock", "Idefics2EncoderLayer",
        "NavitEmbeddings", "TimmPatchEmbed", "Resampler",
    ]  # fmt: skip
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True

    def __init__(self, config: MiniCpmSlicedConfig) -> None:
        super().__init__(config)
        first = config.generation == Generation.V2
        vision: Any = config.vision_config
        tower: type[Tower] = TimmTower if first else NavitTower
        self.vpm = tower(vision)
        self.resampler = Resampler(config, placed=first)
        self.llm = LanguageModel(config)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, Resampler | ResamplerAttention):
            for parameter in module.parameters(recurse=False):
                init.zeros_(parameter)

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings."""
        table: nn.Module = self.llm.model.embed_tokens
        return table

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        return self.llm.lm_head

    def body(self, **inputs: Any) -> BaseModelOutputWithPast:
        """The pass up to the final norm; arguments: see `forward`."""
        output: BaseModelOutputWithPast = self.llm.model(**self._of_language(**inputs))
        return output

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        mm_token_type_ids: torch.Tensor | None = None,
        unattended: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        target_sizes: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """One pass with logits, float32 `[samples, positions, vocabulary]`.

        Args:
            input_ids: int64 `[samples, positions]`; ids at image positions are replaced.
            attention_mask: `[samples, positions]` (with a cache, of all positions so far), 0 at
                padding.
            position_ids: int64 `[samples, positions]`; None: counted from the first that is no
                padding.
            past_key_values: transformers' cache.
            mm_token_type_ids: int64 `[samples, positions]`, 1 where a token of an image goes.
            unattended: int64 `[samples, positions]`, 1 at tokens that no token attends to.
            pixel_values: `[slices, patches, 3 * side * side]`, slices in the order of the
                sequence, each filled up to the longest.
            target_sizes: int64 `[slices, 2]`: rows and columns of patches of each slice.
            use_cache: Whether to return a cache.
            logits_to_keep: Of how many of the last positions; 0: of all.
            kwargs: `output_hidden_states` and `output_attentions` (with eager attention).

        Raises:
            ValueError: There are more or fewer image positions than tokens of images.
        """
        kwargs.pop("return_dict", None)
        inputs = self._of_language(
            input_ids, attention_mask, position_ids, mm_token_type_ids, unattended, pixel_values,
            target_sizes, past_key_values=past_key_values, use_cache=use_cache, **kwargs,
        )  # fmt: skip
        output: CausalLMOutputWithPast = self.llm(logits_to_keep=logits_to_keep, **inputs)
        output["logits"] = output["logits"].float()
        return output

    def _of_language(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        unattended: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        target_sizes: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The arguments of the language model."""
        embeds = self.get_input_embeddings()(input_ids) * self.config.scale_emb
        if pixel_values is not None and target_sizes is not None:
            embeds = self._with_images(embeds, mm_token_type_ids, pixel_values, target_sizes)
        if position_ids is None and attention_mask is not None:
            position_ids = counted(attention_mask)[:, -input_ids.shape[1] :]
        return {
            "inputs_embeds": embeds,
            "attention_mask": seen(attention_mask, unattended),
            "position_ids": position_ids,
            **kwargs,
        }

    def _with_images(
        self,
        embeds: torch.Tensor,
        mm_token_type_ids: torch.Tensor | None,
        pixel_values: torch.Tensor,
        target_sizes: torch.Tensor,
    ) -> torch.Tensor:
        """The embeddings with image tokens in their places; the input is not changed."""
        sizes = [(rows, columns) for rows, columns in target_sizes.tolist()]
        tokens = self.resampler(self.vpm(pixel_values, sizes), sizes).flatten(0, 1)
        found = 0 if mm_token_type_ids is None else int((mm_token_type_ids == IMAGE).sum())
        if mm_token_type_ids is None or found != len(tokens):
            raise ValueError(f"{found} image positions, {len(tokens)} tokens of images")
        image = (mm_token_type_ids == IMAGE).to(embeds.device)
        return embeds.masked_scatter(image[..., None], tokens.to(embeds))

    def generate(  # type: ignore[override]
        self,
        input_ids: torch.Tensor,
        *,
        attention_mask: torch.Tensor | None = None,
        unattended: torch.Tensor | None = None,
        **settings: Any,
    ) -> Any:
        """As in transformers, which would not count positions that are not attended to.

        Args:
            input_ids: int64 `[samples, positions]`.
            attention_mask: `[samples, positions]`, 0 at padding; None: there is none.
            unattended: See `forward`.
            settings: As in transformers, and the arguments of `forward`.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        settings.setdefault("position_ids", counted(mask))
        return super().generate(  # type: ignore[misc]
            input_ids, attention_mask=seen(mask, unattended), **settings
        )


def counted(attention_mask: torch.Tensor) -> torch.Tensor:
    """int64 `[samples, positions]`: positions, counted from the first without padding.

    >>> counted(torch.tensor([[0, 0, 1, 0, 1]])).tolist()
    [[0, 0, 0, 1, 2]]
    """
    begun = attention_mask.long().cummax(-1).values
    return (begun.cumsum(-1) - 1).clamp(min=0)


def seen(
    attention_mask: torch.Tensor | None, unattended: torch.Tensor | None
) -> torch.Tensor | None:
    """The attention mask without tokens that no token attends to."""
    if unattended is None:
        return attention_mask
    kept = 1 - unattended
    return kept if attention_mask is None else attention_mask * kept
