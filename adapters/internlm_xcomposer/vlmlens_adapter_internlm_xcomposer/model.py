"""InternLM-XComposer 2.5 as a transformers model; module paths are those of its remote code."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from vlmlens_adapter_internlm_xcomposer.config import XComposerConfig
from vlmlens_adapter_internlm_xcomposer.language import XComposerBody, XComposerPreTrainedModel
from vlmlens_adapter_internlm_xcomposer.vision import XComposerVision


class XComposerForConditionalGeneration(XComposerPreTrainedModel, GenerationMixin):
    """The CLIP tower, the projector, InternLM2 with partial LoRA, the head."""

    def __init__(self, config: XComposerConfig) -> None:
        super().__init__(config)
        vision: Any = config.vision_config
        width, wide = config.hidden_size, 4 * vision.hidden_size
        self.model = XComposerBody(config)
        self.output = nn.Linear(width, config.vocab_size, bias=False)
        self.plora_glb_GN = nn.Parameter(torch.zeros(1, 1, wide))
        self.plora_sub_GN = nn.Parameter(torch.zeros(1, 1, 1, wide))
        self.vit = XComposerVision(config)
        self.vision_proj = nn.Sequential(nn.Linear(wide, width), nn.GELU(), nn.Linear(width, width))
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """The token embeddings."""
        embeddings: nn.Module = self.model.tok_embeddings
        return embeddings

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        return self.output

    def body(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        image_grids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The pass up to the final norm; arguments: see `forward`."""
        if pixel_values is None:
            return self.model(self.model.tok_embeddings(input_ids), None, **kwargs)
        image = input_ids == self.config.image_token_id
        rows = image.flatten().nonzero().squeeze(1)
        tokens = self.vit(pixel_values, image_grids, self.plora_glb_GN, self.plora_sub_GN)
        features = self.vision_proj(tokens)[0]
        if len(features) != len(rows):
            raise ValueError(f"{len(rows)} image positions, {len(features)} image features")
        text = self.model.tok_embeddings(input_ids.masked_fill(image, 0))
        features = features.to(text.device, text.dtype)
        embeddings = text.flatten(0, 1).index_copy(0, rows, features).view_as(text)
        return self.model(embeddings, rows, **kwargs)

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        image_grids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        prompt_lengths: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """One pass.

        Args:
            input_ids: int64 `[samples, positions]`; `config.image_token_id` where an image's
                features go.
            pixel_values: `[views, 3, side, side]` of all images, see `XComposerVision`; None
                without images, and after the first step of a generation.
            image_grids: int64 `[images, 2]`, rows and columns of each image's tiles.
            attention_mask: `[samples, all positions]`, 0 at padding.
            position_ids: int64 `[samples, positions]`; None: counted without padding.
            past_key_values: Cache of earlier tokens.
            use_cache: Whether to make a cache where there is none.
            logits_to_keep: Of how many last positions logits are computed; 0: of all.
            prompt_lengths: int64 `[samples]`, tokens of each prompt where an answer follows it:
                then the answer is read as if the model had written it, token by token.
            kwargs: Of every transformers model, such as `output_hidden_states`.

        Returns:
            `CausalLMOutputWithPast`, its logits in float32.

        Raises:
            ValueError: There are more or fewer image positions than image features.
        """
        outputs = self.body(
            input_ids,
            pixel_values,
            image_grids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            prompt_lengths=prompt_lengths,
            **kwargs,
        )
        kept = outputs.last_hidden_state[:, -logits_to_keep or None :]
        return CausalLMOutputWithPast(
            logits=self.output(kept).float(),
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
