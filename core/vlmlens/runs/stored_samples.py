"""Samples that stay in samples.jsonl: each is made of its line when somebody asks for it."""

from __future__ import annotations

import json
import os
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmlens.errors import RunError
from vlmlens.runs.records import damaged
from vlmlens.runs.sample_file import FILE
from vlmlens.runs.signing import is_own
from vlmlens.runs.trust import vetted_sample
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Sample

if TYPE_CHECKING:
    import numpy.typing as npt

    from vlmlens.runs.run import Run

_PIECE = 1 << 20
_TOGETHER = 64
_KEPT = 64
_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class Coded:
    """Texts with a number for each sample: what they share is there once.

    Args:
        codes: int32 `[samples]`, which of `values`; -1 where there is none.
        values: The texts, each once, in the order in which they come.
    """

    codes: npt.NDArray[np.int32]
    values: Sequence[str]

    @classmethod
    def of(cls, texts: Sequence[str | None]) -> Coded:
        """Texts as numbers."""
        known: dict[str, int] = {}
        codes = [-1 if text is None else known.setdefault(text, len(known)) for text in texts]
        return cls(np.array(codes, np.int32), list(known))

    def counts(self) -> Counter[str]:
        """How many samples have each text."""
        found = np.bincount(self.codes[self.codes >= 0], minlength=len(self.values))
        return Counter(dict(zip(self.values, found.tolist(), strict=True)))


class StoredSamples(SampleTable):
    """The samples of a file in which each has a line. Only lines that are asked for are parsed.

    Args:
        path: What `write_table` wrote.
        make: Makes a sample of its object.
        count: The number of samples, if it is known.

    Raises:
        RunError: Lines are missing. A damaged line is an error when it is read.
    """

    def __init__(
        self, path: Path, make: Callable[[Mapping[str, Any]], Sample], count: int | None
    ) -> None:
        self._path, self._make = path, make
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        self._ends = self._line_ends()
        if count not in (None, len(self)):
            raise damaged(path, f"it has {len(self)} lines, and {count} were written")
        self.seen = None
        starts = range(0, len(self), _TOGETHER)
        self._chunks = [range(at, min(at + _TOGETHER, len(self))) for at in starts]  # type: ignore[misc]
        self._made = lru_cache(_KEPT)(self._unpacked)

    def __len__(self) -> int:
        return len(self._ends)

    def records(self, lines: range) -> list[dict[str, Any]]:
        """The objects of some lines, one after another, as they are in the file.

        Raises:
            RunError: One is damaged.
        """
        start = int(self._ends[lines.start - 1]) + 1 if lines.start else 0
        stop = int(self._ends[lines.stop - 1])
        text = os.pread(self._file, stop - start, start).split(b"\n")
        try:
            found: list[dict[str, Any]] = json.loads(b"[" + b",".join(text) + b"]")
            whole = len(found) == len(lines) and all("id" in each for each in found)
        except (ValueError, TypeError, RecursionError):
            whole = False
        if not whole:
            raise self._damage(lines.start, text)
        return found

    def each_record(self) -> Iterator[dict[str, Any]]:
        """The objects of all lines."""
        for start in range(0, len(self), _AT_ONCE):
            yield from self.records(range(start, min(start + _AT_ONCE, len(self))))

    @cached_property
    def ids(self) -> list[str]:  # type: ignore[override]
        """The ids, in order."""
        return self._marks[0]

    @property
    def task_codes(self) -> Coded:
        """The tasks by sample."""
        return self._marks[1]

    @property
    def label_codes(self) -> Coded:
        """The labels by sample."""
        return self._marks[2]

    @cached_property
    def tasks(self) -> Counter[str | None]:
        """How many samples have each task."""
        found: Counter[str | None] = Counter(dict(self.task_codes.counts()))
        if without := int((self.task_codes.codes < 0).sum()):
            found[None] = without
        return found

    @cached_property
    def _marks(self) -> tuple[list[str], Coded, Coded]:
        ids: list[str] = []
        tasks: list[str | None] = []
        labels: list[str | None] = []
        for record in self.each_record():
            ids.append(str(record["id"]))
            for name, texts in (("task", tasks), ("label", labels)):
                text = record.get(name)
                texts.append(None if text is None else str(text))
        return ids, Coded.of(tasks), Coded.of(labels)

    def _line_ends(self) -> npt.NDArray[np.int64]:
        """int64 `[lines]`: where the line break of each line is, in bytes."""
        found, start = [np.empty(0, np.int64)], 0
        while piece := os.pread(self._file, _PIECE, start):
            found.append(np.flatnonzero(np.frombuffer(piece, np.uint8) == ord("\n")) + start)
            start += len(piece)
        ends = np.concatenate(found)
        has_tail = start > (int(ends[-1]) + 1 if len(ends) else 0)
        return np.append(ends, start) if has_tail else ends

    def _samples_of(self, chunk: range) -> Sequence[Sample]:  # type: ignore[override]
        records = self.records(chunk)
        try:
            return [self._make(record) for record in records]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            numbers = f"lines {chunk.start + 1} to {chunk.stop}"
            raise damaged(self._path, f"{numbers} hold something else ({error})") from error

    def _damage(self, first: int, lines: Sequence[bytes]) -> RunError:
        """The error that names the damaged line."""
        for number, line in enumerate(lines, first + 1):
            try:
                whole = "id" in json.loads(line)
            except (ValueError, TypeError, RecursionError):
                whole = False
            if not whole:
                return damaged(self._path, f"line {number} is no JSON object with id")
        return damaged(self._path, f"lines from {first + 1} on hold several objects")


def samples_in_place(run: Run) -> SampleTable:
    """The samples of a run, left in their file; like `run.samples`, also in what is not opened.

    Raises:
        RunError: Lines are missing.
    """
    path, count = run.path / FILE, run.info.get("samples")
    if not path.exists():
        return run.samples
    believed = run.trust or is_own(run.path, FILE)

    def vetted(record: Mapping[str, Any]) -> Sample:
        return vetted_sample(run.sample_of(record), run.path)

    return StoredSamples(path, run.sample_of if believed else vetted, count)
