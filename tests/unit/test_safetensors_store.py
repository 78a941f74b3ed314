from __future__ import annotations

import gzip
import json
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from tests.unit._safetensors_parts import (
    NAMES,
    changed_header,
    check_numbered,
    open_store,
    part_of,
)

from vlmlens.abc import Values
from vlmlens.errors import StoreCorrupt, StoreError, StoreLocked
from vlmlens.testing._stores import block, expect_same, numbered, values
from vlmlens_plugins.storage import _safetensors_draft, _safetensors_part
from vlmlens_plugins.storage import safetensors as module

PAGE = Path(__file__).parents[2] / "docs" / "storage-format.md"


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "columns"
    with open_store(place) as store:
        store.set_meta({"mine": 1})
        for number in range(3):
            store.write(numbered(number))
    return place


class TestFormat:
    def test_the_library_reads_a_part(self, folder):
        wanted = numbered(1).columns
        with safe_open(part_of(folder, 1), "np") as file:
            assert set(file.keys()) == set(NAMES)
            record = json.loads(file.metadata()["vlmlens"])
            assert file.get_tensor("a/last").tobytes() == wanted["a/last"].array.tobytes()
            assert file.get_slice("b/all").get_dtype() == "BF16"
        assert [chunk["ids"] for chunk in record["chunks"]] == [list(numbered(1).ids)]

    def test_tensors_are_aligned_and_columns_keep_their_order(self, tmp_path):
        given = {"z": "bfloat16", "y": "float64", "x": "float32", "w": "int64"}
        with open_store(tmp_path) as store:
            store.write(
                block("abc", **{k: values(1, v, rows=3, width=3) for k, v in given.items()})
            )
            assert [info.name for info in store.columns()] == list(given)
        with safe_open(part_of(tmp_path, 0), "np") as file:
            assert (
                file.get_tensor("y").tobytes()
                == values(1, "float64", rows=3, width=3).array.tobytes()
            )

    def test_the_pages_reader(self, folder):
        found = re.search(r"```python\n(import gzip\n.*?)```", PAGE.read_text(), re.DOTALL)
        report = """
import sys
import zlib
for name in ("a/last", "b/all"):
    rows = dict(read_column(sys.argv[1], name))
    print(json.dumps([[key, array.tobytes().hex()] for key, array in rows.items()]))
assert not [name for name in sys.modules if name.startswith("vlmlens")]
"""
        code = [sys.executable, "-W", "error", "-c", found[1] + report, str(folder)]
        done = subprocess.run(code, capture_output=True, text=True, check=True)
        with open_store(folder, "r") as store:
            for name, line in zip(NAMES, done.stdout.splitlines(), strict=True):
                bits = {key: bytes.fromhex(text) for key, text in json.loads(line)}
                parts = store.read(name)
                ends = np.cumsum(parts.lengths or (1,) * len(parts.array))[:-1]
                wanted = [each.tobytes() for each in np.split(parts.array, ends)]
                assert bits == dict(zip(store.ids(name), wanted, strict=True))

    def test_equal_values_are_stored_once(self, tmp_path):
        array = np.repeat(values(1, rows=2, width=500).array, 8, axis=0)
        given = Values(array, "float32", (2,) * 8)
        with open_store(tmp_path) as store:
            store.write(block("abcdefgh", x=given))
            expect_same(store.read("x"), given, "all")
            assert store.read("x", list("hb")).array.tobytes() == array[[14, 15, 2, 3]].tobytes()
            rows = [array.tobytes() for _, array in store.iterate("x")]
        assert rows == [each.tobytes() for each in np.split(array, 8)]
        assert part_of(tmp_path, 0).stat().st_size < array.nbytes

    def test_large_blocks_are_read_in_chunks(self, tmp_path, monkeypatch):
        monkeypatch.setattr(_safetensors_draft, "CHUNK_BYTES", 4000)
        given = values(1, rows=100, width=50)
        with open_store(tmp_path) as store:
            store.write(block([str(i) for i in range(100)], x=given))
            expect_same(store.read("x"), given, "all")
            ids, some = store.read_range("x", 37, 62)
            assert ids == [str(i) for i in range(37, 62)]
            assert some.array.tobytes() == given.array[37:62].tobytes()
        record = json.loads(gzip.decompress((tmp_path / "index.json.gz").read_bytes()))
        assert len(record["parts"][0]["record"]["chunks"]) == 5


