"""Reading the columns of a run, and of another run to test on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.abc import ColumnStore
from vlmlens.errors import CompositionError
from vlmlens.runs.run import Run
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._blocks import AT_ONCE, ColumnBlocks
from vlmlens_plugins.analysis.probe.targets import Target

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class OtherRun:
    """A run to test on.

    Args:
        path: Its folder.
        samples: Its samples.
        store: Its columns, open.
    """

    path: str
    samples: Sequence[Sample]
    store: ColumnStore

    @classmethod
    @contextmanager
    def opened(cls, path: str | None) -> Iterator[OtherRun | None]:
        """Open it while in use; None for no path.

        Raises:
            RunNotFound: The folder holds no run.
        """
        if path is None:
            yield None
            return
        run = Run(path)
        with run.store() as store:
            yield cls(path, run.samples, store)

    def shared(self, names: Sequence[str]) -> list[str]:
        """The columns that this run has too.

        Raises:
            CompositionError: There is none.
        """
        own = {info.name for info in self.store.columns()}
        both = [name for name in names if name in own]
        if not both:
            raise CompositionError(
                f"The run {self.path!r} has none of the columns to probe.",
                subject=self.path,
                hint=f"Extract {names[0]} there too.",
            )
        return both


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a run, and of the run to test on where there is one."""

    store: ColumnStore
    other: OtherRun | None = None

    def widths(self) -> dict[str, int]:
        """Features per row of each column."""
        return {info.name: info.width for info in self.store.columns()}

    def read(self, name: str, target: Target) -> Array:
        """`[n, width]`, in the target's order.

        Raises:
            CompositionError: The two runs' columns differ in width.
        """
        own = self.store.read(name, target.ids[: target.learned]).numpy()
        if self.other is None:
            return own
        theirs = self.other.store.read(name, target.ids[target.learned :]).numpy()
        self._check_width(name, own.shape[1], theirs.shape[1])
        return np.concatenate([own, theirs])

    def rows(self, name: str, target: Target, at_once: int = AT_ONCE) -> StoredRows:
        """The same rows, in blocks.

        Raises:
            CompositionError: The two runs' columns differ in width.
        """
        parts = list(self.own_rows(name, target, at_once).parts)
        if self.other is not None:
            theirs = target.ids[target.learned :]
            parts.append(ColumnBlocks(self.other.store, name, theirs, at_once))
            self._check_width(name, parts[0].info.width, parts[1].info.width)
        return StoredRows(parts)

    def own_rows(self, name: str, target: Target, at_once: int = AT_ONCE) -> StoredRows:
        """Those of the run itself, in blocks."""
        ids = target.ids[: target.learned]
        return StoredRows([ColumnBlocks(self.store, name, ids, at_once)])

    def _check_width(self, name: str, own: int, theirs: int) -> None:
        if self.other is not None and own != theirs:
            raise CompositionError(
                f"{name} is {own} wide here and {theirs} in {self.other.path!r}.",
                subject=name,
                hint="Test on a run of the same model.",
            )


@dataclass(frozen=True, slots=True)
class StoredRows:
    """A column's rows in blocks, one store after the other. Iterating again reads them again."""

    parts: Sequence[ColumnBlocks]

    @property
    def count(self) -> int:
        """Number of rows."""
        return sum(len(part.ids) for part in self.parts)

    @property
    def width(self) -> int:
        """Features per row."""
        return self.parts[0].info.width

    def __iter__(self) -> Iterator[tuple[Ints, Array]]:
        """Yield the rows' numbers in the target, int64 `[k]`, and the rows `[k, width]`."""
        before = 0
        for part in self.parts:
            for block in part:
                yield block.places + before, block.values.numpy()
            before += len(part.ids)
