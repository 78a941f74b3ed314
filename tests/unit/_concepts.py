"""Samples and columns with known neighbours, for tests of `concepts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.abc import AnalysisContext, ColumnStore
from vlmlens.abc.storage import ColumnBlock, Values
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.concepts import Concepts
from vlmlens_plugins.analysis.concepts.options import ConceptsOptions
from vlmlens_plugins.storage.memory import MemoryStore

Rows = npt.NDArray[np.float32]
FAST = {"permutations": 99, "resamples": 200}
_NUMBERS = count()


def samples_of(
    labels: Sequence[str | None], groups: Sequence[int] | None = None, **more: Any
) -> list[Sample]:
    """A sample for each label, each its own group unless groups are given."""
    own = range(len(labels)) if groups is None else groups
    return [
        Sample(f"s{i}", "?", label=label, group=f"g{group}", task="t", **more)
        for i, (label, group) in enumerate(zip(labels, own, strict=True))
    ]


def store_of(samples: Sequence[Sample], columns: Mapping[str, Any]) -> ColumnStore:
    """An open store; a column is an array, or a list of arrays per sample."""
    store = MemoryStore.open(f"concepts {next(_NUMBERS)}", mode="a", options=MemoryStore.Options())
    made = {}
    for name, given in columns.items():
        ragged = isinstance(given, list)
        array = np.concatenate(given) if ragged else given
        lengths = tuple(map(len, given)) if ragged else None
        made[name] = Values(np.ascontiguousarray(array, "<f4"), "float32", lengths)
    store.write(ColumnBlock(tuple(sample.id for sample in samples), made))
    return store


def run(
    samples: Sequence[Sample],
    columns: Mapping[str, Any],
    /,
    folder: Path | None = None,
    told: list[str] | None = None,
    **options: Any,
) -> Result:
    """Check and run the analysis."""
    analysis = Concepts(ConceptsOptions(**{**FAST, **options}))
    analysis.check(samples, list(columns))
    context = AnalysisContext(
        samples,
        store_of(samples, columns),
        model=_no_model,
        folder=folder,
        warn=(told if told is not None else []).append,
    )
    return analysis.run(context)


def clusters(
    per_class: int = 20, classes: int = 3, width: int = 6, apart: float = 6.0, seed: int = 0
) -> tuple[Rows, npt.NDArray[np.int64]]:
    """Rows around a corner of a simplex for each class, far from the origin."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), per_class)
    rows = rng.normal(size=(len(y), width)) + apart * np.eye(width)[y] + 30
    return rows.astype(np.float32), y


def _no_model() -> Any:
    raise AssertionError("it needs no model")
