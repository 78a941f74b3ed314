from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr

from vlmlens.abc import Values
from vlmlens.errors import StoreCorrupt, StoreError, StoreLocked
from vlmlens.testing._stores import block, expect_same, numbered, values
from vlmlens_plugins.storage.zarr import ZarrOptions, ZarrStore

PAGE = Path(__file__).parents[2] / "docs" / "storage-format.md"


def open_store(location, mode="a", **options):
    return ZarrStore.open(str(location), mode=mode, options=ZarrOptions(**options))


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "columns"
    with open_store(place) as store:
        for number in range(3):
            store.write(numbered(number))
    return place


class TestArrays:
    def test_any_zarr_reader_reads_a_column(self, folder):
        with open_store(folder, "r") as store:
            wanted = store.read("a/last")
        group = zarr.open_group(folder / "columns", mode="r")
        array = group["0"]
        assert array.attrs["name"] == "a/last"
        assert array[:].tobytes() == wanted.array.tobytes()
        assert group["1"].attrs["dtype"] == "bfloat16"

    def test_the_pages_reader(self, folder):
        code = re.search(
            r"```python\n(import json\nfrom pathlib import Path\n\nimport zarr.*?)```",
            PAGE.read_text(),
            re.DOTALL,
        )
        report = """
import sys
for name in ("a/last", "b/all"):
    ids, array, lengths = read_column(sys.argv[1], name)
    print(json.dumps([ids, array.tobytes().hex(), lengths]))
assert not [name for name in sys.modules if name.startswith("vlmlens")]
"""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code[1] + report, str(folder)],
            capture_output=True,
            text=True,
            check=True,
        )
        with open_store(folder, "r") as store:
            for name, line in zip(("a/last", "b/all"), done.stdout.splitlines(), strict=True):
                ids, bits, lengths = json.loads(line)
                wanted = store.read(name)
                assert ids == store.ids(name)
                assert bits == wanted.array.tobytes().hex()
                assert tuple(lengths) == (wanted.lengths or (1,) * len(ids))

    def test_blocks_of_one_size_rewrite_nothing(self, tmp_path):
        """A Zarr chunk is as long as the first block, where that is not tiny."""
        with open_store(tmp_path) as store:
            for number in range(3):
                given = values(number, rows=64, width=1024)
                store.write(block([f"{number}.{i}" for i in range(64)], x=given))
        chunks = sorted((tmp_path / "columns" / "0" / "c").rglob("*"))
        files = [path for path in chunks if path.is_file()]
        assert [path.stat().st_size for path in files] == [64 * 1024 * 4] * 3

    @pytest.mark.parametrize("bits", [0x80000000, 0, 0x7FC00001])
    def test_chunks_of_one_value(self, bits, tmp_path):
        """-0.0 equals the fill value and is another number."""
        array = np.full((20, 1024), bits, "<u4").view("<f4")
        with open_store(tmp_path) as store:
            store.write(block([str(i) for i in range(20)], x=Values(array, "float32")))
            assert store.read("x").array.tobytes() == array.tobytes()
            assert store.read("x", ["7"]).array.tobytes() == array[:1].tobytes()

    def test_many_small_blocks(self, tmp_path):
        with open_store(tmp_path, sync=False) as store:
            for number in range(30):
                store.write(block([str(number)], x=values(number, rows=1, width=3)))
            found = store.read("x").array
        wanted = np.concatenate([values(n, rows=1, width=3).array for n in range(30)])
        assert found.tobytes() == wanted.tobytes()


