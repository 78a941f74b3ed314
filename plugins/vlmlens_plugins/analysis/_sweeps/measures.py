"""What is measured of the logits of one pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vlmlens.abc.model_work import JSON


def measured(logits: torch.Tensor, tokens: Sequence[Sequence[int]]) -> list[JSON]:
    """Per sample, what is known of the answers.

    Args:
        logits: `[samples, vocabulary]` at the place where the answers begin to differ.
        tokens: Per sample, the token of each followed answer there.

    Returns:
        "logit" and "logp" (natural logarithm) of each answer, and "top", the most probable token.
    """
    exact = logits.double()
    logs = exact.log_softmax(-1)
    return [
        {
            "logit": [float(row[token]) for token in followed],
            "logp": [float(log[token]) for token in followed],
            "top": int(row.argmax()),
        }
        for row, log, followed in zip(exact, logs, tokens, strict=True)
    ]


def divergence(one: torch.Tensor, other: torch.Tensor) -> list[float]:
    """Per sample, the Kullback-Leibler divergence KL(one || other) of two passes, in nats."""
    p, q = one.double().log_softmax(-1), other.double().log_softmax(-1)
    found = (p.exp() * (p - q)).sum(-1).clamp(min=0)
    return [float(value) for value in found]
