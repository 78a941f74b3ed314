"""Reading columns in blocks lists ids seldom, and reads no value that is not asked for."""

from __future__ import annotations

import sqlite3
from collections import Counter
from random import Random

import numpy as np
import pytest

from vlmlens.abc import ColumnBlock, ColumnStore, Values
from vlmlens.abc.options import Options
from vlmlens.errors import ColumnNotFound, StoreError
from vlmlens.registry import Registry
from vlmlens.stores.opening import open_named
from vlmlens.stores.selected import SelectedStore
from vlmlens.stores.sharded import ShardedStore
from vlmlens_plugins.storage.memory import MemoryStore, forget

NAME = "llm.block.0/last"


class Counting(MemoryStore):
    """Counts what it is asked for; with `plain`, it reads ranges as the base class does."""

    plain = False

    def __init__(self, data, mode):
        super().__init__(data, mode)
        self.asked = Counter()

    def ids(self, column):
        self.asked["listings"] += 1
        return super().ids(column)

    def read(self, column, ids=None):
        found = super().read(column, ids)
        self.asked["rows"] += len(found)
        return found

    def read_range(self, column, start, stop):
        self.asked["ranges"] += 1
        if self.plain:
            return ColumnStore.read_range(self, column, start, stop)
        return super().read_range(column, start, stop)


@pytest.fixture
def stored():
    """Makes stores of rows that are equal to their numbers."""
    made = []

    def make(numbers, column=NAME):
        name = f"blocks {len(made)}"
        store = Counting.open(name, mode="a", options=Options())
        made.append(name)
        write(store, numbers, column)
        return store

    yield make
    for name in made:
        forget(name)


def write(store, numbers, column=NAME):
    numbers = list(numbers)
    rows = np.array(numbers, np.float32)[:, None] * np.ones(2, np.float32)
    store.write(ColumnBlock(tuple(f"s{n}" for n in numbers), {column: Values(rows, "float32")}))


def passed(store, samples, column=NAME):
    """Numbers in the order of one pass in blocks; ids and rows must agree."""
    found = []
    for ids, values in store.blocks(column, samples):
        numbers = values.array[:, 0].astype(int).tolist()
        assert ids == [f"s{n}" for n in numbers]
        found += numbers
    return found


def test_the_default_lists_the_ids_twice_in_a_pass_at_most(stored):
    store = stored(range(1000))
    store.plain = True
    assert passed(store, 7) == list(range(1000))
    assert store.asked["listings"] <= 3
    assert store.asked["rows"] == 1000


def test_the_default_sees_what_was_added_since_the_last_pass(stored):
    store = stored(range(10))
    store.plain = True
    assert store.read_range(NAME, 8, 20)[0] == ["s8", "s9"]
    write(store, range(10, 14))
    assert store.read_range(NAME, 8, 20)[0] == [f"s{n}" for n in range(8, 14)]
    assert passed(store, 5) == list(range(14))


def test_the_default_keeps_columns_apart(stored):
    store = stored(range(6))
    store.plain = True
    write(store, range(5, -1, -1), "other/last")
    for start in (0, 2, 4):
        assert store.read_range(NAME, start, start + 2)[0] == [f"s{start}", f"s{start + 1}"]
        assert store.read_range("other/last", start, start + 1)[0] == [f"s{5 - start}"]


def test_a_view_of_samples_reads_only_them(stored):
    store = stored(range(500))
    view = SelectedStore(store, samples=["s1*"])
    wanted = [n for n in range(500) if str(n).startswith("1")]
    store.asked.clear()
    assert passed(view, 10) == wanted
    assert store.asked["rows"] == len(wanted)
    assert store.asked["listings"] <= 3
    store.asked.clear()
    assert [sample for sample, _ in view.iterate(NAME)] == [f"s{n}" for n in wanted]
    assert store.asked["rows"] == len(wanted)


