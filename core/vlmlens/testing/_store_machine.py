"""A random walk over a store beside a dictionary that says what it must hold."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from vlmlens.abc.storage import Array, ColumnBlock, Values
from vlmlens.errors import StoreError
from vlmlens.testing._checks import expect, expect_error
from vlmlens.testing._stores import expect_same, ragged, values

if TYPE_CHECKING:
    from vlmlens.testing._store_kit import StoreKit

_FORMS = {
    "a/last": ("float32", 3, False),
    "b/all": ("bfloat16", 2, True),
    "c/mean": ("float64", 1, False),
    "d/all": ("float16", 5, True),
}
_IDS = st.lists(st.integers(0, 40).map(str), min_size=1, max_size=6, unique=True)


def run_machine(kit: StoreKit, folder: Path) -> None:
    """Run the walk.

    Args:
        kit: Opens the stores.
        folder: An empty folder; each walk has a store of its own in it.
    """
    names = [
        name for name, form in _FORMS.items() if "ragged" in kit.manifest.offers or not form[2]
    ]

    class Machine(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            self.folder = Path(tempfile.mkdtemp(dir=folder))
            self.store = kit.open(self.folder)
            self.model: dict[str, dict[str, Array]] = {}
            self.writes = 0

        @rule(ids=_IDS, columns=st.sets(st.sampled_from(names), min_size=1), data=st.data())
        def write(self, ids: list[str], columns: set[str], data: st.DataObject) -> None:
            self.writes += 1
            given = {name: _draw(name, len(ids), self.writes, data) for name in sorted(columns)}
            block = ColumnBlock(tuple(ids), given)
            if any(name in self.model.get(column, {}) for column in columns for name in ids):
                expect_error(StoreError, lambda: self.store.write(block), "Overwriting")
                return
            self.store.write(block)
            for name, made in given.items():
                self.model.setdefault(name, {}).update(zip(ids, _parts(made), strict=True))

        @rule()
        def reopen(self) -> None:
            self.store.close()
            self.store = kit.open(self.folder)

        @rule(name=st.sampled_from(names), data=st.data())
        def read_some(self, name: str, data: st.DataObject) -> None:
            stored = list(self.model.get(name, {}))
            if stored:
                self.compare(name, data.draw(st.lists(st.sampled_from(stored), max_size=10)))

        @invariant()
        def everything_is_there(self) -> None:
            found = [column.name for column in self.store.columns()]
            expect(found == list(self.model), f"columns {found}, not {list(self.model)}")
            for name, rows in self.model.items():
                expect(self.store.ids(name) == list(rows), f"ids of {name}")
                self.compare(name, None)

        def compare(self, name: str, ids: Sequence[str] | None) -> None:
            dtype, _, several = _FORMS[name]
            rows = self.model[name]
            parts = [rows[sample] for sample in (rows if ids is None else ids)]
            array = np.concatenate([next(iter(rows.values()))[:0], *parts])
            lengths = tuple(len(part) for part in parts) if several else None
            expect_same(self.store.read(name, ids), Values(array, dtype, lengths), name)

        def teardown(self) -> None:
            if hasattr(self, "store"):
                self.store.close()

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=50,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def _draw(name: str, samples: int, seed: int, data: st.DataObject) -> Values:
    dtype, width, several = _FORMS[name]
    if not several:
        return values(seed, dtype, rows=samples, width=width)
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=samples, max_size=samples))
    return ragged(seed, lengths, dtype, width=width)


def _parts(given: Values) -> list[Array]:
    ends = np.cumsum(given.lengths or (1,) * len(given.array))[:-1]
    return np.split(given.array, ends)
