from __future__ import annotations

import json
import mmap
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import Phase, settings

from vlmlens._locks import LOCK_FILE
from vlmlens.abc import ColumnBlock, Values
from vlmlens.abc.options import Options
from vlmlens.errors import StoreCorrupt, StoreError, StoreLocked
from vlmlens.testing import StorageTests
from vlmlens.testing._stores import block, expect_same, numbered, ragged, values
from vlmlens_plugins.storage._chunks import split_block
from vlmlens_plugins.storage.lmdb import LmdbOptions, LmdbStore, folder_of
from vlmlens_plugins.storage.manifests import LMDB, MEMORY
from vlmlens_plugins.storage.memory import MemoryStore, forget

PAGE = Path(__file__).parents[2] / "docs" / "storage-format.md"


def open_store(folder, mode="a", **options):
    return LmdbStore.open(str(folder), mode=mode, options=LmdbOptions(**options))


@pytest.fixture
def folder(tmp_path):
    """A closed store of three blocks, and a column added later."""
    place = tmp_path / "columns"
    with open_store(place) as store:
        for number in range(3):
            store.write(numbered(number))
        store.write(block(numbered(1).ids, later=values(9, "int64", rows=8)))
    return place


def questions(images, each, start=0):
    """Questions on some images, which have the same values of an image, one row and ragged."""
    random = np.random.default_rng(start)
    ids = tuple(f"question-{start + n}" for n in range(images * each))
    owners = np.arange(images * each) % images
    row = random.standard_normal((images, 5)).astype("<f4")
    lengths = random.integers(1, 4, images)
    parts = [random.standard_normal((n, 3)).astype("<f2") for n in lengths]
    return ColumnBlock(
        ids,
        {
            "vision/mean": Values(row[owners], "float32"),
            "vision/all": Values(
                np.concatenate([parts[owner] for owner in owners]),
                "float16",
                tuple(int(lengths[owner]) for owner in owners),
            ),
            "own": Values(random.standard_normal((len(ids), 2)).astype("<f4"), "float32"),
        },
    )


def patterns(**columns):
    """Ragged columns whose samples share entries: owner of each sample, rows of each entry."""
    random, made, samples = np.random.default_rng(0), {}, 0
    for name, (owners, rows) in columns.items():
        entries = [random.standard_normal((n, 2)).astype("<f4") for n in rows]
        made[name] = Values(
            np.concatenate([entries[owner] for owner in owners]),
            "float32",
            tuple(rows[owner] for owner in owners),
        )
        samples = len(owners)
    return ColumnBlock(tuple(f"pattern-{n}" for n in range(samples)), made)


def raw_put(folder, key, value):
    """Change a store behind vlmlens's back."""
    with lmdb.open(str(folder), map_size=1 << 24) as env, env.begin(write=True) as txn:
        assert txn.put(key, value)


def header(entry):
    return f'{{"ids": [], "lengths": [], "columns": [{entry}]}}'.encode()


def _without_coverage():
    """The environment of a child that may become another user, who cannot write coverage data."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def in_process(code, *arguments):
    """Run code in a fresh interpreter that has this one's modules, and give its output."""
    head = """
        import os, resource, sys
        from pathlib import Path
        from vlmlens.errors import *
        from vlmlens.testing._stores import *
        from vlmlens_plugins.storage.lmdb import LmdbOptions, LmdbStore
        def open_store(folder, mode="a", **options):
            return LmdbStore.open(str(folder), mode=mode, options=LmdbOptions(**options))
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(head) + textwrap.dedent(code)]
        + [str(argument) for argument in arguments],
        env=_without_coverage()
        | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestPage:
    def test_its_code_reads_every_column(self, folder):
        with open_store(folder) as store:
            store.write(questions(2, 4))
            store.write(
                patterns(
                    one=([0, 0, 1, 0, 2], [2, 1, 3]),
                    other=([0, 1, 1, 2, 0], [1, 0, 2]),
                    third=([0, 1, 2, 3, 4], [3, 1, 0, 2, 1]),
                )
            )
            names = [column.name for column in store.columns()]
        assert len(names) == 9
        code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
        report = """
