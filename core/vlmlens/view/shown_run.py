"""One open run: what pages read of it, kept while the run does not change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeVar, cast

from vlmlens.errors import RunError, VlmlensError
from vlmlens.runs.run import Run

if TYPE_CHECKING:
    from vlmlens.abc.storage import ColumnInfo
    from vlmlens.results import Result
    from vlmlens.sample_table import SampleTable
    from vlmlens.view.sample_columns import SampleTables
    from vlmlens.view.search import SearchText

_T = TypeVar("_T")
_State = tuple[tuple[str, int, int], ...]


class ShownRun:
    """A run as the app's pages read it. What is large stays in its files until it is looked at.

    Args:
        run: The run.
        number: Its place on the command line, from 0; part of its addresses.
    """

    def __init__(self, run: Run, number: int) -> None:
        self.run = run
        self.number = number
        self._locks: dict[str, RLock] = {}
        self._kept: dict[str, tuple[_State, Any]] = {}

    @property
    def name(self) -> str:
        """What the run is called: its folder's name."""
        return self.run.path.name

    @property
    def address(self) -> str:
        """The address of its overview."""
        return f"/runs/{self.number}"

    @property
    def samples(self) -> SampleTable:
        """Its samples.

        Raises:
            RunError: Their file is damaged, or the run is gone.
        """
        from vlmlens.runs.stored_samples import samples_in_place

        return self.kept("samples", self._of_samples(), lambda: samples_in_place(self.run))

    @property
    def results(self) -> Mapping[str, Result]:
        """Its results by analysis; columns of large tables are read when they are looked at.

        Raises:
            RunError: One is damaged, or the run is gone.
        """
        from vlmlens.runs.stored_tables import read_in_place

        found = self.kept("results", self.state, lambda: self.run.read_results(read_in_place))
        return cast("Mapping[str, Result]", found)

    @property
    def tables(self) -> SampleTables:
        """What the results say of single samples."""
        from vlmlens.view.sample_columns import SampleTables

        return self.kept("tables", self.state, lambda: SampleTables(self.results, self.samples))

    @property
    def search(self) -> SearchText:
        """The texts of the samples."""
        from vlmlens.view.search import SearchText

        return self.kept("search", self._of_samples(), lambda: SearchText(self.samples))

    @property
    def stored(self) -> Sequence[ColumnInfo]:
        """The columns in its store; no value is read.

        Raises:
            VlmlensError: The store cannot be opened, or the run is not trusted with it.
        """

        def read() -> Sequence[ColumnInfo]:
            with self.run.store() as store:
                return store.columns()

        return self.kept("stored", self.state, read)

    @property
    def state(self) -> _State:
        """What changes whenever the run's samples or results do.

        Raises:
            RunError: The run is gone.
        """
        results = sorted(self.run.path.glob("results/*.json"))
        return self._of_samples() + tuple(map(_stat, results))

    def kept(self, name: str, state: _State, make: Callable[[], _T]) -> _T:
        """What `make` gives, made once for each state of the run.

        Args:
            name: What it is.
            state: What it depends on.
            make: Makes it; two requests wait for one making.
        """
        with self._locks.setdefault(name, RLock()):
            before, value = self._kept.get(name, ((), None))
            if name not in self._kept or before != state:
                self._kept.pop(name, None)
                value = make()
                self._kept[name] = state, value
            return cast("_T", value)

    def read_ahead(self) -> None:
        """Read what pages need first, before somebody asks; what cannot be read, pages tell."""
        with suppress(VlmlensError, OSError):
            for column in self.tables.columns.values():
                _ = column.kind
            _ = self.samples.tasks, self.search

    def _of_samples(self) -> _State:
        if not (self.run.path / "run.json").is_file():
            raise RunError(
                f"{str(self.run.path)!r} holds no run any more.",
                subject=str(self.run.path),
                hint="Stop `vlmlens view`, and open the run where it is now.",
            )
        return tuple(_stat(self.run.path / name) for name in ("run.json", "samples.jsonl"))


def names_of(runs: Sequence[ShownRun]) -> list[str]:
    """What the runs are called, each differently."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else f"{name} ({run.number})"
        for name, run in zip(names, runs, strict=True)
    ]


def _stat(path: Path) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except OSError:
        return path.name, 0, 0
    return path.name, found.st_mtime_ns, found.st_size
