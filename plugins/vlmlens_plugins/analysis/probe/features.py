"""Features of samples that need no model: the words of the prompt, the colours of the image."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.errors import VlmlensError
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.probe.targets import Ints, numbered

Floats = npt.NDArray[np.float32]
_WORDS = 500
_SIDE = 4
_AT_ONCE = 8_000_000
_IMAGES = 50_000
"""More images than these are not opened for a baseline."""


@dataclass(frozen=True, slots=True)
class FeatureRows:
    """Features of samples of which many are equal, in blocks.

    Args:
        table: `[kinds, features]`, dense or sparse.
        kind: int64 `[n]`, which of the rows each sample has.
    """

    table: Any
    kind: Ints

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.kind)

    @property
    def width(self) -> int:
        """Number of features."""
        return int(self.table.shape[1])

    @property
    def alike(self) -> bool:
        """Whether all samples have equal features."""
        return all(bool((self._dense(part) == self._dense([0])).all()) for part in self._kinds())

    def array(self) -> Floats:
        """float32 `[n, features]`."""
        return self._dense(self.kind)

    def __iter__(self) -> Iterator[tuple[Ints, Floats]]:
        """Yield sample numbers `[k]` and their features `[k, features]`."""
        for places in _blocks(self.count, self.width):
            yield places, self._dense(self.kind[places])

    def _kinds(self) -> Iterator[Ints]:
        return _blocks(self.table.shape[0], self.width)

    def _dense(self, rows: Any) -> Floats:
        some = self.table[rows]
        return np.asarray(some.toarray() if hasattr(some, "toarray") else some, np.float32)


def _blocks(count: int, width: int) -> Iterator[Ints]:
    size = max(1, _AT_ONCE // max(1, width))
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


class Features:
    """Features of samples that need no model; images are opened once each.

    Args:
        warn: Told where images cannot be read.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._thumbnails: dict[object, Floats] = {}

    def of(self, name: str, samples: Sequence[Sample]) -> FeatureRows | None:
        """Those of all samples; None where all are alike or there are none to read."""
        found = words(samples) if name == "words" else self._images(samples)
        return None if found is None or found.alike else found

    def _images(self, samples: Sequence[Sample]) -> FeatureRows | None:
        kind, keys = np.empty(len(samples), np.int64), dict[object, int]()
        for number, sample in enumerate(samples):
            if not sample.images:
                return None
            kind[number] = keys.setdefault(_key(sample), len(keys))
        if len(keys) > _IMAGES:
            self._warn(
                f"The image baseline was left out: it would open {len(keys):,} images. To have "
                f"it, probe fewer samples: --samples {_IMAGES}."
            )
            return None
        try:
            for sample in samples:
                self._see(sample)
        except VlmlensError as error:
            self._warn(f"The image baseline was left out: {error.message}")
            return None
        return FeatureRows(np.stack([self._thumbnails[key] for key in keys]), kind)

    def _see(self, sample: Sample) -> None:
        if (key := _key(sample)) not in self._thumbnails:
            self._thumbnails[key] = thumbnail(sample)


def _key(sample: Sample) -> object:
    first = sample.images[0]
    return first if isinstance(first, str) else id(first)


def words(samples: Sequence[Sample]) -> FeatureRows | None:
    """Which words each prompt has, the most frequent 500; None where no prompt has any."""
    from sklearn.feature_extraction.text import CountVectorizer

    prompts: dict[str, None] = {}
    kind = numbered(_listed(samples, prompts))
    counter = CountVectorizer(binary=True, analyzer=_words_of)
    try:
        table = counter.fit_transform(prompts).tocsr()
    except ValueError:
        return None
    if table.shape[1] > _WORDS:
        often = table.T @ np.bincount(kind, minlength=len(prompts))
        table = table[:, np.sort((-often).argsort()[:_WORDS])]
    return FeatureRows(table.astype(np.float32), kind)


def _listed(samples: Sequence[Sample], prompts: dict[str, None]) -> Iterator[str]:
    """Yield the prompts; the different ones are in the dictionary then."""
    for sample in samples:
        prompts.setdefault(sample.prompt)
        yield sample.prompt


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