import sys
for name in sys.argv[2:]:
    ids, arrays = zip(*read_column(sys.argv[1], name))
    array = np.concatenate(arrays)
    lengths = [len(each) for each in arrays]
    print(json.dumps([ids, array.tobytes().hex(), str(array.dtype), array.shape, lengths]))
assert not [name for name in sys.modules if name.startswith("vlmlens")]
"""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code + report, str(folder), *names],
            capture_output=True,
            text=True,
            check=True,
        )
        with open_store(folder, "r") as store:
            for name, line in zip(names, done.stdout.splitlines(), strict=True):
                wanted = store.read(name)
                ids, bits, dtype, shape, lengths = json.loads(line)
                assert ids == store.ids(name)
                assert bits == wanted.array.tobytes().hex()
                assert (dtype, tuple(shape)) == (str(wanted.array.dtype), wanted.array.shape)
                assert tuple(lengths) == (wanted.lengths or (1,) * len(ids))

    def test_its_code_is_short(self):
        text = PAGE.read_text(encoding="utf-8")
        claim, code = re.search(
            r"(\w+) lines of Python:\n\n```python\n(.*?)```", text, re.DOTALL
        ).groups()
        lines = [line for line in code.splitlines() if line.strip()]
        assert (claim, len(lines)) == ("Fifteen", 15)
        assert max(map(len, lines)) <= 100
        assert ";" not in code


class TestShared:
    """Samples with equal values share them."""

    def test_values_stand_once_and_read_as_written(self, tmp_path):
        given = questions(3, 40)
        with open_store(tmp_path) as store:
            store.write(given)
            for name, wanted in given.columns.items():
                expect_same(store.read(name), wanted, name)
                some = [100, 3, 77, 0, 3, 119]
                ids = [given.ids[i] for i in some]
                expect_same(store.read(name, ids), wanted.take(some), name)
                pairs = list(store.iterate(name))
                assert [sample for sample, _ in pairs] == list(given.ids)
                for (_, mine), theirs in zip(pairs, wanted.per_sample(), strict=True):
                    assert mine.tobytes() == theirs.tobytes()
            sizes = {check.column: check.bytes for check in store.verify()}
            assert not any(check.problem for check in store.verify())
        assert sizes["vision/mean"] == 3 * 5 * 4
        assert sizes["own"] == 120 * 2 * 4
        rows = sum(given.columns["vision/all"].lengths[:3])
        assert sizes["vision/all"] == rows * 3 * 2

    def test_single_rows_of_a_shared_chunk(self, tmp_path):
        given = questions(3, 4)
        with open_store(tmp_path) as store:
            store.write(given)
            for i, sample in enumerate(given.ids):
                for name, wanted in given.columns.items():
                    expect_same(store.read(name, [sample]), wanted.take([i]), name)

    def test_what_only_looks_alike_is_kept_apart(self, tmp_path):
        array = np.zeros((6, 64), "<f4")
        array[1, -1] = 1
        array[3, 10] = -0.0
        array[5, -1] = 1
        ragged = Values(np.zeros((7, 64), "<f4"), "float32", (1, 2, 0, 1, 2, 1))
        given = block(tuple("abcdef"), a=Values(array, "float32"), b=ragged)
        with open_store(tmp_path) as store:
            store.write(given)
            for name, wanted in given.columns.items():
                expect_same(store.read(name), wanted, name)

    def test_a_flipped_bit_is_found(self, tmp_path):
        with open_store(tmp_path) as store:
            store.write(questions(2, 3))
        with lmdb.open(str(tmp_path), map_size=1 << 24) as env, env.begin(write=True) as txn:
            key = b"v" + bytes(8)
            value = bytearray(txn.get(key))
            value[0] ^= 1
            assert txn.put(key, bytes(value))
        with open_store(tmp_path, "r") as store:
            problems = [check.column for check in store.verify() if check.problem]
        assert problems == ["vision/mean"]


def make_old(folder, version):
    """Turn a store into one of an older format version, which has no seal."""
    with lmdb.open(str(folder), map_size=1 << 24) as env, env.begin(write=True) as txn:
        record = json.loads(txn.get(b"meta"))
        assert record["version"] == 3
        assert txn.put(b"meta", json.dumps({**record, "version": version}).encode())
        assert txn.delete(b"seal")


class TestFormat:
    def test_newer_version_is_refused_by_name(self, folder):
        raw_put(folder, b"meta", b'{"format": "vlmlens-columns", "version": 4, "meta": {}}')
        raw_put(folder, b"seal", b"of another kind")
        for mode in ("r", "a"):
            with pytest.raises(StoreError, match=r"format version 4.*reads up to 3.*Update"):
                open_store(folder, mode)

    @pytest.mark.parametrize("record", [b"no json", b"[]", b'{"format": "other", "version": 1}'])
    def test_other_records_are_foreign(self, folder, record):
        make_old(folder, 2)
        raw_put(folder, b"meta", record)
        with pytest.raises(StoreError, match="was not written by vlmlens"):
            open_store(folder, "r")

    def test_another_programs_database_is_foreign_and_untouched(self, tmp_path):
        raw_put(tmp_path, b"key", b"value")
        with pytest.raises(StoreError, match="was not written by vlmlens"):
            open_store(tmp_path)
        with lmdb.open(str(tmp_path)) as env, env.begin() as txn:
            assert [key for key, _ in txn.cursor()] == [b"key"]

    def test_engine_is_the_common_one(self, folder):
        magic_and_version = (folder / "data.mdb").read_bytes()[16:24]
        assert magic_and_version == bytes.fromhex("dec0efbe01000000")

    @pytest.mark.parametrize("version", [1, 2])
    def test_an_older_store_is_read_and_sealed_by_the_next_write(self, folder, version):
        make_old(folder, version)
        with open_store(folder) as store:
            assert len(store.ids("a/last")) == 24
            assert not any(check.problem for check in store.verify())
        with lmdb.open(str(folder), readonly=True) as env, env.begin() as txn:
            assert txn.get(b"seal") is None
        with open_store(folder) as store:
            store.write(questions(2, 4))
            assert store.get_meta() == {}
        with lmdb.open(str(folder), readonly=True) as env, env.begin() as txn:
            assert json.loads(txn.get(b"meta"))["version"] == 3
            seal = json.loads(txn.get(b"seal"))
        assert (seal["columns"], seal["chunks"]) == (6, 5)
        with open_store(folder, "r") as store:
            expect_same(store.read("a/last", numbered(2).ids), numbered(2).columns["a/last"], "a")

    def test_a_store_without_its_seal(self, folder):
        with lmdb.open(str(folder), map_size=1 << 24) as env, env.begin(write=True) as txn:
            assert txn.delete(b"seal")
        with pytest.raises(StoreCorrupt, match="seal is missing"):
            open_store(folder, "r")


def reversed_ids(txn):
    header = json.loads(txn.get(b"h" + bytes(4)))
    assert txn.put(b"h" + bytes(4), json.dumps({**header, "ids": header["ids"][::-1]}).encode())


def half_as_wide(txn):
    """float32 becomes twice as many float16: the values' size and checksum stay."""
    column = json.loads(txn.get(b"c" + bytes(4)))
    column |= {"dtype": "float16", "width": 2 * column["width"]}
    assert txn.put(b"c" + bytes(4), json.dumps(column).encode())


