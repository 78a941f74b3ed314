from __future__ import annotations

import io
import os
import re
import sqlite3
import struct
import subprocess
import sys
import tempfile
import textwrap
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit._vlmlens_database import SCHEMA, probe_reads

from tests import _program
from vlmlens.abc.storage import DTYPES
from vlmlens.errors import StoreCorrupt, StoreError, StoreLocked
from vlmlens.samples import Sample
from vlmlens.testing._stores import block, expect_same, numbered, ragged, values
from vlmlens_plugins.storage._torch_blobs import load, save
from vlmlens_plugins.storage.sqlite import SqliteOptions, SqliteStore, file_of


def open_store(path, mode="a", **options):
    return SqliteStore.open(str(path), mode=mode, options=SqliteOptions(**options))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.db"


def in_process(code, *arguments):
    head = """
        import os, resource, sys
        from vlmlens.errors import *
        from vlmlens.testing._stores import *
        from vlmlens_plugins.storage.sqlite import SqliteOptions, SqliteStore
        def open_store(path, mode="a", **options):
            return SqliteStore.open(str(path), mode=mode, options=SqliteOptions(**options))
    """
    done = _program.python(textwrap.dedent(head) + textwrap.dedent(code), *map(str, arguments))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("mode", ["a", "r"])
def test_a_journal_beside_a_store_removes_no_file_elsewhere(tmp_path, path, mode):
    """SQLite removes the file that a journal names when it rolls the journal back."""
    with open_store(path) as store:
        store.write(numbered(1))
    before, victim = path.read_bytes(), tmp_path / "victim"
    victim.write_bytes(b"/no/such/journal\0")
    name, magic = str(victim).encode(), bytes.fromhex("d9d505f920a163d7")
    header = magic + struct.pack(">5I", 0, 0, len(before) // 4096, 512, 4096)
    named = struct.pack(">I", 0) + name + struct.pack(">2I", len(name), sum(name)) + magic
    path.with_name(f"{path.name}-journal").write_bytes(header.ljust(512, b"\0") + named)
    with pytest.raises(StoreError):
        open_store(path, mode).columns()
    assert victim.exists()
    assert path.read_bytes() == before


class TestVlmLensReadsIt:
    """Our databases through VLM-Lens's eyes."""

    def test_schema_is_theirs(self, path):
        open_store(path).close()
        db = sqlite3.connect(":memory:")
        db.execute(SCHEMA)
        theirs = db.execute("PRAGMA table_info(tensors)").fetchall()
        db.close()
        db = sqlite3.connect(path)
        assert db.execute("PRAGMA table_info(tensors)").fetchall() == theirs
        db.close()

    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    def test_its_probe_loads_features_and_labels(self, path, dtype):
        given = values(1, dtype, rows=3, width=6, special=False)
        many = ragged(2, (2, 4, 1), "float32", width=6)
        samples = [Sample(f"s{i}", f"p{i}", (f"{i}.png",), label="ab"[i % 2]) for i in range(3)]
        with open_store(path) as store:
            store.describe(samples, model="org/model", adapter="llava")
            store.write(
                block(["s0", "s1", "s2"], **{"llm.block.3/last": given, "vision/all": many})
            )
        features, labels = probe_reads(path, "llm.block.3/last")
        assert features.dtype == getattr(torch, dtype)
        expected = torch.from_numpy(given.numpy().copy())
        assert torch.equal(features.float().nan_to_num(), expected.float().nan_to_num())
        assert labels == ["a", "b", "a"]
        pooled, _ = probe_reads(path, "vision/all")
        wanted = [torch.from_numpy(rows.copy()).mean(0) for rows in many.per_sample()]
        assert torch.allclose(pooled, torch.stack(wanted), equal_nan=True)

    def test_what_the_rows_say(self, path):
        sample = Sample("s0", "What?", ("a.png",), label="yes")
        with open_store(path) as store:
            store.describe([sample], model="org/model", adapter="llava")
            store.write(block(["s0", "7"], **{"llm.block.3/image.mean": values(1, rows=2)}))
        db = sqlite3.connect(path)
        rows = db.execute(
            "SELECT name, architecture, image_path, image_id, prompt, label, layer, "
            "pooling_method, tensor_dim FROM tensors"
        ).fetchall()
        assert db.execute("SELECT count(timestamp) FROM tensors").fetchone() == (2,)
        db.close()
        layer = ("llm.block.3/image.mean", "mean", 4)
        assert rows == [
            ("org/model", "llava", "a.png", "s0", "What?", "yes", *layer),
            ("org/model", "llava", None, 7, "", None, *layer),
        ]

    def test_labels_that_change_later(self, path):
        with open_store(path) as store:
            store.describe([Sample("a", "p", label="old"), Sample("b", "p", label="kept")])
            store.write(block("abc", x=values(1, rows=3)))
            store.describe([Sample("a", "p", label="new"), Sample("c", "late", label="late")])
            assert [sample.label for sample in store.samples()] == ["new", "kept", "late"]
            expect_same(store.read("x"), values(1, rows=3), "values")
        assert probe_reads(path, "x")[1] == ["new", "kept", "late"]


class TestFile:
    def test_a_finished_store_is_one_file(self, tmp_path):
        with open_store(tmp_path / "x.db") as store:
            store.write(numbered(0))
        assert {path.name for path in tmp_path.iterdir()} == {"x.db", "x.db.lock"}

    def test_where(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("plain").write_bytes(b"")
        assert file_of("plain") == Path("plain")
        assert file_of("columns") == Path("columns/tensors.db")
        for location in ("sqlite://host/x.db", "sqlite:x.db"):
            with pytest.raises(StoreError, match=r"sqlite:///path/to/file\.db"):
                file_of(location)

    def test_newer_version(self, path):
        open_store(path).close()
        db = sqlite3.connect(path)
        db.execute("UPDATE vlmlens_record SET version = 3")
        db.commit()
        db.close()
        with pytest.raises(StoreError, match=r"format version 3.*reads up to 2.*Update"):
            open_store(path, "r")

    def test_read_only_folder(self):
        """A finished store in a folder, and a user, that may not write."""
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            place = Path(folder) / "ro"
            with open_store(place / "x.db") as store:
                store.write(numbered(0))
            (place / "x.db").chmod(0o444)
            place.chmod(0o555)
            in_process(
                """
                import torch
                wanted = numbered(0).columns["b/all"]
                if os.getuid() == 0:
                    os.setuid(65534)
                with open_store(sys.argv[1], "r") as store:
                    expect_same(store.read("b/all"), wanted, "read-only")
                try:
                    open_store(sys.argv[1])
                except StoreError as error:
                    assert "Permission denied" in str(error), error
                else:
                    raise AssertionError
                """,
                place / "x.db",
            )
            place.chmod(0o755)

    def test_damage_names_column_and_sample(self, path):
        wanted = values(5, rows=8, width=64, special=False)
        with open_store(path) as store:
            store.write(block("abcdefgh", x=wanted))
        data = bytearray(path.read_bytes())
        data[data.index(wanted.array[3].tobytes()) + 9] ^= 16
        path.write_bytes(data)
        with open_store(path, "r") as store:
            with pytest.raises(StoreCorrupt, match=r"'x', sample 'd'"):
                store.read("x")
            expect_same(store.read("x", ["e"]), wanted.take([4]), "another sample")

    def test_lock_is_left_by_a_closed_store(self, path):
        with open_store(path) as store:
            store.write(numbered(0))
            with pytest.raises(StoreLocked, match=str(os.getpid())):
                open_store(path)
        open_store(path).close()

    def test_closed(self, path):
        store = open_store(path)
        store.close()
        with pytest.raises(StoreError, match="closed"):
            store.columns()

    def test_forked_child(self, path):
        out = in_process(
            """
            store = open_store(sys.argv[1])
            store.write(numbered(0))
            if (child := os.fork()) == 0:
                try:
                    store.columns()
                except StoreError as error:
                    print("forked" in str(error), flush=True)
                store.close()
                os._exit(0)
            os.waitpid(child, 0)
            store.write(numbered(1))
            try:
                open_store(sys.argv[1])
            except StoreLocked:
                print("locked")
            print(len(store.ids("a/last")))
            """,
            path,
        )
        assert out.split() == ["True", "locked", "16"]


def execute(path, *statements):
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def problems(path):
    """What reading everything and verify find."""
    try:
        with open_store(path, "r") as store:
            found = [check.problem for check in store.verify() if check.problem]
            store.get_meta()
            store.samples()
            return found
    except StoreError as error:
        return [str(error)]


@pytest.fixture
def filled(path):
    samples = [Sample(sample, "What?", label="ab"[number % 2]) for number, sample in
               enumerate(numbered(0).ids)]  # fmt: skip
    with open_store(path) as store:
        store.set_meta({"mine": 1})
        store.write(numbered(0))
        store.describe(samples, model="org/model", adapter="llava")
        store.write(numbered(1))
    assert problems(path) == []
    return path


class TestRecords:
    """What stands beside the values: ids, forms, numbers, order, samples, the record."""

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE vlmlens_samples SET number = 100 - number",
            "DELETE FROM vlmlens_values WHERE tensor % 2",
            "DELETE FROM tensors WHERE id = 3",
            "DELETE FROM vlmlens_columns WHERE number = 1",
            "UPDATE vlmlens_columns SET dtype = 'float16', width = 128 WHERE number = 0",
            "UPDATE vlmlens_columns SET width = 1000000000000000000",
            "UPDATE vlmlens_columns SET width = 'wide'",
            "UPDATE vlmlens_values SET sample = 99 WHERE sample = 2",
        ],
    )
    def test_reads_find_it(self, filled, statement):
        execute(filled, statement)
        with pytest.raises(StoreError), open_store(filled, "r") as store:  # noqa: PT012
            for info in store.columns():
                store.ids(info.name)
                store.read(info.name)
        assert problems(filled)

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE vlmlens_samples SET record = replace(record, 'What?', 'Who?')",
            "UPDATE vlmlens_record SET meta = '{}'",
            "UPDATE tensors SET label = 'b'",
            "UPDATE tensors SET layer = 'other' WHERE id = 2",
            "UPDATE vlmlens_seal SET total = total + 1 WHERE what = 'columns'",
            "DELETE FROM vlmlens_seal",
            "DROP TABLE vlmlens_seal",
            "UPDATE vlmlens_record SET version = 1",
            "DELETE FROM vlmlens_record",
        ],
    )
    def test_verify_finds_it(self, filled, statement):
        execute(filled, statement)
        assert problems(filled)

    def test_an_emptied_file(self, filled):
        filled.write_bytes(b"")
        assert "has no table of tensors" in problems(filled)[0]

    def test_flipped_bits_of_records(self, filled):
        """In the bytes of all rows but values, wherever they lie in the file."""
        db = sqlite3.connect(filled)
        texts = [value for query in ("SELECT id, record FROM vlmlens_samples",
                                     "SELECT name, dtype FROM vlmlens_columns",
                                     "SELECT what, what FROM vlmlens_seal",
                                     "SELECT layer, label FROM tensors",
                                     "SELECT meta, format FROM vlmlens_record")
                 for row in db.execute(query) for value in row if value]  # fmt: skip
        db.close()
        data = filled.read_bytes()
        random = np.random.default_rng(0)
        for number in range(40):
            text = texts[number % len(texts)].encode()
            places = [match.start() for match in re.finditer(re.escape(text), data)]
            bit = 8 * int(random.choice(places)) + int(random.integers(8 * len(text)))
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            filled.write_bytes(changed)
            assert problems(filled), (text, bit)
        filled.write_bytes(data)
        assert problems(filled) == []

    def test_labels_that_change_are_sealed_again(self, filled):
        with open_store(filled) as store:
            store.describe([Sample(numbered(0).ids[0], "Who?", label="new"), Sample("late", "")])
        assert problems(filled) == []

    def test_a_store_of_version_1_is_read_and_continued(self, path):
        with open_store(path) as store:
            store.write(block("ab", x=values(1, rows=2)))
        old = [zlib.crc32(row.tobytes()) for row in values(1, rows=2).array]
        execute(
            path,
            "DROP TABLE vlmlens_seal",
            "UPDATE vlmlens_record SET version = 1",
            *(f"UPDATE vlmlens_values SET crc32 = {crc} WHERE tensor = {number + 1}"
              for number, crc in enumerate(old)),
        )  # fmt: skip
        with open_store(path) as store:
            store.write(block("c", x=values(2, rows=1)))
            store.describe([Sample("a", "p")])
            store.set_meta({"mine": 1})
        with open_store(path, "r") as store:
            expect_same(store.read("x", ["a", "b"]), values(1, rows=2), "old")
            expect_same(store.read("x", ["c"]), values(2, rows=1), "new")
            assert store.get_meta() == {"mine": 1}
        assert problems(path) == []


class TestSpace:
    def test_full_disk(self, path):
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
            path,
        )
        assert int(out) > 5


def test_listing_imports_no_torch():
    code = """
import sys, vlmlens.testing._stores, vlmlens_plugins.storage.sqlite
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 7, 4096])
def test_blobs_are_what_torch_saves(dtype, width):
    """Whole zip files with right checksums, of one row or of several."""
    for rows, many in ((1, False), (3, True), (0, True)):
        array = values(width, dtype, rows=rows, width=width).array
        blob, start = save(array if many else array[0], dtype)
        assert zipfile.ZipFile(io.BytesIO(blob)).testzip() is None
        tensor = torch.load(io.BytesIO(blob), weights_only=True)
        assert tuple(tensor.shape) == ((1, rows, width) if many else (1, width))
        assert blob[start : start + array.nbytes] == array.tobytes()
        found, its_dtype = load(blob)
        assert (its_dtype, found.tobytes()) == (dtype, array.tobytes())
