"""Groups with several positions per sample, summarized for each sample."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.samples import Sample
from vlmlens_plugins.analysis.logit_lens.positions import Group, Rows, nothing_finite
from vlmlens_plugins.analysis.logit_lens.readings import Reader, Readings
from vlmlens_plugins.analysis.logit_lens.vocabulary import Floats, Ints


@dataclass(frozen=True, slots=True)
class Followed:
    """A token or word over a sample's positions.

    Args:
        name: For people.
        probability: float32 `[layers, samples]`: the highest over the positions; NaN without it.
        place: int32 `[layers, samples]`: the position where it is highest; -1 without it.
    """

    name: str
    probability: Floats
    place: npt.NDArray[np.int32]

    @property
    def confidence(self) -> Floats:
        """float32 `[samples]`: the highest over layers and positions.

        "Internal confidence" of N. Jiang et al., "Interpreting and editing vision-language
        representations to mitigate hallucinations" (2024, arXiv 2410.02762).
        """
        highest: Floats = self.probability.max(0)
        return highest


@dataclass(frozen=True, slots=True)
class SeveralPositions:
    """A group with several positions per sample.

    Args:
        group: What was read.
        samples: Those that have such positions.
        positions: int64 `[samples]`, how many each has.
        agreement: float32 `[layers, samples]`, share of positions whose top token is the final
            layer's at the same position.
        entropy: float32 `[layers, samples]`, nats, mean over the positions; `divergence` likewise.
        settled: float32 `[samples]`, mean over the positions of the settling layer's number.
        followed: The chosen words, and the label over image patches.
        shown: Complete readings of the samples that are shown, by number.
        left_out: How many more samples have no such position, or numbers that are not finite.
    """

    group: Group
    samples: Sequence[Sample]
    positions: Ints
    agreement: Floats
    entropy: Floats
    divergence: Floats
    settled: Floats
    followed: tuple[Followed, ...]
    shown: Mapping[int, Readings]
    left_out: int = 0


def read_several(
    reader: Reader,
    group: Group,
    samples: Sequence[Sample],
    parts: Iterable[Rows],
    labels: Ints | None,
    words: Sequence[str],
    *,
    same: int | None,
    shown: Collection[int],
    progress: Callable[[int], None],
) -> SeveralPositions:
    """Read a group with several positions per sample; only the shown samples are kept whole.

    Args:
        reader: Reads positions.
        group: What is read.
        samples: All of the run's.
        parts: Their rows, a few samples at a time.
        labels: int64 `[samples]`, tokens to follow beside the words; None for none.
        words: Names of the reader's words.
        same: The group's layer that is the final one.
        shown: Numbers of the samples to keep whole.
        progress: Told how many samples are done.

    Raises:
        CompositionError: No sample has such positions, with finite numbers.
    """
    kept: dict[int, Readings] = {}
    each = _Summaries(len(samples))
    wanted = np.full(len(samples), -1) if labels is None else labels
    done = 0
    for part in parts:
        if not len(part.final):
            done += len(part.samples)
            continue
        repeated = np.repeat(wanted[list(part.samples)], part.lengths)
        found = reader.read(part.layers, part.final, repeated, same=same)
        for number, rows in part.spans():
            own = found.take(rows)
            if not len(own) or not own.finite.all():
                continue
            each.put(number, _of_sample(own))
            if number in shown:
                kept[number] = own
        done += len(part.samples)
        progress(done)
    usable = each.usable
    if not usable:
        raise nothing_finite(group)
    names = (["the label"] if labels is not None else []) + list(words)
    skip = 0 if labels is not None else 1
    best, place = each["best"][..., skip:], each["place"][..., skip:]
    return SeveralPositions(
        group=group,
        samples=samples if len(usable) == len(samples) else [samples[i] for i in usable],
        positions=each["positions"],
        agreement=each["agreement"],
        entropy=each["entropy"],
        divergence=each["divergence"],
        settled=each["settled"],
        followed=tuple(Followed(n, best[..., i], place[..., i]) for i, n in enumerate(names)),
        shown={place: kept[i] for place, i in enumerate(usable) if i in kept},
        left_out=len(samples) - len(usable),
    )


class _Summaries:
    """What is kept of each sample, put together in any order.

    Args:
        count: How many samples there are.
    """

    def __init__(self, count: int) -> None:
        self._there = np.zeros(count, bool)
        self._arrays: dict[str, npt.NDArray[Any]] = {}

    def put(self, number: int, own: _OfSample) -> None:
        """Put a sample's where they belong: layers first, then samples."""
        for each in fields(own):
            value = np.asarray(getattr(own, each.name))
            axis = min(value.ndim, 1)
            if each.name not in self._arrays:
                shape = (*value.shape[:axis], len(self._there), *value.shape[axis:])
                self._arrays[each.name] = np.empty(shape, value.dtype)
            self._arrays[each.name][(slice(None),) * axis + (number,)] = value
        self._there[number] = True

    @property
    def usable(self) -> list[int]:
        """The numbers of the samples that were put."""
        found: list[int] = np.flatnonzero(self._there).tolist()
        return found

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        array = self._arrays[name]
        return array if self._there.all() else array.compress(self._there, min(array.ndim, 2) - 1)


@dataclass(frozen=True, slots=True)
class _OfSample:
    positions: int
    agreement: Floats
    entropy: Floats
    divergence: Floats
    settled: np.float32
    best: Floats
    place: npt.NDArray[np.int32]


def _of_sample(found: Readings) -> _OfSample:
    """Means over a sample's positions; the first column of `best` is the label's."""
    joint = np.concatenate([found.label_probability[..., None], found.word_probability], -1)
    known = ~np.isnan(joint).any(1)
    filled = np.where(np.isnan(joint), -1.0, joint)
    return _OfSample(
        positions=len(found),
        agreement=(found.top[..., 0] == found.answers).mean(1, dtype=np.float32),
        entropy=found.entropy.mean(1),
        divergence=found.divergence.mean(1),
        settled=np.float32(found.settled.mean()),
        best=np.where(known, filled.max(1), np.nan).astype(np.float32),
        place=np.where(known, filled.argmax(1), -1).astype(np.int32),
    )