class TestCommits:
    def test_rows_without_a_commit_do_not_count(self, folder):
        """What a writer killed before its commit left is overwritten by the next one."""
        (folder / "commits" / "00000002.json").unlink()
        (folder / "seal.json").unlink()
        with open_store(folder) as store:
            assert len(store.ids("a/last")) == 16
            other = numbered(7)
            store.write(other)
            for number in (0, 1, 7):
                for name, wanted in numbered(number).columns.items():
                    expect_same(store.read(name, numbered(number).ids), wanted, name)

    def test_a_column_without_a_commit(self, tmp_path):
        with open_store(tmp_path) as store:
            store.write(block("ab", x=values(1, rows=2)))
        (tmp_path / "commits" / "00000000.json").unlink()
        (tmp_path / "seal.json").unlink()
        with open_store(tmp_path) as store:
            assert store.columns() == []
            given = values(2, "int64", rows=1, width=9)
            store.write(block("c", y=given))
            expect_same(store.read("y"), given, "another column in its place")

    @pytest.mark.parametrize(
        "content", [b"", b"{", b"[]", b"{}", b'{"columns": [{}], "chunks": []}',
                    b'{"columns": [], "chunks": [{"ids": ["q"]}]}']
    )  # fmt: skip
    def test_damaged_commits(self, folder, content):
        (folder / "commits" / "00000001.json").write_bytes(content)
        with pytest.raises(StoreCorrupt, match="damaged"):
            open_store(folder, "r")

    def test_damaged_rows(self, folder):
        wanted = numbered(1).columns["a/last"].array
        (file,) = [path for path in (folder / "columns" / "0" / "c").rglob("*")
                   if path.is_file() and wanted.tobytes() in path.read_bytes()]  # fmt: skip
        data = bytearray(file.read_bytes())
        data[data.index(wanted.tobytes()) + 5] ^= 1
        file.write_bytes(data)
        for ids in (None, ["sample 1.3"]):
            with open_store(folder, "r") as store:
                with pytest.raises(StoreCorrupt, match=r"'a/last', chunk 1"):
                    store.read("a/last", ids)
                assert len(store.read("a/last", ["sample 0.0"])) == 1

    def test_lost_rows(self, folder):
        shutil.rmtree(folder / "columns" / "0" / "c")
        with open_store(folder, "r") as store, pytest.raises(StoreCorrupt):
            store.read("a/last")

    def test_full_disk(self, tmp_path):
        code = """
        import resource, signal, sys
        from vlmlens.errors import StoreFull
        from vlmlens.testing._stores import *
        from vlmlens_plugins.storage.zarr import *
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with ZarrStore.open(sys.argv[1], mode="a", options=ZarrOptions()) as store:
            store.write(block("ab", x=values(1, rows=2, width=1000)))
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
            big = block("cd", x=values(2, rows=2, width=1000), y=values(3, rows=2, width=300_000))
            try:
                store.write(big)
            except StoreFull as error:
                print("No space" in str(error))
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            print(store.ids("x"), [c.name for c in store.columns()])
            store.write(big)
            expect_same(store.read("y"), values(3, rows=2, width=300_000), "y")
            expect_same(store.read("x", ["a", "b"]), values(1, rows=2, width=1000), "x")
        """
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(code), str(tmp_path)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split("\n")[:2] == ["True", "['a', 'b'] ['x']"]


def make_old(folder):
    """Turn a store into one of version 1, which has no checksums of records."""
    root = json.loads((folder / "zarr.json").read_text())
    root["attributes"]["vlmlens"]["version"] = 1
    (folder / "zarr.json").write_text(json.dumps(root))
    for path in (folder / "commits").iterdir():
        record = json.loads(path.read_text())
        del record["crc32"]
        path.write_text(json.dumps(record))
    meta = json.loads((folder / "meta.json").read_text())["meta"]
    (folder / "meta.json").write_text(json.dumps(meta))
    (folder / "seal.json").unlink()


def change_commit(folder, number, change):
    path = folder / "commits" / f"{number:08d}.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def reversed_ids(folder):
    change_commit(folder, 1, lambda record: record["chunks"][0]["ids"].reverse())


def half_as_wide(folder):
    """float32 becomes twice as many float16, in the record and in the array."""
    wider = {"dtype": "float16", "width": 128}
    change_commit(folder, 0, lambda record: record["columns"][0].update(wider))


def a_column_of_another_type(folder):
    path = folder / "columns" / "0" / "zarr.json"
    path.write_text(path.read_text().replace('"float32"', '"int32"'))


def emptied(name):
    def empty(folder):
        (folder / name).write_bytes(b"")

    return pytest.param(empty, id=f"emptied {name}")


def removed(name):
    def remove(folder):
        (folder / name).unlink()

    return pytest.param(remove, id=f"removed {name}")


