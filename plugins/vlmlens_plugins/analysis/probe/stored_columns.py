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
from vlmlens_plugins.analysis.probe.targets import Target

Array = npt.NDArray[Any]


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

    def read(self, name: str, target: Target) -> Array:
        """`[n, width]`, in the target's order.

        Raises:
            CompositionError: The two runs' columns differ in width.
        """
        own = self.store.read(name, target.ids[: target.learned]).numpy()
        if self.other is None:
            return own
        theirs = self.other.store.read(name, target.ids[target.learned :]).numpy()
        if own.shape[1] != theirs.shape[1]:
            raise CompositionError(
                f"{name} is {own.shape[1]} wide here and {theirs.shape[1]} in {self.other.path!r}.",
                subject=name,
                hint="Test on a run of the same model.",
            )
        return np.concatenate([own, theirs])
