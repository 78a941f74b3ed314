"""A linear layer with low-rank branches, one of which acts on image tokens only (partial LoRA)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from vlmlens_adapter_internlm_xcomposer.config import XComposerConfig

BRANCHES = {"base": (), "web": ("web",), "write": ("sft", "dpo")}
"""Which branches act on all tokens, by `infer_mode`. Their sums are not scaled."""


class PartialLoraLinear(nn.Module):
    """`W x + b`, plus the branches of the mode on all tokens, plus `Plora` on image tokens.

    Args:
        inputs: Width of its input.
        outputs: Width of its output.
        config: The model's.
        bias: Whether `W` has a bias.
    """

    def __init__(self, inputs: int, outputs: int, config: XComposerConfig, *, bias: bool) -> None:
        super().__init__()
        self.scaling = config.lora_alpha / config.lora_r
        self.base = nn.Linear(inputs, outputs, bias=bias)
        self.Plora_A = nn.Linear(inputs, config.lora_r, bias=False)
        self.Plora_B = nn.Linear(config.lora_r, outputs, bias=False)
        self.lora_sft_A = nn.Linear(inputs, config.lora_sft_r, bias=False)
        self.lora_sft_B = nn.Linear(config.lora_sft_r, outputs, bias=False)
        self.lora_dpo_A = nn.Linear(inputs, config.lora_dpo_r, bias=False)
        self.lora_dpo_B = nn.Linear(config.lora_dpo_r, outputs, bias=False)
        self.lora_web_A = nn.Linear(inputs, config.lora_web_r, bias=False)
        self.lora_web_B = nn.Linear(config.lora_web_r, outputs, bias=False)

    def forward(
        self, hidden: torch.Tensor, image_rows: torch.Tensor | None, mode: str
    ) -> torch.Tensor:
        """Apply it.

        Args:
            hidden: `[samples, positions, inputs]`.
            image_rows: int64 `[image tokens]`, rows of `hidden` flattened to `[rows, inputs]`
                that are image tokens; None: none is. The image branch sees these rows alone.
            mode: A key of `BRANCHES`.

        Returns:
            `[samples, positions, outputs]`.
        """
        output: torch.Tensor = self.base(hidden)
        for name in BRANCHES[mode]:
            down, up = getattr(self, f"lora_{name}_A"), getattr(self, f"lora_{name}_B")
            output = output + up(down(hidden))
        if image_rows is None:
            return output
        seen = hidden.flatten(0, 1).index_select(0, image_rows)
        added = self.Plora_B(self.Plora_A(seen)) * self.scaling
        return output.flatten(0, 1).index_add(0, image_rows, added).view_as(output)