class TestRecords:
    """What has no checksum among the values: commits, their number and order, metadata."""

    @pytest.mark.parametrize(
        "damage",
        [
            reversed_ids,
            half_as_wide,
            a_column_of_another_type,
            *map(removed, ["commits/00000000.json", "commits/00000001.json"]),
            *map(removed, ["commits/00000002.json", "columns/1/zarr.json", "meta.json"]),
            *map(emptied, ["commits/00000002.json", "columns/1/zarr.json", "meta.json"]),
            *map(emptied, ["zarr.json", "seal.json", "columns/0/c/0/0"]),
        ],
    )
    def test_damage_is_found(self, folder, damage):
        with open_store(folder) as store:
            store.set_meta({"mine": 1})
        damage(folder)
        problems = []
        try:
            with open_store(folder, "r") as store:
                problems = [check for check in store.verify() if check.problem]
                store.get_meta()
        except StoreError as error:
            problems.append(error)
        assert problems

    def test_every_flipped_bit_of_a_record_is_found(self, folder):
        with open_store(folder) as store:
            store.set_meta({"mine": 1})
        files = sorted(folder.rglob("*.json"))
        assert len(files) == 9
        random = np.random.default_rng(0)
        for number in range(90):
            path = files[number % len(files)]
            data = path.read_bytes()
            bit = int(random.integers(8 * len(data)))
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            try:
                with open_store(folder, "r") as store:
                    assert any(check.problem for check in store.verify()), (path, bit)
            except StoreError:
                pass
            path.write_bytes(data)
        with open_store(folder, "r") as store:
            assert not any(check.problem for check in store.verify())

    def test_a_store_of_version_1_is_read_and_continued(self, folder):
        with open_store(folder) as store:
            store.set_meta({"mine": 1})
        make_old(folder)
        with open_store(folder) as store:
            assert store.get_meta() == {"mine": 1}
            store.write(numbered(3))
            store.set_meta({"mine": 2})
        with open_store(folder, "r") as store:
            assert store.get_meta() == {"mine": 2}
            assert not any(check.problem for check in store.verify())
            for number in range(4):
                for name, wanted in numbered(number).columns.items():
                    expect_same(store.read(name, numbered(number).ids), wanted, name)
        assert not (folder / "seal.json").exists()

    def test_a_killed_writer_leaves_no_seal(self, folder, caplog):
        store = open_store(folder)
        store.write(numbered(3))
        with open_store(folder, "r") as reader:
            assert not any(check.problem for check in reader.verify())
        assert "was not closed by its writer" in caplog.text
        change_commit(folder, 3, lambda record: record["chunks"][0]["ids"].reverse())
        with pytest.raises(StoreCorrupt, match="commit 3 is damaged"):
            open_store(folder, "r")
        with pytest.raises(StoreCorrupt, match="commit 3 is damaged"):
            store.close()


class TestPlaces:
    def test_newer_version_and_other_groups(self, tmp_path):
        open_store(tmp_path / "newer").close()
        root = json.loads((tmp_path / "newer" / "zarr.json").read_text())
        root["attributes"]["vlmlens"]["version"] = 3
        (tmp_path / "newer" / "zarr.json").write_text(json.dumps(root))
        zarr.create_group(tmp_path / "other")
        for mode in ("r", "a"):
            with pytest.raises(StoreError, match=r"format version 3.*Update"):
                open_store(tmp_path / "newer", mode)
            with pytest.raises(StoreError, match="was not written by vlmlens"):
                open_store(tmp_path / "other", mode)

    def test_a_file_where_the_folder_should_be(self, tmp_path):
        (tmp_path / "x").write_text("")
        with pytest.raises(StoreError, match="Not a directory"):
            open_store(tmp_path / "x")
        with pytest.raises(StoreError, match="No Zarr store"):
            open_store(tmp_path / "x", "r")

    def test_the_lock_of_a_killed_writer(self, tmp_path):
        """Of this host: taken over. Of another one: only when told."""
        url = f"zarr+memory://locks{tmp_path}"
        open_store(url).close()
        fs = fsspec.filesystem("memory")
        lock = f"/locks{tmp_path}/writer.lock"
        assert not fs.exists(lock)
        ended = subprocess.Popen(["true"])
        ended.wait()
        host = os.uname().nodename
        for owner, free in (({"pid": ended.pid, "host": host}, True),
                            ({"pid": os.getpid(), "host": host}, False),
                            ({"pid": ended.pid, "host": "elsewhere"}, False)):  # fmt: skip
            fs.pipe_file(lock, json.dumps(owner).encode())
            if free:
                open_store(url).close()
                continue
            with pytest.raises(StoreLocked, match=r"take_over=true"):
                open_store(url)
            open_store(url, take_over=True).close()
        fs.pipe_file(lock, b"nonsense")
        with pytest.raises(StoreLocked, match="Another process"):
            open_store(url)

    def test_two_writers_in_spite_of_the_lock(self, tmp_path):
        """The second one to commit is told, and writes no commit."""
        url = f"zarr+memory://twice{tmp_path}"
        with open_store(url) as first, open_store(url, take_over=True) as second:
            before = first._commits, first._chain
            second.write(block("a", x=values(1, rows=1)))
            with pytest.raises(StoreError, match="'a' is stored"):
                first.write(block("a", x=values(1, rows=1)))
            after = first._commits, first._chain
            first._commits, first._chain = before
            with pytest.raises(StoreLocked, match="commit 0 is there already"):
                first._commit(first._index, block("b", x=values(2, rows=1)))
            first._commits, first._chain = after

    def test_fork(self, folder):
        with open_store(folder, "r") as store:
            store._pid -= 1
            with pytest.raises(StoreError, match="forked"):
                store.columns()
            store._pid += 1

    def test_closed(self, folder):
        store = open_store(folder, "r")
        store.close()
        for action in (store.columns, store.get_meta, lambda: store.read("a/last")):
            with pytest.raises(StoreError, match="closed"):
                action()