class TestParts:
    def test_parts_that_the_index_does_not_tell(self, folder):
        """A killed writer has not renewed it; nothing is lost, nothing is read twice."""
        old = (folder / "index.json.gz").read_bytes()
        with open_store(folder) as store:
            for number in range(3, 12):
                store.write(numbered(number))
        for content in (old, None):
            (folder / "index.json.gz").unlink()
            if content:
                (folder / "index.json.gz").write_bytes(content)
            with open_store(folder, "r") as store:
                check_numbered(store, 12)
        with open_store(folder) as store:
            store.write(numbered(12))
        with open_store(folder, "r") as store:
            check_numbered(store, 13)
            assert store.get_meta() == {"mine": 1}

    def test_the_index_is_not_renewed_at_each_write(self, tmp_path, monkeypatch):
        counts = []
        pack = module.packed
        monkeypatch.setattr(
            module, "packed", lambda e, **more: counts.append(len(e)) or pack(e, **more)
        )
        with open_store(tmp_path) as store:
            for number in range(200):
                store.write(block([str(number)], x=values(number, rows=1)))
        assert sum(counts) < 3 * 200
        with open_store(tmp_path, "r") as store:
            assert len(store.ids("x")) == 200

    def test_a_writer_that_was_taken_over_loses_nothing(self):
        """Its next part has the number of the other's, and is refused."""
        place = "safetensors+memory://taken/over"
        first = open_store(place)
        first.write(numbered(0))
        with pytest.raises(StoreLocked, match=r"Process \d+"):
            open_store(place)
        with open_store(place, take_over=True) as second:
            second.write(numbered(1))
            with pytest.raises(StoreLocked, match="Another process"):
                first.write(numbered(2))
            with pytest.raises(StoreError):
                first.set_meta({"late": 1})
        with open_store(place, "r") as store:
            check_numbered(store, 2)
            assert store.get_meta() == {}

    def test_what_is_left_of_a_removed_store(self, folder, tmp_path):
        """Its later parts have right numbers, and other samples than the first ones."""
        with open_store(tmp_path / "new") as store:
            store.write(numbered(0))
        part_of(folder, 1).replace(part_of(tmp_path / "new", 1))
        for mode in "ra":
            (tmp_path / "new" / "index.json.gz").unlink()
            with pytest.raises(StoreCorrupt, match=r"00000001.*after another part"):
                open_store(tmp_path / "new", mode)
            (tmp_path / "new" / "index.json.gz").touch()

    def test_reserved_name(self, tmp_path):
        with open_store(tmp_path) as store:
            with pytest.raises(StoreError, match="__metadata__"):
                store.write(block("a", __metadata__=values(1, rows=1)))
            assert store.columns() == []

    def test_too_long_headers(self, tmp_path, monkeypatch):
        monkeypatch.setattr(_safetensors_part, "HEADER_LIMIT", 3000)
        with open_store(tmp_path) as store:
            with pytest.raises(StoreError, match=r"header has .* fewer samples"):
                store.write(block([f"{n:0100d}" for n in range(30)], x=values(1, rows=30)))
            store.write(block("a", x=values(1, rows=1)))
            assert store.ids("x") == ["a"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def empty(path):
    path.write_bytes(b"")


def flip_value(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)


def same_text(one, other):
    """Whether two gzip files have the same content, whatever their time stamps and last bits."""
    try:
        return gzip.decompress(one) == gzip.decompress(other)
    except (OSError, EOFError, zlib.error):
        return False


class TestDamage:
    @pytest.mark.parametrize("damage", [cut, empty, flip_value, Path.unlink])
    @pytest.mark.parametrize("number", [0, 2])
    def test_damaged_parts(self, folder, damage, number):
        """The other parts can be read; the damaged one is named."""
        damage(part_of(folder, number))
        with open_store(folder, "r") as store:
            problems = [check for check in store.verify() if check.problem]
            assert any(f"{number:08d}" in check.problem for check in problems)
            with pytest.raises(StoreCorrupt, match=rf"part parts/{number:08d}"):
                [store.read(name) for name in NAMES]
            expect_same(store.read("a/last", numbered(1).ids), numbered(1).columns["a/last"], "1")

    @pytest.mark.parametrize("damage", [cut, empty, Path.unlink])
    def test_damaged_meta(self, folder, damage):
        damage(folder / "meta.json")
        problems = []
        try:
            with open_store(folder, "r") as store:
                problems = [check for check in store.verify() if check.problem]
                store.get_meta()
        except StoreError as error:
            problems.append(error)
        assert problems

    def test_every_flipped_bit_is_found(self, folder):
        files = [folder / "index.json.gz", folder / "meta.json", *(folder / "parts").iterdir()]
        random = np.random.default_rng(0)
        for number in range(100):
            path = files[number % len(files)]
            data = path.read_bytes()
            limit = len(data) if number % 2 else min(len(data), 900)
            bit = int(random.integers(8 * limit))
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            found = path.suffix == ".gz" and same_text(data, bytes(changed))
            try:
                with open_store(folder, "r") as store:
                    found |= any(check.problem for check in store.verify())
                    check_numbered(store, 3)
            except StoreError:
                found = True
            assert found, (path, bit)
            path.write_bytes(data)

    @pytest.mark.parametrize(
        "attack",
        [
            lambda part: part.header["a/last"].update(data_offsets=[0, 1 << 60]),
            lambda part: part.header["a/last"].update(dtype="F64"),
            lambda part: part.header.update({"../../x": part.header.pop("a/last")}),
            lambda part: part.record["columns"][0].update(name="__metadata__"),
            lambda part: part.record["columns"][0].update(width=1 << 50),
            lambda part: part.record["columns"][0].update(width=-1),
            lambda part: part.record["columns"][0].update(dtype="object"),
            lambda part: part.record["columns"].append(part.record["columns"][0]),
            lambda part: part.record["chunks"][0]["ids"].__setitem__(0, 7),
            lambda part: part.record["chunks"][0]["ids"].__setitem__(0, "sample 2.1"),
            lambda part: part.record["chunks"][0].update(ids=numbered(0).ids),
            lambda part: part.record["chunks"][0]["columns"][0].update(number=9),
            lambda part: part.record["chunks"][0]["lengths"][0].__setitem__(0, 1 << 40),
            lambda part: part.record.update(chunks={"a": 1}),
            lambda part: part.record.update(meta=[1]),
            lambda part: part.record.update(number=1),
            lambda part: part.record.update(format="other"),
            lambda part: part.header.pop("b/all"),
        ],
    )
    def test_forged_headers(self, folder, attack):
        """A part that the index does not tell says something wrong of itself, with checksums."""
        (folder / "index.json.gz").unlink()
        changed_header(part_of(folder, 2), attack)
        with pytest.raises(StoreCorrupt, match=r"part parts/00000002.*damaged"):
            open_store(folder, "r")

    def test_changed_records_without_a_checksum(self, folder):
        (folder / "index.json.gz").unlink()
        change = lambda part: part.record["chunks"][0]["ids"].reverse()  # noqa: E731
        changed_header(part_of(folder, 2), change, honest=False)
        with pytest.raises(StoreCorrupt, match="not as it was written"):
            open_store(folder, "r")

    @pytest.mark.parametrize(
        "data",
        [
            b"", b"\0", struct.pack("<Q", 1 << 62) + b"{}", struct.pack("<Q", 100) + b"{}",
            struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 8) + b"[[[[[[[[",
            struct.pack("<Q", 200_000) + b"[" * 200_000,
        ],
        ids=range(7),
    )  # fmt: skip
    def test_what_is_no_part(self, folder, data):
        part_of(folder, 3).write_bytes(data)
        with pytest.raises(StoreCorrupt, match="parts/00000003"):
            open_store(folder, "r")

    @pytest.mark.parametrize(
        "content",
        [b"", b"x" * 100, gzip.compress(b"[]"), gzip.compress(b"[" * 100_000),
         gzip.compress(b'{"format": "vlmlens-parts", "version": 1, "parts": [{"start": -1}]}'),
         gzip.compress(b'{"format": "vlmlens-parts", "version": 1, "parts": [7]}'),
         gzip.compress(b" " * (24 << 20)), gzip.compress(b"{}") + b"more"],
        ids=range(8),
    )  # fmt: skip
    def test_forged_indexes(self, folder, content):
        (folder / "index.json.gz").write_bytes(content)
        for mode in ("r", "a"):
            with pytest.raises(StoreCorrupt, match="damaged"):
                open_store(folder, mode)
        (folder / "index.json.gz").unlink()
        with open_store(folder, "r") as store:
            check_numbered(store, 3)

    def test_newer_versions(self, folder):
        text = gzip.decompress((folder / "index.json.gz").read_bytes())
        newer = text.replace(b'"version": 1, "closed"', b'"version": 2, "closed"')
        (folder / "index.json.gz").write_bytes(gzip.compress(newer))
        with pytest.raises(StoreError, match=r"format version 2.*Update"):
            open_store(folder, "r")
        (folder / "index.json.gz").unlink()
        changed_header(part_of(folder, 0), lambda part: part.record.update(version=2))
        with pytest.raises(StoreError, match=r"format version 2.*Update"):
            open_store(folder, "r")
