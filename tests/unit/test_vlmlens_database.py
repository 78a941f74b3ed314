from __future__ import annotations

import io
import pickle
import resource
import sqlite3
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit._vlmlens_database import SCHEMA, make_database, saved

from vlmlens.errors import StoreError
from vlmlens_plugins.storage.sqlite import SqliteOptions, SqliteStore


def open_store(path, mode="r", **options):
    return SqliteStore.open(str(path), mode=mode, options=SqliteOptions(**options))


def tensor(seed, *shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "old.db"


@contextmanager
def memory_limit(size=4 << 30):
    """Less address space than the tensors would take."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def refused(path, match, **options):
    with pytest.raises(StoreError, match=match):
        open_store(path, **options)


class TestColumns:
    def test_pooled_and_whole_layers(self, path):
        """Two samples in two layers, pooled and not, as one run after the other would write."""
        wanted = {}
        rows = []
        for number, label in enumerate(("cat", "dog")):
            sample = {"image_path": f"/data/{number}.png", "label": label, "image_id": 10 + number}
            for layer, pooling, shape in (
                ("model.layers.0", "mean", (1, 8)),
                ("model.layers.1", None, (1, 5 + number, 8)),
                ("vision.blocks.3", "mean", (4, 6)),
            ):
                made = tensor(len(rows), *shape)
                wanted[layer, number] = made.reshape(-1, shape[-1]).numpy()
                rows.append({**sample, "layer": layer, "pooling_method": pooling, "tensor": made})
        make_database(path, rows)
        with open_store(path) as store:
            shapes = [(c.name, c.dtype, c.width, c.ragged, c.samples) for c in store.columns()]
            assert shapes == [
                ("model.layers.0/mean", "float32", 8, False, 2),
                ("model.layers.1/all", "float32", 8, True, 2),
                ("vision.blocks.3/mean", "float32", 6, True, 2),
            ]
            for info in store.columns():
                assert store.ids(info.name) == ["10", "11"]
                layer = info.name.partition("/")[0]
                found = store.read(info.name, ["11", "10"]).per_sample()
                for number, array in zip((1, 0), found, strict=True):
                    assert array.tobytes() == wanted[layer, number].tobytes()
                for (_, array), number in zip(store.iterate(info.name), (0, 1), strict=True):
                    assert array.tobytes() == wanted[layer, number].tobytes()
            first, second = store.samples()
            assert (first.id, first.label, first.prompt) == ("10", "cat", "What?")
            assert second.images == ("/data/1.png",)
            assert store.get_meta()["model"] == "org/model"
            assert [chunk.problem for chunk in store.verify()] == [""] * 6

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64])
    def test_types_bit_for_bit(self, path, dtype):
        made = (tensor(1, 1, 16) * 1000).to(dtype)
        make_database(path, [{"tensor": made, "pooling_method": "mean"}])
        with open_store(path) as store:
            values = store.read("model.layers.0/mean")
            assert values.dtype == str(dtype).removeprefix("torch.")
            bits = made.view(torch.int16) if dtype == torch.bfloat16 else made
            assert values.array.tobytes() == bits.numpy().tobytes()

    def test_samples_without_ids_are_numbered(self, path):
        rows = [
            {"image_path": image, "prompt": prompt, "tensor": tensor(1, 1, 4), "layer": layer}
            for image in ("a.png", "No image prompt")
            for prompt in ("one", "two")
            for layer in ("x", "y")
        ]
        make_database(path, rows)
        with open_store(path) as store:
            assert store.ids("x/all") == store.ids("y/all") == ["1", "2", "3", "4"]
            assert [s.images for s in store.samples()] == [("a.png",), ("a.png",), (), ()]
            assert [s.prompt for s in store.samples()] == ["one", "two", "one", "two"]

    def test_the_first_schema(self, path):
        """Before ids, dimensions and pooling were stored."""
        schema = """CREATE TABLE tensors (name TEXT, architecture TEXT, timestamp DATETIME,
            image_path TEXT, prompt TEXT, label TEXT, layer TEXT, tensor BLOB)"""
        db = sqlite3.connect(path)
        db.execute(schema)
        made = tensor(1, 1, 3, 4)
        row = ("m", "qwen", None, "a.png", "p", "yes", "visual.blocks.1", saved(made))
        db.execute("INSERT INTO tensors VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        db.commit()
        db.close()
        with open_store(path) as store:
            values = store.read("visual.blocks.1/all")
            assert values.lengths == (3,)
            assert values.array.tobytes() == made.numpy().tobytes()

    def test_nothing_is_changed(self, path):
        make_database(path, [{"tensor": tensor(1, 1, 4)}])
        before = path.read_bytes()
        with open_store(path) as store:
            store.read("model.layers.0/all")
            with pytest.raises(StoreError, match="opened for reading"):
                store.set_meta({})
        with pytest.raises(StoreError, match=r"VLM-Lens wrote .*vlmlens import"):
            open_store(path, "a")
        assert path.read_bytes() == before


class TestRefusals:
    def test_pickles_are_not_read(self, path, tmp_path):
        class Attack:
            def __reduce__(self):
                return (open, (str(tmp_path / "attacked"), "w"))

        for blob in (pickle.dumps(Attack()), pickle.dumps(tensor(1, 1, 4)), saved(Attack())):
            make_database(path, [{"tensor": blob}])
            refused(path, r"Row 1 of .*cannot be read: it (is not what|holds something)")
            path.unlink()
        assert not (tmp_path / "attacked").exists()

    def test_a_pickle_behind_sound_tensors(self, path, tmp_path):
        class Attack:
            def __reduce__(self):
                return (open, (str(tmp_path / "attacked"), "w"))

        sound = [{"tensor": tensor(i, 1, 4), "prompt": str(i)} for i in range(3)]
        length = len(saved(tensor(1, 1, 4)))
        evil = pickle.dumps(Attack()).ljust(length, b"\0")
        make_database(path, [*sound, {"tensor": evil, "prompt": "evil", "tensor_dim": 4}])
        with open_store(path) as store:
            with pytest.raises(StoreError, match="Row 4"):
                store.read("model.layers.0/all")
            assert [bool(chunk.problem) for chunk in store.verify()] == [False, False, False, True]
        assert not (tmp_path / "attacked").exists()

    @pytest.mark.parametrize(
        ("value", "match"),
        [
            ({"a": torch.zeros(2)}, "it holds a dict"),
            (torch.zeros(2, dtype=torch.complex64), "complex64"),
            (torch.zeros(()), "float32"),
        ],
    )
    def test_other_things_that_torch_saves(self, path, value, match):
        make_database(path, [{"tensor": saved(value)}])
        refused(path, match)

    def test_torchs_advice_is_not_quoted(self, path):
        """It says how to run what is in the file."""
        for blob in (pickle.dumps(slice(1)), saved(slice(1)), saved(open)):
            make_database(path, [{"tensor": blob}])
            with pytest.raises(StoreError) as caught:
                open_store(path)
            assert "weights_only" not in str(caught.value)
            path.unlink()

    @pytest.mark.parametrize(
        "value",
        [
            torch.zeros(1).expand(1, 3_000_000_000),
            torch.zeros(4).as_strided((100_000, 100_000), (0, 0)),
            torch.zeros(4, 4).as_strided((4, 4_000), (1, 0)),
            torch.zeros(1, 0),
            torch.zeros(4, 4, device="meta"),
            torch.zeros(4, 4).to_sparse(),
        ],
        ids=["broadcast", "square", "overlapping", "no width", "meta", "sparse"],
    )
    def test_tensors_that_are_larger_than_their_bytes(self, value, path):
        with memory_limit():
            make_database(path, [{"tensor": saved(value)}])
            refused(path, "Row 1 of .*cannot be read: it")

    def test_a_blob_that_unpacks(self, path):
        sink = io.BytesIO()
        blob = saved(torch.zeros(1, 1 << 22))
        with (
            zipfile.ZipFile(io.BytesIO(blob)) as archive,
            zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as packed,
        ):
            for entry in archive.infolist():
                packed.writestr(entry.filename, archive.read(entry))
        make_database(path, [{"tensor": sink.getvalue()}])
        refused(path, r"would unpack from \d+ to \d+ bytes")

    @pytest.mark.parametrize("blob", [b"", b"PK\x05\x06" + bytes(18), b"PK", 5, "text", None])
    def test_what_is_no_blob(self, blob, path):
        schema = SCHEMA.replace("tensor BLOB NOT NULL", "tensor BLOB")
        make_database(path, [{"tensor": blob}], schema)
        refused(path, "Row 1 of .*cannot be read: it")

    def test_rows_without_end(self, path):
        """A view that computes its rows is not asked for any."""
        db = sqlite3.connect(path)
        db.execute(
            "CREATE VIEW tensors AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
            " SELECT i AS layer, x'00' AS tensor, '' AS prompt FROM n"
        )
        db.commit()
        db.close()
        refused(path, "tensors is a view that computes its rows")

    def test_a_virtual_table(self, path):
        db = sqlite3.connect(path)
        db.execute("CREATE VIRTUAL TABLE tensors USING fts5(layer, tensor, prompt)")
        db.commit()
        db.close()
        refused(path, "tensors is a table that computes its rows")

    def test_several_models_have_to_be_chosen(self, path):
        rows = [{"name": name, "tensor": tensor(i, 1, 4)} for i, name in enumerate(("m/1", "m/2"))]
        make_database(path, rows)
        refused(path, r"2 models: m/1, m/2.*options.storage.model")
        refused(path, r"no tensors of 'm/3'.*Did you mean m/", model="m/3")
        with open_store(path, model="m/2") as store:
            assert (
                store.read("model.layers.0/all").array.tobytes()
                == tensor(1, 1, 4).numpy().tobytes()
            )

    @pytest.mark.parametrize(("repeated", "kept"), [("first", 0), ("last", 1)])
    def test_written_twice(self, path, repeated, kept, caplog):
        rows = [{"tensor": tensor(i, 1, 4)} for i in range(2)]
        make_database(path, [*rows, {"layer": "other", "tensor": tensor(9, 1, 4)}])
        with open_store(path) as store:
            assert [info.name for info in store.columns()] == ["other/all"]
            assert "several tensors" in caplog.text
            with pytest.raises(StoreError, match="repeated=first"):
                store.read("model.layers.0/all")
        with open_store(path, repeated=repeated) as store:
            found = store.read("model.layers.0/all").array
            assert found.tobytes() == tensor(kept, 1, 4).numpy().tobytes()

    def test_pooled_over_the_features(self, path, caplog):
        """A layer of `[tokens, width]` pooled over axis 1 has as many numbers as tokens."""
        rows = [
            {"tensor": tensor(i, 5 + i), "prompt": str(i), "pooling_method": "mean"}
            for i in range(2)
        ]
        make_database(path, [*rows, {"layer": "other", "tensor": tensor(9, 1, 4)}])
        with open_store(path) as store:
            assert [info.name for info in store.columns()] == ["other/all"]
            assert "differ in width (5, 6)" in caplog.text
            assert "model.layers.0/mean" in store.get_meta()["left_out"]

    @pytest.mark.parametrize(
        ("statement", "match"),
        [
            ("CREATE TABLE other (a)", "no table of tensors"),
            ("CREATE TABLE tensors (layer, a)", "lacks prompt, tensor"),
        ],
    )
    def test_other_databases(self, path, statement, match):
        db = sqlite3.connect(path)
        db.execute(statement)
        db.commit()
        db.close()
        refused(path, match)

    def test_no_database_at_all(self, path):
        path.write_bytes(b"hello" * 1000)
        refused(path, "not a database")


def test_large_database_is_listed_without_its_tensors(path):
    """Listing reads one blob per layer and size."""
    make_database(path, [{"tensor": tensor(i, 1, 64), "prompt": str(i)} for i in range(200)])
    with open_store(path) as store:
        asked = []
        store._database._db.set_trace_callback(asked.append)
        assert store.columns()[0].samples == 200
        assert np.isfinite(store.read("model.layers.0/all", ["7"]).array).all()
        assert sum("SELECT tensor" in statement for statement in asked) == 1