def test_a_view_of_columns_asks_the_store_for_the_same_range(stored):
    store = stored(range(100))
    write(store, range(100), "other/last")
    view = SelectedStore(store, sites=[NAME])
    store.asked.clear()
    assert passed(view, 30) == list(range(100))
    assert store.asked["listings"] == 0
    with pytest.raises(ColumnNotFound):
        view.read_range("other/last", 0, 1)


def test_only_the_parts_of_a_range_are_read(stored):
    parts = [stored(range(n, n + 100)) for n in (0, 100, 200)]
    run = ShardedStore(parts)
    assert passed(run, 40) == list(range(300))
    assert sum(part.asked["rows"] for part in parts) == 300
    assert sum(part.asked["listings"] for part in parts) == 0
    for part in parts:
        part.asked.clear()
    assert run.read_range(NAME, 120, 130)[0] == [f"s{n}" for n in range(120, 130)]
    assert [part.asked["ranges"] for part in parts] == [0, 1, 0]
    assert run.read_range(NAME, 95, 205)[0] == [f"s{n}" for n in range(95, 205)]
    assert len(run.read_range(NAME, 300, 400)[1]) == 0


def test_overlapping_parts_are_listed_seldom_and_read_once(stored):
    parts = [stored(range(0, 200, 2)), stored(range(150)), stored(range(100, 400))]
    run = ShardedStore(parts, overlapping=True)
    wanted = list(dict.fromkeys([*range(0, 200, 2), *range(150), *range(100, 400)]))
    assert passed(run, 16) == wanted
    assert sum(part.asked["rows"] for part in parts) == 400
    assert max(part.asked["listings"] for part in parts) <= 5


@pytest.mark.parametrize("overlapping", [False, True])
def test_reads_of_some_samples_list_the_ids_once(stored, overlapping):
    parts = [stored(range(n, n + 50)) for n in (0, 50)]
    run = ShardedStore(parts, overlapping=overlapping)
    random = Random(0)
    for _ in range(20):
        numbers = random.choices(range(100), k=9)
        found = run.read(NAME, [f"s{n}" for n in numbers])
        assert found.array[:, 0].tolist() == numbers
    assert [part.asked["listings"] for part in parts] == [1, 1]
    write(parts[1], [100])
    assert run.read(NAME, ["s100", "s3"]).array[:, 0].tolist() == [100, 3]
    with pytest.raises(StoreError, match="'s101' has no value"):
        run.read(NAME, ["s101"])


@pytest.mark.parametrize("storage", ["lmdb", "sqlite", "zarr"])
def test_ranges_in_any_order(tmp_path, storage):
    random = Random(1)
    with open_named(Registry.default(), storage, str(tmp_path / "x"), mode="a") as store:
        for start in range(0, 60, 5):
            names = [NAME, "other/last"] if start % 2 else ["other/last", NAME]
            for name in names:
                write(store, range(start, start + 5), name)
        for _ in range(60):
            name = random.choice((NAME, "other/last"))
            start, length = random.randrange(65), random.randrange(20)
            ids, values = store.read_range(name, start, start + length)
            assert values.array[:, 0].tolist() == list(range(60))[start : start + length]
            assert ids == [f"s{n}" for n in range(60)][start : start + length]
        assert passed(store, 7) == list(range(60))


def test_sqlite_goes_on_without_counting_rows(tmp_path, monkeypatch):
    """A range that follows the last one asks the database for no row before it."""
    counted = []
    with open_named(Registry.default(), "sqlite", str(tmp_path / "x.db"), mode="a") as store:
        write(store, range(40))
        tables = type(store._tables)
        before = tables._before

        def counting(self, db: sqlite3.Connection, column, start):
            db.set_trace_callback(counted.append)
            try:
                return before(self, db, column, start)
            finally:
                db.set_trace_callback(None)

        monkeypatch.setattr(tables, "_before", counting)
        assert passed(store, 6) == list(range(40))
        assert counted == []
        store.read_range(NAME, 3, 5)
        assert len(counted) == 1