def swapped_chunks(txn):
    one, two = b"h" + bytes(4), b"h" + bytes([0, 0, 0, 1])
    first, second = txn.get(one), txn.get(two)
    assert txn.put(one, second)
    assert txn.put(two, first)


class TestRecords:
    """What the seal covers: everything that is not a value."""

    @pytest.mark.parametrize(
        "damage",
        [
            pytest.param(lambda txn: txn.delete(b"h" + bytes([0, 0, 0, 1])), id="a chunk less"),
            pytest.param(lambda txn: txn.delete(b"h" + bytes([0, 0, 0, 3])), id="the last less"),
            pytest.param(lambda txn: txn.delete(b"c" + bytes([0, 0, 0, 2])), id="a column less"),
            pytest.param(lambda txn: txn.delete(b"meta"), id="no record"),
            reversed_ids,
            half_as_wide,
            swapped_chunks,
        ],
    )
    @pytest.mark.parametrize("check", [False, True])
    def test_damage_is_found(self, folder, damage, check):
        with lmdb.open(str(folder), map_size=1 << 24) as env, env.begin(write=True) as txn:
            damage(txn)
        for mode in ("r", "a"):
            with pytest.raises(StoreCorrupt, match="damaged"):
                open_store(folder, mode, check=check)

    def test_every_flipped_bit_is_found(self, folder):
        """Of all records but values: the store does not open."""
        with lmdb.open(str(folder)) as env, env.begin() as txn:
            records = [(bytes(k), bytes(v)) for k, v in txn.cursor() if k[:1] != b"v"]
        assert len(records) == 9
        random = np.random.default_rng(0)
        for number in range(12 * len(records)):
            key, value = records[number % len(records)]
            bit = int(random.integers(8 * len(value)))
            changed = bytearray(value)
            changed[bit // 8] ^= 1 << bit % 8
            raw_put(folder, key, bytes(changed))
            with pytest.raises(StoreError) as found:
                open_store(folder, "r")
            assert "already open" not in str(found.value)
            raw_put(folder, key, value)
        open_store(folder, "r").close()

    def test_a_reader_sees_the_damage_that_happens_later(self, folder):
        with open_store(folder, "r") as reader:
            assert len(reader.ids("a/last")) == 24
            code = """
            with open_store(sys.argv[1]) as store:
                store.write(numbered(3))
            import lmdb
            with lmdb.open(sys.argv[1], map_size=1 << 24) as env, env.begin(write=True) as txn:
                assert txn.delete(b"h" + bytes([0, 0, 0, 4]))
            """
            in_process(code, folder)
            with pytest.raises(StoreCorrupt, match="5 records of chunks were written, and 4"):
                reader.ids("a/last")

    @pytest.mark.parametrize("entries", [b"", b"empty"])
    def test_an_emptied_file(self, tmp_path, entries):
        if entries:
            with lmdb.open(str(tmp_path)):
                pass
        else:
            (tmp_path / "data.mdb").write_bytes(b"")
        with pytest.raises(StoreCorrupt, match=r"data.mdb in .* is empty"):
            open_store(tmp_path, "r")

    def test_damaged_pages_are_errors_of_the_store(self, folder):
        """LMDB's own exceptions do not reach the caller."""
        data = bytearray((folder / "data.mdb").read_bytes())
        found = set()
        for page in range(2, len(data) // 4096):
            bad = bytearray(data)
            bad[4096 * page + 10 : 4096 * page + 12] = b"\x40\x00"  # the page's kind
            (folder / "data.mdb").write_bytes(bad)
            try:
                with open_store(folder, "r") as store:
                    list(store.verify())
                    for column in store.columns():
                        store.read(column.name)
            except StoreError as error:
                found.add(type(error).__name__)
        assert "StoreCorrupt" in found


class TestDamage:
    def test_a_flipped_bit_names_column_and_chunk(self, folder):
        wanted = numbered(1).columns["a/last"].array.tobytes()
        data = bytearray((folder / "data.mdb").read_bytes())
        data[data.index(wanted) + 1000] ^= 4
        (folder / "data.mdb").write_bytes(data)
        with open_store(folder, "r") as store:
            problems = [(chunk.column, chunk.first, chunk.problem) for chunk in store.verify()]
            assert [name for *name, problem in problems if problem] == [["a/last", "sample 1.0"]]
            assert len(problems) == 7
        with open_store(folder, "r", check=True) as store:
            for action in (store.read, lambda name: list(store.iterate(name))):
                with pytest.raises(StoreCorrupt, match=r"'a/last', chunk 1 .*'sample 1\.0'"):
                    action("a/last")
            expect_same(
                store.read("a/last", numbered(2).ids),
                numbered(2).columns["a/last"],
                "another chunk",
            )
            assert len(store.read("b/all")) == 24

    @pytest.mark.parametrize("value", [None, b"short"])
    def test_a_value_that_is_missing_or_cut(self, folder, value):
        key = b"v" + bytes([0, 0, 0, 0, 0, 0, 0, 2])
        with lmdb.open(str(folder), map_size=1 << 24) as env, env.begin(write=True) as txn:
            assert txn.delete(key) if value is None else txn.put(key, value)
        with open_store(folder, "r") as store, pytest.raises(StoreCorrupt, match="chunk 2"):
            store.read("a/last")

    @pytest.mark.parametrize(
        ("key", "record"),
        [
            (b"h", b"{"),
            (b"h", b"[]"),
            (b"h", b"{}"),
            (b"h", b'{"ids": ["a"], "lengths": [], "columns": [{"number": 0}]}'),
            (
                b"h",
                header('{"number": 7, "crc32": 0, "lengths": null}'),
            ),
            (
                b"h",
                b'{"ids": [], "lengths": [], "columns": [{"number": 0, "crc32": 0, "lengths": 3}]}',
            ),
            (b"h", header('{"number": 1, "crc32": 0, "lengths": null}')),
            (b"h", b'{"ids": [7], "lengths": [], "columns": []}'),
            (
                b"h",
                b'{"ids": ["a"], "lengths": [[1099511627776000]], "columns": '
                b'[{"number": 1, "crc32": 0, "lengths": 0}]}',
            ),
            (
                b"h",
                b'{"ids": ["a"], "lengths": [[1, 2]], "columns": '
                b'[{"number": 1, "crc32": 0, "lengths": 0}]}',
            ),
            (
                b"h",
                b'{"ids": ["a", "b"], "lengths": [], "orders": [[1, 0]], "columns": '
                b'[{"number": 0, "crc32": 0, "lengths": null, "order": 0}]}',
            ),
            (b"h", b"[" * 100_000),
            (b"c", b'{"number": 0, "name": "x", "dtype": "int64", "width": -1, "ragged": false}'),
            (b"c", b'{"number": 0, "name": "x"}'),
            (b"c", b'{"number": 0, "name": "x", "dtype": "float8", "width": 1, "ragged": false}'),
            (b"c", b'{"number": 5, "name": "x", "dtype": "int64", "width": 1, "ragged": false}'),
        ],
    )
    @pytest.mark.parametrize("version", [2, 3])
    def test_damaged_records(self, folder, key, record, version):
        """Also of a store without a seal, such as one that somebody made to do harm."""
        if version == 2:
            make_old(folder, version)
        raw_put(folder, key + bytes(4), record)
        with pytest.raises(StoreCorrupt, match=r"record of (chunk|column) 0 is damaged"):
            open_store(folder, "r")

    @pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
    def test_a_file_cut_short_is_an_error_and_no_crash(self, folder, part):
        size = (folder / "data.mdb").stat().st_size
        os.truncate(folder / "data.mdb", int(size * part))
        with pytest.raises(StoreCorrupt, match="cut short"):
            open_store(folder, "r")

    def test_a_file_that_is_no_database(self, tmp_path):
        (tmp_path / "data.mdb").write_bytes(b"hello" * 5000)
        with pytest.raises(StoreCorrupt, match="not an LMDB file"):
            open_store(tmp_path, "r")

    def test_a_failed_opening_leaves_no_lock(self, folder):
        whole = (folder / "data.mdb").read_bytes()
        (folder / "data.mdb").write_bytes(b"hello" * 5000)
        with pytest.raises(StoreCorrupt):
            open_store(folder)
        (folder / "data.mdb").write_bytes(whole)
        open_store(folder).close()


class TestSpace:
    def test_map_grows_under_reading_threads(self, tmp_path):
        wrong, stop = [], threading.Event()

        def read():
            with open_store(tmp_path, "r") as store:
                while not stop.is_set():
                    for column in store.columns():
                        if len(store.read(column.name)) % 8:
                            wrong.append(column)

        with open_store(tmp_path, map_size=1 << 16) as store:
            threads = [threading.Thread(target=read) for _ in range(3)]
            for thread in threads:
                thread.start()
            for number in range(40):
                store.write(numbered(number))
            stop.set()
            for thread in threads:
                thread.join()
            assert not wrong
            for number in range(40):
                for name, wanted in numbered(number).columns.items():
                    expect_same(store.read(name, numbered(number).ids), wanted, name)

    def test_reader_follows_another_process_that_grows(self, tmp_path):
        open_store(tmp_path).close()
        write = "with open_store(sys.argv[1]) as s:\n    s.write(numbered(0, width=20000))"
        with open_store(tmp_path, "r", map_size=1 << 16) as reader:
            assert reader.columns() == []
            in_process(write, tmp_path)
            wanted = numbered(0, width=20000)
            expect_same(reader.read("b/all"), wanted.columns["b/all"], "grown elsewhere")

    @pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
    def test_limited_address_space(self, tmp_path):
        """1 TiB cannot be mapped: the map starts small and grows until the limit is reached."""
        out = in_process(
            """
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + (200 << 20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            with open_store(sys.argv[1], sync=False) as store:
                done = 0
                try:
                    while True:
                        store.write(block([str(done)], x=values(done, rows=1, width=2 << 20)))
                        done += 1
                except StoreFull as error:
                    assert "ulimit -v" in str(error), error
                for number in (0, done - 1):
                    wanted = values(number, rows=1, width=2 << 20)
                    expect_same(store.read("x", [str(number)]), wanted, "row")
                assert len(store.ids("x")) == done
            print(done)
            """,
            tmp_path,
        )
        assert int(out) > 8

    @pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's malloc")
    def test_memory_of_a_write_is_used_by_the_next(self, tmp_path):
        """Where it is given back, each write takes a page fault for each of its pages."""
        out = in_process(
            """
            given = {str(n): values(n, rows=256, width=2048) for n in range(6)}
            with open_store(sys.argv[1]) as store:
                for number in range(5):
                    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                    store.write(block([f"{number}.{row}" for row in range(256)], **given))
                    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
            """,
            tmp_path,
        )
        pages = 6 * 256 * 2048 * 4 // mmap.PAGESIZE
        assert min(map(int, out.split())) < pages / 10, out

    def test_full_disk(self, tmp_path):
        """A limit on the file's size stands for the full disk; lifting it lets the run go on."""
        out = in_process(
            """
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, hard))
            with open_store(sys.argv[1]) as store:
                done = 0
                try:
                    while True:
                        store.write(numbered(done, width=1000))
                        done += 1
                except StoreFull as error:
                    assert "No space" in str(error), error
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
                assert len(store.ids("b/all")) == 8 * done
                store.write(numbered(done, width=1000))
                for number in range(done + 1):
                    wanted = numbered(number, width=1000)
                    for name, given in wanted.columns.items():
                        expect_same(store.read(name, wanted.ids), given, name)
            print(done)
            """,
            tmp_path,
        )
        assert int(out) > 5

    def test_options_are_checked(self):
        for size in (5, 10**20, 1e20, -1):
            with pytest.raises(ValueError, match="map_size"):
                LmdbOptions(map_size=size)


class TestChunks:
    def test_large_blocks_are_cut_between_samples(self):
        given = ColumnBlock(
            tuple("abcdef"),
            {
                "x": values(1, rows=6, width=10),
                "y": ragged(2, (1, 0, 9, 1, 1, 2), "float16", width=10),
            },
        )
        parts = list(split_block(given, 100))
        assert ["".join(ids) for ids, _ in parts] == ["ab", "c", "de", "f"]
        for name, wanted in given.columns.items():
            arrays = [columns[name].array for _, columns in parts]
            assert np.concatenate(arrays).tobytes() == wanted.array.tobytes()
        assert [columns["y"].lengths for _, columns in parts] == [(1, 0), (9,), (1, 1), (2,)]

    def test_stored_parts_read_as_one(self, tmp_path, monkeypatch):
        monkeypatch.setattr(split_block, "__defaults__", (1000, None))
        given = numbered(0)
        with open_store(tmp_path) as store:
            store.write(given)
            store.write(numbered(1))
            for name, wanted in given.columns.items():
                expect_same(store.read(name, given.ids), wanted, name)
        with lmdb.open(str(tmp_path)) as env, env.begin() as txn:
            assert sum(key.startswith(b"h") for key, _ in txn.cursor()) > 4

    def test_a_sample_above_lmdbs_limit(self, tmp_path):
        huge = np.broadcast_to(np.zeros((1, 1), "<f8"), (1, 1 << 30))
        with open_store(tmp_path) as store:
            with pytest.raises(StoreError, match="'a' has 8589934592 bytes"):
                store.write(block("a", x=Values(huge, "float64")))
            assert store.columns() == []

    def test_samples_without_rows(self, tmp_path):
        given = ragged(1, (0, 2, 0))
        with open_store(tmp_path) as store:
            store.write(block("abc", x=given))
            store.write(block("d", x=ragged(2, (0,))))
            expect_same(
                store.read("x", ["c", "b", "a"]), Values(given.array, "float32", (0, 2, 0)), "x"
            )
            assert [(name, len(rows)) for name, rows in store.iterate("x")] == [
                *zip("abcd", (0, 2, 0, 0), strict=True)
            ]

    def test_blocks_without_samples_or_columns_add_nothing(self, tmp_path):
        with open_store(tmp_path) as store:
            store.write(block("", x=Values(np.empty((0, 3), "<f4"), "float32")))
            store.write(block("ab"))
            assert store.columns() == []


class TestHandles:
    def test_locations(self, tmp_path):
        assert folder_of("runs/x/columns") == "runs/x/columns"
        assert folder_of("lmdb:///a%20b/c") == "/a b/c"
        for wrong in ("lmdb://host/a", "lmdb:", "lmdb:a"):
            with pytest.raises(StoreError, match="is not a place on this machine"):
                folder_of(wrong)

    def test_one_handle_whatever_the_path(self, tmp_path, monkeypatch):
        (tmp_path / "link").symlink_to(tmp_path / "columns")
        monkeypatch.chdir(tmp_path)
        with (
            open_store("columns") as store,
            open_store("link", "r") as linked,
            open_store(f"lmdb://{tmp_path}/columns", "r") as by_uri,
        ):
            store.write(block("a", x=values(1, rows=1)))
            assert linked.ids("x") == by_uri.ids("x") == ["a"]
            with pytest.raises(StoreLocked, match=str(os.getpid())):
                open_store("link")

    def test_writers_sync_wins_over_an_earlier_readers(self, tmp_path):
        open_store(tmp_path).close()
        with open_store(tmp_path, "r", sync=False) as reader, open_store(tmp_path) as store:
            store.write(block("a", x=values(1, rows=1)))
            assert reader.ids("x") == ["a"]
            assert store._environment._env.flags()["sync"]

    def test_closed_and_lazy(self, folder):
        store = open_store(folder, "r")
        rows = store.iterate("a/last")
        next(rows)
        store.close()
        for action in (store.columns, store.get_meta, lambda: store.read("a/last")):
            with pytest.raises(StoreError, match="closed"):
                action()

    def test_replaced_folder(self, folder):
        with open_store(folder, "r"):
            shutil.copytree(folder, folder.parent / "copy")
            shutil.rmtree(folder)
            (folder.parent / "copy").rename(folder)
            with pytest.raises(StoreError, match="was replaced"):
                open_store(folder)
        open_store(folder).close()

    def test_a_file_where_the_folder_should_be(self, tmp_path):
        (tmp_path / "columns").write_text("")
        with pytest.raises(StoreError, match="cannot be opened: File exists"):
            open_store(tmp_path / "columns")

    def test_lock_without_a_readable_owner(self, folder):
        import fcntl

        with (folder / LOCK_FILE).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(StoreLocked, match="Another process"):
                open_store(folder)

    def test_plain_options_are_the_defaults(self, tmp_path):
        LmdbStore.open(str(tmp_path), mode="a", options=Options()).close()

    def test_forked_child(self, tmp_path):
        """It leaves the parent's store alone, keeps no lock, and may open other stores."""
        out = in_process(
            """
            mine, other = Path(sys.argv[1], "mine"), Path(sys.argv[1], "other")
            with open_store(other) as store:
                store.write(numbered(0))
            store = open_store(mine)
            store.write(numbered(0))
            ready, go = os.pipe()
            if (child := os.fork()) == 0:
                os.close(go)
                for action in (store.columns, lambda: open_store(mine, "r")):
                    try:
                        action()
                    except StoreError as error:
                        print("forked" in str(error) and "spawn" in str(error), flush=True)
                store.close()
                with open_store(other) as own:
                    print(own.ids("a/last") == list(numbered(0).ids), flush=True)
                os.read(ready, 1)
                os._exit(0)
            store.write(numbered(1))
            store.close()
            with open_store(mine) as again:
                print(len(again.ids("a/last")) == 16, flush=True)
            os.close(go)
            print(os.waitpid(child, 0)[1] == 0)
            """,
            tmp_path,
        )
        assert out.replace("\n", "") == "True" * 5  # two processes write to it

    def test_folder_that_may_not_be_written(self):
        with tempfile.TemporaryDirectory() as place:
            Path(place).chmod(0o755)
            columns = Path(place) / "columns"
            with open_store(columns) as store:
                store.write(numbered(0))
            columns.chmod(0o555)
            for file in columns.iterdir():
                file.chmod(0o444)
            out = in_process(
                """
                with open_store(sys.argv[2]) as store:  # imports all while this user may read it
                    store.write(numbered(0))
                    expect_same(store.read("b/all"), numbered(0).columns["b/all"], "own")
                if os.getuid() == 0:
                    os.setuid(65534)
                with open_store(sys.argv[1], "r") as store:
                    expect_same(store.read("b/all"), numbered(0).columns["b/all"], "read-only")
                try:
                    open_store(sys.argv[1])
                except StoreError as error:
                    print(error)
                """,
                columns,
                Path(place) / "other",
            )
            columns.chmod(0o755)
        assert "cannot be opened: Permission denied" in out


class TestMemory:
    def test_forget(self):
        options = MemoryStore.Options()
        MemoryStore.open("memory test", mode="a", options=options).close()
        MemoryStore.open("memory test", mode="r", options=options).close()
        forget("memory test")
        with pytest.raises(StoreError, match="memory test"):
            MemoryStore.open("memory test", mode="r", options=options)

    def test_closed(self):
        store = MemoryStore.open("closed", mode="a", options=MemoryStore.Options())
        store.close()
        with pytest.raises(StoreError, match="closed"):
            store.columns()


class TestKitCatches:
    @pytest.fixture(autouse=True)
    def _as_found(self):
        """What is found need not be made short here."""
        settings.register_profile("as-found", settings.default, phases=(Phase.generate,))
        settings.load_profile("as-found")
        yield
        settings.load_profile("vlmlens")

    @pytest.mark.parametrize(
        ("store", "checks"),
        [
            ("DropsLastRow", {"round_trip", "ragged", "order", "random_sequences", "names"}),
            ("StoredOrder", {"order", "ragged", "names", "random_sequences"}),
            ("LosesPayloads", {"round_trip"}),
            ("HalfBlocks", {"atomicity"}),
            ("Overwrites", {"nothing_overwritten", "random_sequences"}),
            ("SharesMemory", {"copies"}),
            ("ForgetsGrowth", {"blocks"}),
            ("OverlapsBlocks", {"blocks", "ranges"}),
            ("WritesLater", {"reader_follows", "killed_writer", "random_crashes"}),
            ("TearsBlocks", {"atomicity"}),
        ],
    )
    def test_broken_stores(self, store, checks, monkeypatch):
        monkeypatch.syspath_prepend(Path(__file__).parent)
        sound = LMDB if store in ("WritesLater", "TearsBlocks") else MEMORY

        class Kit(StorageTests):
            manifest = replace(sound, target=f"_broken_stores:{store}")

        results = [Kit().run_check(name) for name in sorted(checks)]
        assert {result.name for result in results if result.outcome == "failed"} == checks

    def test_sound_stores_pass_without_pytest(self):
        class Kit(StorageTests):
            manifest = MEMORY

        results = Kit().run_checks()
        assert {result.outcome for result in results} == {"passed", "skipped"}
        assert {result.name for result in results if result.outcome == "skipped"} == {
            "other_process_locked",
            "concurrent_readers",
            "killed_writer",
            "random_crashes",
        }
