"""The columns of a run as a mapping of arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vlmlens._display import brief, count
from vlmlens.samples import Sample

if TYPE_CHECKING:
    from vlmlens.abc.storage import Array, ColumnStore


class _WithColumns(Protocol):
    """What is needed of a run."""

    path: Path

    @property
    def info(self) -> Mapping[str, Any]: ...

    @property
    def samples(self) -> Sequence[Sample]: ...

    def store(self) -> ColumnStore: ...


class Activations(Mapping[str, "Array | list[Array]"]):
    """A run's columns: `run.activations["llm.block.14/last"]`.

    A column is one array `[samples, width]` in sample order. A ragged column is a list of arrays
    `[k_i, width]`. It is in memory as a whole; `run.store()` has `blocks` for larger ones.
    """

    def __init__(self, run: _WithColumns) -> None:
        self._run = run

    def __getitem__(self, column: str) -> Array | list[Array]:
        from vlmlens.tokens import Column

        name = str(Column.parse(column))
        with self._run.store() as store:
            present = set(store.ids(name))
            ids = [sample.id for sample in self._run.samples if sample.id in present]
            values = store.read(name, ids)
            return values.per_sample() if values.ragged else values.numpy()

    def __contains__(self, column: object) -> bool:
        return column in list(self)

    def __iter__(self) -> Iterator[str]:
        with self._run.store() as store:
            return iter([column.name for column in store.columns()])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        columns = self._run.info.get("columns", ())
        return brief(self, str(self._run.path), count(len(columns), "column"))

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)
