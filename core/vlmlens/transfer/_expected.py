"""What a run says should be in its store, compared with what is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vlmlens.abc.storage import ChunkCheck, ColumnStore

if TYPE_CHECKING:
    from vlmlens.runs.run import Run


def lacking(run: Run, store: ColumnStore) -> Iterator[ChunkCheck]:
    """The columns, values and texts that a run should have and does not have.

    A run that is not finished may lack any; `ChunkCheck.problem` says how many.
    """
    samples = [str(record["id"]) for record in run.sample_records()]
    if not run.has_model:
        return
    stored = {info.name for info in store.columns()}
    for name in run.info.get("columns", ()):
        have = set(store.ids(name)) if name in stored else set()
        yield from _without(name, samples, have, "no value")
    if run.spec.generate:
        yield from _without("generated texts", samples, set(run.generated), "no text")


def repeated(store: ColumnStore) -> Iterator[ChunkCheck]:
    """Columns that name a sample twice."""
    for info in store.columns():
        ids = store.ids(info.name)
        if len(set(ids)) < len(ids):
            problem = f"{len(ids) - len(set(ids))} samples stand in it twice."
            yield ChunkCheck(info.name, ids[0], len(ids), 0, problem)


def _without(name: str, samples: Sequence[str], have: set[str], what: str) -> Iterator[ChunkCheck]:
    missing = [sample for sample in samples if sample not in have]
    if missing:
        problem = f"{len(missing)} of {len(samples)} samples have {what}."
        yield ChunkCheck(name, missing[0], len(missing), 0, problem)


def finished(run: Run) -> bool:
    """Whether the run says that it is complete."""
    return run.info.get("state") == "finished"
