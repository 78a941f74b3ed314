"""What a training gave, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass through the training samples.

    Args:
        number: From 1; 0 is the part as it was before.
        train: The mean loss of the training samples, each before the step that used it, in nats
            per answer token; None before the first epoch.
        held: That of the held-out samples after the epoch.
    """

    number: int
    train: float | None
    held: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a training gave; the part has the values of the best epoch.

    Args:
        curve: All epochs, with number 0.
        best: The number of the epoch with the lowest held-out loss, the first one of equals; 0: no
            epoch is better than the part as it was before.
        steps: Steps of the optimizer.
        seen: Training samples that went through the model, each time counted.
        early: Whether it ended before the last epoch of the recipe.
    """

    curve: Sequence[Epoch]
    best: int
    steps: int
    seen: int
    early: bool

    @property
    def lowest(self) -> Epoch:
        """The best epoch."""
        return self.curve[self.best]
