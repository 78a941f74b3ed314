"""StorageTests: the kit of storage backends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from vlmlens.abc.storage import DTYPES, ColumnBlock, ColumnStore, Values
from vlmlens.errors import ColumnNotFound, StoreError, StoreLocked
from vlmlens.testing._checks import expect, expect_error, skip
from vlmlens.testing._processes import Process
from vlmlens.testing._store_kit import StoreKit
from vlmlens.testing._stores import (
    block,
    expect_same,
    expect_same_array,
    expect_whole,
    numbered,
    ragged,
    select,
    three,
    values,
)


class StorageTests(StoreKit):
    """The conformance kit of storage backends.

    Subclass it as `Test...` and set `manifest`. Override `location` if stores are not in a folder,
    and `options` if the backend needs some. The manifest's `offers` decide what is checked:
    "ragged" (several rows per sample) and "durable" (other processes see what `write` stored, even
    if the writer is killed). A class in a file offers "durable" by an attribute `manifest`.
    """

    def check_round_trip(self, folder: Path) -> None:
        """Every dtype comes back bit for bit, before and after reopening."""
        given = {dtype: values(i, dtype, rows=20, width=7) for i, dtype in enumerate(DTYPES)}
        ids = tuple(f"s{i}" for i in range(20))
        with self.open(folder) as store:
            store.write(ColumnBlock(ids, given))
            for dtype, wanted in given.items():
                expect_same(store.read(dtype), wanted, f"{dtype}, by the writer")
        with self.open(folder, "r") as store:
            for dtype, wanted in given.items():
                expect_same(store.read(dtype), wanted, f"{dtype}, reopened")

    def check_ragged(self, folder: Path) -> None:
        """Samples with several rows come back with their lengths, in any order."""
        self._needs("ragged")
        given = ragged(1, (3, 1, 4, 2), "bfloat16")
        with self.open(folder) as store:
            store.write(block("abcd", x=given))
            expect_same(store.read("x"), given, "ragged, all")
            expect_same(store.read("x", ["c", "a"]), select(given, [2, 0]), "ragged, some")
            expect_same(store.read("x", []), select(given, []), "ragged, none")
            parts = list(store.iterate("x"))
        expect([name for name, _ in parts] == list("abcd"), "iterate: other ids")
        for (name, found), wanted in zip(parts, given.per_sample(), strict=True):
            expect_same_array(found, wanted, f"iterate, sample {name}")

    def check_order(self, folder: Path) -> None:
        """`ids` and `iterate` keep the written order; `read` keeps the order of its `ids`."""
        first, second = values(1, rows=4), values(2, rows=2)
        with self.open(folder) as store:
            store.write(block("zaqb", x=first))
            store.write(block("cA", x=second))
            everything = Values(np.concatenate([first.array, second.array]), "float32")
            expect(store.ids("x") == list("zaqbcA"), f"ids: {store.ids('x')}")
            expect_same(store.read("x"), everything, "all")
            for asked in ("Acbqaz", "zaqbcA", "bAz", "a", "", "zz", "zaqb", "aqbc"):
                wanted = select(everything, ["zaqbcA".index(name) for name in asked])
                expect_same(store.read("x", list(asked)), wanted, f"read {asked!r}")
            parts = list(store.iterate("x"))
        expect([name for name, _ in parts] == list("zaqbcA"), "iterate: other order")
        for (name, found), wanted_array in zip(parts, everything.per_sample(), strict=True):
            expect_same_array(found, wanted_array, f"iterate, sample {name}")

    def check_ranges(self, folder: Path) -> None:
        """`read_range` gives consecutive samples in written order, across blocks, to the end."""
        first, second, third = values(1, rows=4), values(2, rows=2), values(3, rows=3)
        names = "zaqbcAxyw"
        several = "ragged" in self.manifest.offers
        with self.open(folder) as store:
            for written, given in (("zaqb", first), ("cA", second), ("xyw", third)):
                store.write(block(written, x=given))
            if several:
                store.write(block("abc", r=ragged(4, (2, 1, 3))))
        everything = Values(np.concatenate([first.array, second.array, third.array]), "float32")
        with self.open(folder, "r") as store:
            for start, stop in ((0, 9), (0, 4), (1, 3), (3, 5), (2, 8), (5, 99), (9, 12), (4, 4)):
                ids, found = store.read_range("x", start, stop)
                expect(ids == list(names[start:stop]), f"range {start} to {stop}: ids {ids}")
                wanted = select(everything, range(9)[start:stop])
                expect_same(found, wanted, f"range {start} to {stop}")
            parts = list(store.blocks("x", 4))
            expect([len(ids) for ids, _ in parts] == [4, 4, 1], "blocks of other sizes")
            if several:
                ids, found = store.read_range("r", 1, 3)
                expect(ids == ["b", "c"], f"a range of ragged values: ids {ids}")
                expect_same(found, select(ragged(4, (2, 1, 3)), [1, 2]), "a range, ragged")
            wrong = partial(store.read_range, "llm.blok", 0, 1)
            expect_error(ColumnNotFound, wrong, "A range of an unknown column")

    def check_blocks(self, folder: Path) -> None:
        """Blocks of any size, one after the other, are the column, also if it grows meanwhile."""
        names = ["x", "r"] if "ragged" in self.manifest.offers else ["x"]
        with self.open(folder) as store:
            for number in range(5):
                store.write(three(number, names))
            for name, samples in product(names, (1, 2, 4, 7, 99)):
                expect_whole(store, name, store.blocks(name, samples))
            for number, name in enumerate(names, 5):
                begun = store.blocks(name, 4)
                first = next(begun)
                store.write(three(number, names))
                expect_whole(store, name, [first, *begun])

    def check_append(self, folder: Path) -> None:
        """Later blocks add samples, and add columns to samples that are stored."""
        with self.open(folder) as store:
            store.write(block("ab", z=values(1, rows=2)))
        with self.open(folder) as store:
            store.write(block("c", z=values(2, rows=1)))
            store.write(block("cb", y=values(3, "int64", rows=2, width=2)))
            found = [(c.name, c.dtype, c.width, c.ragged, c.samples) for c in store.columns()]
            wanted = [("z", "float32", 4, False, 3), ("y", "int64", 2, False, 2)]
            expect(found == wanted, f"columns: {found}, not {wanted}")
            expect(store.ids("y") == ["c", "b"], "ids of the later column")
            expect_same(store.read("z", ["c"]), values(2, rows=1), "a later sample")
            expect_same(store.read("y"), values(3, "int64", rows=2, width=2), "a later column")

    def check_atomicity(self, folder: Path) -> None:
        """If one column of a block is refused, nothing of the block is stored."""
        with self.open(folder) as store:
            store.write(block("a", x=values(1, rows=1), y=values(1, rows=1)))
            bad = block(
                "b", new=values(2, rows=1), x=values(2, rows=1), y=values(2, rows=1, width=9)
            )
            before = self._content(store)
            expect_error(StoreError, lambda: store.write(bad), "Another width")
            expect(self._content(store) == before, "A refused block left something behind.")
            store.write(block("b", x=values(2, rows=1)))
        with self.open(folder, "r") as store:
            expect(store.ids("x") == ["a", "b"], "A block after a refused one is not there.")

    def check_nothing_overwritten(self, folder: Path) -> None:
        """Writing a sample again to the same column is refused, and its value stays."""
        with self.open(folder) as store:
            store.write(block("ab", x=values(1, rows=2)))
            before = self._content(store)
            again = block("cb", y=values(3, rows=2), x=values(2, rows=2))
            error = expect_error(StoreError, lambda: store.write(again), "Writing a sample again")
            expect("'b'" in str(error), f"The error does not name the sample: {error}")
            expect(self._content(store) == before, "A sample was overwritten.")

    def check_bad_blocks(self, folder: Path) -> None:
        """Blocks that contradict themselves are refused."""
        x = values(1, rows=2)
        bad = {
            "An id twice": block("aa", x=x),
            "Fewer values than ids": block("abc", x=x),
            "An unknown dtype": block("ab", x=Values(x.array, "float8")),
            "Another numpy type": block("ab", x=Values(x.array.astype("<f8"), "float32")),
            "Big-endian bits": block("ab", x=Values(x.array.astype(">f4"), "float32")),
            "Three axes": block("ab", x=Values(x.array[:, None], "float32")),
            "Wrong lengths": block("ab", x=Values(x.array, "float32", (1, 2))),
        }
        with self.open(folder) as store:
            for what, given in bad.items():
                expect_error(StoreError, partial(store.write, given), what)
            expect(store.columns() == [], "A refused block left something behind.")

    def check_other_form(self, folder: Path) -> None:
        """A column keeps its dtype, width and raggedness."""
        with self.open(folder) as store:
            store.write(block("a", x=values(1, rows=1)))
            bad = {
                "Another dtype": values(2, "float16", rows=1),
                "Another width": values(2, rows=1, width=5),
                "Ragged rows": ragged(2, (1,)),
            }
            for what, given in bad.items():
                expect_error(StoreError, partial(store.write, block("b", x=given)), what)
            expect(store.ids("x") == ["a"], "A refused block left something behind.")

    def check_unknown_names(self, folder: Path) -> None:
        """Unknown columns and samples are errors that name them, and the nearest names."""
        with self.open(folder) as store:
            store.write(block("ab", **{"llm.block.3/last": values(1, rows=2)}))
            for action in (store.ids, store.read, lambda name: next(store.iterate(name))):
                wrong = partial(action, "llm.blok.3/last")
                error = expect_error(ColumnNotFound, wrong, "An unknown column")
                expect("llm.block.3/last" in str(error), f"No similar name is listed: {error}")
            error = expect_error(
                StoreError, lambda: store.read("llm.block.3/last", ["a", "q"]), "A missing sample"
            )
            expect("'q'" in str(error), f"The error does not name the sample: {error}")

    def check_names(self, folder: Path) -> None:
        """Names and ids may be long, empty, and in any script."""
        ids = (
            "",
            "a b/c\\d\n",
            "漢字 🦉 é",
            "x" * 5000,
            "x" * 4999 + "y",
            "e\u0301",
            "\x00",
            "1",
            "01",
        )
        names = ("llm.block.3/last", "層/最後", "p" * 5000, "p" * 4999 + "q")
        given = {name: values(i, rows=len(ids)) for i, name in enumerate(names)}
        with self.open(folder) as store:
            store.write(ColumnBlock(ids, given))
        with self.open(folder, "r") as store:
            expect([c.name for c in store.columns()] == list(names), "column names")
            for name, wanted in given.items():
                expect(store.ids(name) == list(ids), f"ids of {name[:20]!r}")
                back = store.read(name, ids[::-1])
                expect_same(back, select(wanted, range(len(ids))[::-1]), f"values of {name[:20]!r}")

    def check_empty(self, folder: Path) -> None:
        """An empty store has no columns and no record, and can be opened for reading."""
        with self.open(folder) as store:
            self._expect_empty(store)
        with self.open(folder, "r") as store:
            self._expect_empty(store)

    def check_meta(self, folder: Path) -> None:
        """The JSON record is replaced as a whole and survives reopening."""
        record = {"fingerprint": "é漢", "versions": {"torch": [2, 13]}, "none": None, "x": 0.1}
        with self.open(folder) as store:
            store.set_meta({"old": 1})
            store.set_meta(record)
            store.write(block("a", x=values(1, rows=1)))
            expect(store.get_meta() == record, "meta, by the writer")
            store.get_meta()["none"] = "changed"
            expect_error(StoreError, lambda: store.set_meta({"x": {1, 2}}), "Meta that is no JSON")
        with self.open(folder, "r") as store:
            expect(store.get_meta() == record, "meta, reopened")

    def check_missing_store(self, folder: Path) -> None:
        """Opening a missing store for reading is refused, and creates nothing."""
        for _ in range(2):
            expect_error(StoreError, lambda: self.open(folder, "r"), "Opening a missing store")

    def check_read_only(self, folder: Path) -> None:
        """A store opened for reading cannot be written to."""
        self.open(folder).close()
        with self.open(folder, "r") as store:
            given = block("a", x=values(1, rows=1))
            expect_error(StoreError, lambda: store.write(given), "Writing in mode 'r'")
            expect_error(StoreError, lambda: store.set_meta({}), "Setting meta in mode 'r'")
            expect(store.columns() == [], "Mode 'r' wrote.")

    def check_reader_follows(self, folder: Path) -> None:
        """A store opened for reading also sees what is written later."""
        with self.open(folder) as writer, self.open(folder, "r") as reader:
            for number in range(3):
                writer.write(block([str(number)], x=values(number, rows=1)))
                expect_same(reader.read("x", [str(number)]), values(number, rows=1), "a new sample")
            writer.close()
            expect(reader.ids("x") == ["0", "1", "2"], "ids after the writer was closed")

    def check_second_writer(self, folder: Path) -> None:
        """There is one writer at a time; after it closes, another can open the store."""
        with self.open(folder) as first:
            expect_error(StoreLocked, lambda: self.open(folder), "A second writer")
            first.write(block("a", x=values(1, rows=1)))
        self.open(folder).close()

    def check_close(self, folder: Path) -> None:
        """Closing twice is allowed, and does not close other handles."""
        first = self.open(folder)
        with self.open(folder, "r") as other:
            first.close()
            first.close()
            with self.open(folder) as second:
                second.write(block("a", x=values(1, rows=1)))
                first.close()
                expect(other.ids("x") == ["a"], "ids seen by another handle")

    def check_copies(self, folder: Path) -> None:
        """The store shares no memory with arrays that it received or returned."""
        wanted, mine = values(1, rows=2), values(1, rows=2)
        with self.open(folder) as store:
            store.write(block("ab", x=mine))
            mine.array[:] = 0
            for ids in (None, ["a"], ["a", "b"]):
                store.read("x", ids).array[:] = 0
            for _, array in store.iterate("x"):
                array[:] = 0
            expect_same(store.read("x"), wanted, "after changing arrays outside")

    def check_strided(self, folder: Path) -> None:
        """Transposed, reversed and strided arrays are stored with the right values."""
        base = values(1, rows=8, width=8).array
        given = {"t": base.T, "r": base[::-1], "s": base[:, ::2]}
        with self.open(folder) as store:
            for name, array in given.items():
                store.write(block("abcdefgh", **{name: Values(array, "float32")}))
                expect_same_array(store.read(name).array, np.ascontiguousarray(array), name)

    def check_random_sequences(self, folder: Path) -> None:
        """Random writes, reads and reopenings agree with a dictionary (needs Hypothesis)."""
        try:
            from vlmlens.testing._store_machine import run_machine
        except ImportError as error:
            raise skip(f"Hypothesis is not installed: {error}") from error
        run_machine(self, folder)

    def check_other_process_locked(self, folder: Path) -> None:
        """A writer in another process is refused; the error names the process that writes."""
        self._needs("durable")
        with self._process("write", folder) as writer:
            writer.wait_for(0)
            error = expect_error(StoreLocked, lambda: self.open(folder), "A second writer")
            expect(str(writer.pid) in str(error), f"The error names no process: {error}")

    def check_concurrent_readers(self, folder: Path) -> None:
        """Readers in other processes see only complete blocks while one process writes."""
        self._needs("durable")
        self.open(folder).close()
        with (
            self._process("read", folder) as one,
            self._process("read", folder) as two,
            self.open(folder) as store,
        ):
            for reader in (one, two):
                reader.wait_for(0)
            for number in range(20):
                store.write(numbered(number))
            for reader in (one, two):
                seen = reader.rest()
                expect(reader.returncode == 0, "A reader failed; see its traceback.")
                expect(seen[-1:] == ["20"], f"A reader saw {seen[-1:]} of 20 blocks.")

    def check_killed_writer(self, folder: Path) -> None:
        """After `kill -9`, every acknowledged block is complete, and writing can go on."""
        self._needs("durable")
        for acknowledged in (0, 7, 31):
            place = folder / str(acknowledged)
            place.mkdir()
            with self._process("write", place) as writer:
                writer.wait_for(acknowledged)
                writer.kill()
                rest = writer.rest()
            last = int(rest[-1]) if rest else acknowledged
            with self.open(place) as store:
                samples = {column.samples for column in store.columns()}
                whole = max(samples) // len(numbered(0).ids)
                expect(len(samples) == 1, f"A block is incomplete: {samples} samples.")
                expect(whole in (last + 1, last + 2), f"{last + 1} blocks written, {whole} found.")
                store.write(numbered(whole))
                for number in range(whole + 1):
                    for name, wanted in numbered(number).columns.items():
                        expect_same(store.read(name, numbered(number).ids), wanted, name)

    def check_random_crashes(self, folder: Path) -> None:
        """Random writes, kills, reopenings and readers in other processes (needs Hypothesis).

        A writer that is killed at any time leaves complete blocks, including all acknowledged ones.
        The next writer goes on after them, and readers see them the whole time.
        """
        self._needs("durable")
        try:
            from vlmlens.testing._crash_machine import run_machine
        except ImportError as error:
            raise skip(f"Hypothesis is not installed: {error}") from error
        run_machine(self, folder)

    # ------------------------------------------------------------------ parts

    def _expect_empty(self, store: ColumnStore) -> None:
        expect(store.columns() == [], "columns of an empty store")
        expect(store.get_meta() == {}, "meta of an empty store")
        expect_error(ColumnNotFound, partial(store.read, "x"), "An empty store's column")

    def _needs(self, offer: str) -> None:
        if offer not in self.manifest.offers:
            raise skip(f"{self.manifest.name} does not offer {offer!r}.")

    def _content(self, store: ColumnStore) -> list[object]:
        return [(c, store.ids(c.name), store.read(c.name).array.tobytes()) for c in store.columns()]

    @contextmanager
    def _process(self, action: str, folder: Path) -> Iterator[Process]:
        """A process that reads or writes. It is killed at the end."""
        process = self.start(action, folder)
        try:
            yield process
        finally:
            process.end()
