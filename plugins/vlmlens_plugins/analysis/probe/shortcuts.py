"""Shortcuts: how well the label is predicted without the model, or from its embedding layer.

In a controlled data set nothing but the property itself gives the label away. Where a bag of words
of the prompt, the colours of the image or the embedding layer do as well as the best layer, the
layer's accuracy shows no more than they do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.errors import VlmlensError
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import interval
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.resampling import Losses, losses_of
from vlmlens_plugins.analysis.probe.scores import Scored, least_gap
from vlmlens_plugins.analysis.probe.trial import Trial

Floats = npt.NDArray[np.float32]
_WORDS = 500
_SIDE = 4
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


class Features:
    """Features of samples that need no model; images are opened once each.

    Args:
        warn: Told where images cannot be read.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._thumbnails: dict[object, Floats] = {}

    def of(self, name: str, samples: Sequence[Sample]) -> Floats | None:
        """float32 `[n, features]`; None where all samples are alike or there are none to read."""
        found = words(samples) if name == "words" else self._images(samples)
        return None if found is None or (found == found[:1]).all() else found

    def _images(self, samples: Sequence[Sample]) -> Floats | None:
        if not all(sample.images for sample in samples):
            return None
        try:
            return np.stack([self._thumbnail(sample) for sample in samples])
        except VlmlensError as error:
            self._warn(f"The image baseline was left out: {error.message}")
            return None

    def _thumbnail(self, sample: Sample) -> Floats:
        first = sample.images[0]
        key = first if isinstance(first, str) else id(first)
        if key not in self._thumbnails:
            self._thumbnails[key] = thumbnail(sample)
        return self._thumbnails[key]


def words(samples: Sequence[Sample]) -> Floats | None:
    """float32 `[n, words]`: which words each prompt has; None where no prompt has any."""
    from sklearn.feature_extraction.text import CountVectorizer

    prompts = [sample.prompt for sample in samples]
    counter = CountVectorizer(binary=True, max_features=_WORDS, analyzer=_words_of)
    try:
        return np.asarray(counter.fit_transform(prompts).toarray(), np.float32)
    except ValueError:
        return None


def _words_of(prompt: str) -> list[str]:
    """Words in lower case, and signs."""
    return re.findall(r"\w+|[^\w\s]", prompt.lower())


def thumbnail(sample: Sample) -> Floats:
    """float32 `[51]`: the mean colour and a 4 x 4 thumbnail of the first image."""
    from PIL import Image

    image = sample.open_images()[0]
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    pixels = np.asarray(small, np.float32) / 255
    return np.concatenate([pixels.mean((0, 1)), pixels.reshape(-1)])


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
