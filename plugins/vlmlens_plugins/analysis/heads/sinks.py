"""Sinks: rows that get attention whatever they hold, known by a few huge dimensions.

S. Kang et al., "See What You Are Told: Visual Attention Sink in Large Multimodal Models" (2025,
arXiv 2503.03321), find them by fixed dimensions of each model. Here the dimensions are those that
are huge in the first row, which is a sink in most models.
"""

from __future__ import annotations

import torch


def sinks_of(hidden: torch.Tensor, least: float) -> tuple[torch.Tensor, list[int]]:
    """Which rows of a sample are sinks, and the dimensions that say so.

    Args:
        hidden: `[rows, width]`, the residual stream.
        least: How many times a row's root mean square a dimension is at least.

    Returns:
        bool `[rows]`; and the dimensions that are so large in the first row.
    """
    exact = hidden.float()
    tiny = torch.finfo(torch.float32).tiny
    ratio = exact.abs() / exact.square().mean(-1, keepdim=True).sqrt().clamp(min=tiny)
    large = ratio >= least
    dimensions = large[0]
    return large[:, dimensions].any(-1), dimensions.nonzero().flatten().tolist()
