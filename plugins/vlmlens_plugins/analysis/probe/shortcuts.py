"""Shortcuts: how well the label is predicted without the model, or from its embedding layer.

In a controlled data set nothing but the property itself gives the label away. Where a bag of words
of the prompt, the colours of the image or the embedding layer do as well as the best layer, the
layer's accuracy shows no more than they do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis._statistics import interval
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.resampling import Losses, losses_of
from vlmlens_plugins.analysis.probe.scores import Scored, least_gap
from vlmlens_plugins.analysis.probe.trial import Trial

TITLES = {
    "words": "A probe on the words of the prompt",
    "image": "A probe on the image's mean colour and a 4 x 4 thumbnail",
    "embedding": "The embedding layer",
}


@dataclass(frozen=True, slots=True)
class Shortcut:
    """How well a shortcut does.

    Args:
        name: `majority`, `words`, `image` or `embedding`.
        accuracy: Held-out accuracy (or R2) of the same kind of probe, with a 95 % interval.
        behind: How far the best column is above it, with a paired 95 % interval.
        explains: Whether it is well above the majority, and the best column not well above it.
    """

    name: str
    accuracy: float
    low: float
    high: float
    behind: float
    behind_low: float
    behind_high: float
    explains: bool


def is_embedding(column: str) -> bool:
    """Whether a column holds what enters the first block."""
    return column.partition("/")[0].split(".")[-1] == "embed"


def guard(
    trial: Trial,
    scored: Scored,
    predictions: dict[str, npt.NDArray[np.generic]],
    options: ProbeOptions,
) -> list[Shortcut]:
    """Every shortcut beside the best column.

    Args:
        trial: What was asked.
        scored: The columns' scores.
        predictions: Held-out predictions `[n]` by shortcut.
        options: `min_gap`.
    """
    places = range(len(scored.scores))
    best = max(places, key=lambda i: scored.scores[i].accuracy)
    found = {"majority": scored.resampling.majority}
    found.update({name: losses_of(made, trial, 0) for name, made in predictions.items()})
    embedding = [i for i in places if is_embedding(scored.scores[i].column)]
    if embedding:
        top = max(embedding, key=lambda i: scored.scores[i].accuracy)
        found["embedding"] = scored.losses[top]
    return [_shortcut(name, made, scored, best, options) for name, made in found.items()]


def _shortcut(
    name: str, losses: Losses, scored: Scored, best: int, options: ProbeOptions
) -> Shortcut:
    resampling, majority = scored.resampling, scored.resampling.majority
    drawn = resampling.scores(losses)
    low, high = resampling.interval(losses)
    behind_low, behind_high = interval(resampling.scores(scored.losses[best]) - drawn)
    behind = scored.scores[best].accuracy - losses.score
    above = losses.score - majority.score
    above_low, _ = interval(drawn - resampling.scores(majority))
    least = least_gap(majority.score, options)
    real = name != "majority" and bool(above_low > 0) and above >= least
    return Shortcut(
        name=name,
        accuracy=losses.score,
        low=low,
        high=high,
        behind=behind,
        behind_low=float(behind_low),
        behind_high=float(behind_high),
        explains=real and (bool(behind_low <= 0) or behind < least),
    )
