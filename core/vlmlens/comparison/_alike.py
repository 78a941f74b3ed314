"""How alike the stored columns of two runs are on the samples that both have: linear CKA.

A comparison must stay quick, so few samples and columns are read. The analysis `similarity` has
all of them, with other measures and controls.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic

import numpy as np

from vlmlens.abc.storage import ColumnStore
from vlmlens.cka import LEAST_SAMPLES, Cka, Floats, Ints, linear_cka
from vlmlens.comparison._pairs import Pair
from vlmlens.comparison._sides import Side
from vlmlens.errors import VlmlensError
from vlmlens.report._text import plural
from vlmlens.results import Cell, Figure, Finding, Table

SAMPLES = 400
"""The most samples that are read, each of another group."""

COLUMNS = 12
"""The most columns of a run that are read."""

_SECONDS = 20.0
"""Longer reading is not begun."""

_EQUAL = 0.999
_BYTES = 2**28

NOTE = (
    "Similarity of columns is linear CKA (Kornblith et al. 2019) by the unbiased estimator of Song "
    "et al. (2012): 1 for columns that are equal up to rotation, scale and shift, about 0 for "
    "unrelated ones, which can give a negative number. 95 % intervals are those of the jackknife "
    f"over groups. At most {SAMPLES} samples of different groups and {COLUMNS} columns of a run "
    "are read; the analysis `similarity` reads all, and adds other measures and a baseline."
)


@dataclass(frozen=True, slots=True)
class Alike:
    """How alike columns of two sides are.

    Args:
        pair: The sides.
        first: Columns of the first side, in stored order; `second` likewise.
        cka: `[len(first), len(second)]`; `low` and `high` are the ends of 95 % intervals.
        samples: How many they rest on.
        unusable: Columns of either side that are constant, or not finite.
    """

    pair: Pair
    first: Sequence[str]
    second: Sequence[str]
    cka: Floats
    low: Floats
    high: Floats
    samples: int
    unusable: Sequence[str] = ()

    @property
    def common(self) -> bool:
        """Whether the sides have the same columns, so that each has its counterpart."""
        return list(self.first) == list(self.second)

    @property
    def partners(self) -> list[tuple[int, int]]:
        """For each column of the first side its counterpart, or else the nearest one."""
        if self.common:
            return [(i, i) for i in range(len(self.first)) if np.isfinite(self.cka[i, i])]
        known = [i for i, row in enumerate(self.cka) if np.isfinite(row).any()]
        return [(i, int(np.nanargmax(self.cka[i]))) for i in known]


class _TooSlow(Exception):
    """Reading would take too long."""


def alike(pair: Pair, seed: int) -> tuple[Alike | None, str]:
    """The similarity of two sides, and what must be said of it: why there is none; else ""."""
    first, second = pair.first.store, pair.second.store
    if first is None or second is None:
        return None, ""
    names = f"similarity of {pair.first.name} and {pair.second.name} left out"
    try:
        with ExitStack() as stack:
            stores = [stack.enter_context(first()), stack.enter_context(second())]
            found = _measured(pair, stores, seed)
    except VlmlensError as error:
        return None, f"{names}: {error.message}"
    except _TooSlow:
        return None, (
            f"{names}: reading the columns would take more than {_SECONDS:.0f} s. The analysis "
            "`similarity` does it, with against=RUN."
        )
    if isinstance(found, str):
        return None, f"{names}: {found}"
    if not found.partners:
        return None, f"{names}: the columns are constant or not finite."
    unusable = ", ".join(found.unusable)
    said = f"{names} where columns are constant or not finite: {unusable}."
    return found, said if unusable else ""


def _measured(pair: Pair, stores: Sequence[ColumnStore], seed: int) -> Alike | str:
    names = _columns(pair, stores)
    if not all(names):
        return "a run has no column with one row per sample."
    sources = [
        (store, name) for store, chosen in zip(stores, names, strict=True) for name in chosen
    ]
    ids = _samples(pair, sources, seed)
    if len(ids) < LEAST_SAMPLES:
        return f"they share samples of {plural(len(ids), 'group')}, {LEAST_SAMPLES} are needed."
    reader = _Reader(sources, ids)
    # Each sample is of another group, so each is one of its own.
    found = linear_cka(reader, len(sources), ids, block=len(ids), seed=seed)
    return _cut(pair, names, found)


def _cut(pair: Pair, names: Sequence[Sequence[str]], found: Cka) -> Alike:
    split = len(names[0])
    low, high = found.interval
    value, low, high = (array[:split, split:] for array in (found.value, low, high))
    every = [*names[0], *names[1]]
    unusable = dict.fromkeys(every[c] for c in sorted(found.constant | found.broken))
    return Alike(pair, names[0], names[1], value, low, high, found.samples, list(unusable))


def _columns(pair: Pair, stores: Sequence[ColumnStore]) -> list[list[str]]:
    """Columns of each side: its own, those of both sides where names are the same, or some."""
    sides = (pair.first, pair.second)
    flat = [_flat(side, store) for side, store in zip(sides, stores, strict=True)]
    if set(flat[0]) == set(flat[1]):
        return [_thinned(flat[0])] * 2
    return [_thinned(names) for names in flat]


def _flat(side: Side, store: ColumnStore) -> list[str]:
    known = [info.name for info in store.columns() if not info.ragged and info.samples]
    return known if side.column is None else [name for name in known if name == side.column]


def _thinned(names: Sequence[str]) -> list[str]:
    """At most `COLUMNS` of them, evenly, with the first and the last."""
    if len(names) <= COLUMNS:
        return list(names)
    return [names[i] for i in np.linspace(0, len(names) - 1, COLUMNS).round().astype(int)]


def _samples(pair: Pair, sources: Sequence[tuple[ColumnStore, str]], seed: int) -> list[str]:
    """Ids of samples of different groups that all columns have, at random."""
    kept = set(pair.shared)
    for store, name in sources:
        kept.intersection_update(store.ids(name))
    shared = [one for one in pair.shared if one in kept]
    of_group: dict[str, str] = {}
    for place in np.random.default_rng([seed, 1]).permutation(len(shared)):
        one = shared[place]
        of_group.setdefault(pair.first.groups.get(one, one), one)
    width = sum(_width(store, name) for store, name in sources)
    most = min(SAMPLES, max(_BYTES // (8 * width), LEAST_SAMPLES))
    return list(of_group.values())[:most]


def _width(store: ColumnStore, name: str) -> int:
    return next(info.width for info in store.columns() if info.name == name)


class _Reader:
    """Reads columns for `linear_cka`; stops where it takes too long."""

    def __init__(self, sources: Sequence[tuple[ColumnStore, str]], ids: Sequence[str]) -> None:
        self._sources, self._ids = sources, ids
        self._began = monotonic()

    def __call__(self, column: int, rows: Ints) -> Floats:
        spent = monotonic() - self._began
        if column and spent / column * len(self._sources) > _SECONDS:
            raise _TooSlow
        store, name = self._sources[column]
        return store.read(name, [self._ids[i] for i in rows]).numpy().astype(np.float64)


def finding(found: Alike) -> Finding | None:
    """What the similarity says, in a sentence; None where no number is defined."""
    partners = found.partners
    if not partners:
        return None
    first, second = found.pair.first.name, found.pair.second.name
    over = f"{plural(found.samples, 'sample')} of different groups"
    least = min(partners, key=lambda place: found.cka[place])
    values: dict[str, Cell] = {"run": second, **_numbers(found, least)}
    if found.pair.first.column is not None and found.pair.second.column is not None:
        text = f"Representations of {second} and {first}: {_said(found, least)}, over {over}."
        return Finding(text, values=values)
    if not found.common:
        best = max(partners, key=lambda place: found.cka[place])
        text = (
            f"Representations: {found.first[best[0]]} of {first} and {found.second[best[1]]} of "
            f"{second} are most alike: {_said(found, best)}, over {over}."
        )
        return Finding(text, values={"run": second, **_numbers(found, best)})
    if found.cka[least] >= _EQUAL:
        text = (
            f"Representations of {second} and {first} are alike at all of "
            f"{plural(len(partners), 'column')}: CKA at least {_EQUAL}, over {over}."
        )
        return Finding(text, values=values)
    text = (
        f"Representations of {second} and {first} are least alike at {found.first[least[0]]}: "
        f"{_said(found, least)}{_same_until(found)}, over {over}."
    )
    return Finding(text, values=values)


def _same_until(found: Alike) -> str:
    """The last column before the runs part, where they are equal up to there."""
    partners = found.partners
    parted = next(k for k, place in enumerate(partners) if found.cka[place] < _EQUAL)
    if not parted:
        return ""
    return f", and alike up to {found.first[partners[parted - 1][0]]} (at least {_EQUAL})"


def _said(found: Alike, place: tuple[int, int]) -> str:
    value, low, high = (float(array[place]) for array in (found.cka, found.low, found.high))
    known = np.isfinite(low) and np.isfinite(high)
    return f"CKA {value:.2f}" + (f" [{low:.2f}, {high:.2f}]" if known else "")


def _numbers(found: Alike, place: tuple[int, int]) -> dict[str, Cell]:
    return {
        "cka": _cell(found.cka[place]),
        "cka_low": _cell(found.low[place]),
        "cka_high": _cell(found.high[place]),
    }


def _cell(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def table(every: Sequence[Alike]) -> Table:
    """Each column of the first run with its counterpart, or with the nearest one."""
    rows: list[dict[str, Cell]] = [
        {
            "column": found.first[i],
            "run": found.pair.second.name,
            "other": found.second[j],
            **_numbers(found, (i, j)),
            "samples": found.samples,
        }
        for found in every
        for i, j in found.partners
    ]
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    title = "Columns with their counterparts, or with the most similar column"
    return Table("compare-similarity", title, columns, ("column", "run", "other"))


def figure(found: Alike, number: int) -> Figure:
    """CKA of all columns of the one run with all of the other."""
    first, second = found.pair.first.name, found.pair.second.name
    return Figure(
        name=f"similarity-{number}",
        title=f"similarity of the columns of {first} (rows) and {second} (linear CKA)",
        kind="heatmap",
        x=list(found.second),
        y=list(found.first),
        x_label=second,
        y_label="CKA",
        cells=[[_cell(value) for value in row] for row in found.cka],
        y_range=(0.0, 1.0),
    )
