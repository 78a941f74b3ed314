"""How a part is trained."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """The numbers of a training. AdamW, a linear warm-up, then a cosine to zero.

    Args:
        epochs: The most passes through the training samples.
        rate: The highest learning rate.
        batch_size: Samples per pass.
        accumulate: Passes per step of the optimizer.
        warmup: The share of all steps in which the rate rises.
        weight_decay: AdamW's.
        clip: The largest norm of the gradient; 0: it is not clipped.
        patience: Epochs without a lower held-out loss after which training ends; the part then has
            the values of the best epoch. 0: it runs to the end, and the best epoch still counts.
        autocast: "bfloat16": passes run under torch.autocast; "auto": so on GPUs; "none".
        seed: Of the order of samples, and of the part's first values.
        reuse: Whether what lies before the part is computed once per sample and kept.
        cache_bytes: The most bytes to keep for that.
    """

    epochs: int = 10
    rate: float = 1e-3
    batch_size: int = 8
    accumulate: int = 1
    warmup: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0
    patience: int = 3
    autocast: str = "auto"
    seed: int = 0
    reuse: bool = True
    cache_bytes: int = 2 << 30
