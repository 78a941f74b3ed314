"""Searching the texts of all samples without making the samples."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmlens.runs.stored_samples import StoredSamples

if TYPE_CHECKING:
    import numpy.typing as npt

    from vlmlens.sample_table import SampleTable

_KEPT = 2_000
_SEARCHED = ("id", "prompt", "task", "label")


class SearchText:
    """Ids, prompts, tasks and labels in one text.

    Of a sample with more than 2,000 characters, the rest is looked up when it matters.

    Args:
        samples: The samples.
    """

    def __init__(self, samples: SampleTable) -> None:
        self._samples = samples
        self._long: list[int] = []
        self._starts = array("Q")
        parts: list[bytes] = []
        length = 0
        for number, record in enumerate(_records(samples)):
            text = _text(record)
            if len(text) > _KEPT:
                self._long.append(number)
            made = _bytes(text[:_KEPT]) + b"\0"
            self._starts.append(length)
            parts.append(made)
            length += len(made)
        self._bytes = b"".join(parts)

    def __call__(self, wanted: str) -> npt.NDArray[np.bool_]:
        """Which samples hold a text, in whatever case: bool `[samples]`."""
        sought = _bytes(_folded(wanted))
        found = np.zeros(len(self._samples), np.bool_)
        place = self._bytes.find(sought)
        while place >= 0 and len(found):
            number = bisect_right(self._starts, place) - 1
            found[number] = True
            after = number + 1
            place = self._bytes.find(sought, self._starts[after]) if after < len(found) else -1
        for number in self._long:
            if not found[number]:
                record = self._samples[number].to_dict()
                found[number] = _folded(wanted) in _text(record)
        return found


def _records(samples: SampleTable) -> Iterator[Mapping[str, Any]]:
    if isinstance(samples, StoredSamples):
        return samples.each_record()
    return (sample.to_dict() for sample in samples)


def _text(record: Mapping[str, Any]) -> str:
    return _folded("\n".join(str(record.get(name) or "") for name in _SEARCHED))


def _folded(text: str) -> str:
    return text.replace("\0", " ").casefold()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
