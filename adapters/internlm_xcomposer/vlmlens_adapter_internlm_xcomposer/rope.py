"""Rotary tables of InternLM2; dynamic scaling depends on the length of a sample at each token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from vlmlens_adapter_internlm_xcomposer.config import XComposerConfig


def rotation(
    positions: torch.Tensor, lengths: torch.Tensor, config: XComposerConfig, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of a pass; nothing is kept for the next.

    Args:
        positions: int64 `[samples, positions]`.
        lengths: See `lengths_when_read`.
        config: The model's.
        dtype: Of the result; it is computed in float32.

    Returns:
        Two `[samples, positions, head_dim]`.
    """
    steps = positions.float()
    if config.rope_type == "linear":
        steps = steps / config.rope_factor
    angles = steps[..., None] * frequencies(lengths, config)
    both = torch.cat([angles, angles], -1)
    return both.cos().to(dtype), both.sin().to(dtype)


def lengths_when_read(positions: torch.Tensor, prompts: torch.Tensor | None) -> torch.Tensor:
    """How many tokens a sample had when the model read each one.

    A prompt is read at once; the answer is read token by token. Padding and other samples of the
    batch do not count.

    Args:
        positions: int64 `[samples, positions]`.
        prompts: int64 `[samples]`, tokens of each prompt where an answer follows it in the same
            pass; None: all is read at once.

    Returns:
        int64 `[samples, positions]`, or `[samples, 1]` where it is the same for all.
    """
    if prompts is None:
        return positions.amax(1, keepdim=True) + 1
    return torch.maximum(positions + 1, prompts[:, None])


def frequencies(lengths: torch.Tensor, config: XComposerConfig) -> torch.Tensor:
    """float32 `[*lengths.shape, head_dim / 2]`: radians per position."""
    width, device = config.head_dim, lengths.device
    exponents = torch.arange(0, width, 2, device=device).float() / width
    if config.rope_type != "dynamic":
        return (1.0 / config.rope_base**exponents).expand(*lengths.shape, -1)
    found, where = lengths.unique(return_inverse=True)
    bases = [scaled_base(length, config) for length in found.tolist()]
    base = torch.tensor(bases, dtype=torch.float32, device=device)
    return (1.0 / base[:, None] ** exponents)[where]


def scaled_base(length: int, config: XComposerConfig) -> float:
    """The base for a sample of that length: larger beyond the trained length.

    Dynamic NTK scaling, as in transformers' Llama of 4.33.
    """
    trained, width, factor = config.max_position_embeddings, config.head_dim, config.rope_factor
    if length <= trained:
        return config.rope_base
    grown = factor * length / trained - (factor - 1)
    return float(config.rope_base * grown ** (width / (width - 2)))
