"""Files that are not as `vlmlens export` wrote them: one error each, and never other numbers."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.unit.test_transfer import META, SAMPLES, content, expect_equal

from vlmlens.abc.storage import DTYPES
from vlmlens.errors import StoreError
from vlmlens.registry import Registry
from vlmlens.stores.opening import open_named
from vlmlens.testing._stores import block, ragged, values
from vlmlens.transfer import bring, carry, origin_of

FORMS = ("safetensors", "safetensors-shards", "npz", "parquet")


@pytest.fixture(scope="module")
def registry():
    return Registry.default()


@pytest.fixture(scope="module")
def exports(tmp_path_factory, registry):
    """A store, and each kind of export of it."""
    folder = tmp_path_factory.mktemp("exports")
    with open_named(registry, "lmdb", str(folder / "source"), mode="a") as store:
        store.set_meta(META)
        store.describe(SAMPLES, model="org/model", adapter="llava")
        given = {dtype: values(i, dtype, rows=4, width=7, special=False)
                 for i, dtype in enumerate(DTYPES)}  # fmt: skip
        store.write(block("abcd", **given, rows=ragged(9, (3, 1, 0, 2), "bfloat16")))
    with origin_of(registry, str(folder / "source")) as origin:
        for form in FORMS:
            suffix = form.partition("-")[0]
            (folder / form).mkdir()
            carry(registry, origin, str(folder / form / f"x.{suffix}"), form)
    return folder


@pytest.fixture
def export(exports, tmp_path):
    """A function of a form: a copy of the export that may be changed."""

    def copy(form):
        source = next((exports / form).iterdir())
        target = tmp_path / source.name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        return target

    return copy


def imported(registry, source, *, into="back.lmdb"):
    target = source.parent / into
    bring(registry, str(source), str(target))
    with open_named(registry, "lmdb", str(target), mode="r") as store:
        return content(store)


def expect_refused(registry, source, match):
    with pytest.raises(StoreError, match=match) as caught:
        bring(registry, str(source), str(source.parent / "back.lmdb"))
    assert not (source.parent / "back.lmdb").exists()
    return caught.value


def npz(path, **changes):
    """Change entries of an npz: None removes it, bytes replace it, an array is saved."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    for name, change in changes.items():
        entry = f"{name}.npy" if not name.endswith(".npy") else name
        if change is None:
            del entries[entry]
            continue
        if isinstance(change, bytes):
            entries[entry] = change
            continue
        sink = io.BytesIO()
        np.save(sink, change)
        entries[entry] = sink.getvalue()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def npz_index(path, change):
    with np.load(path) as file:
        index = json.loads(file["index.json"].item())
    change(index)
    npz(path, **{"index.json": np.array(json.dumps(index).encode())})


class TestNpz:
    @pytest.mark.parametrize(
        "saved",
        [
            lambda array: array.astype(">f4"),
            np.asfortranarray,
            lambda array: np.asfortranarray(array.astype(">f4")),
        ],
        ids=["big-endian", "Fortran", "both"],
    )
    def test_other_layouts_are_the_same_numbers(self, saved, exports, export, registry):
        path = export("npz")
        with np.load(path) as file:
            array = file["float32"]
        npz(path, float32=saved(array))
        with open_named(registry, "lmdb", str(exports / "source"), mode="r") as store:
            expect_equal(imported(registry, path), content(store))

    @pytest.mark.parametrize("kind", ["<f8", ">f8", "<f2", "<i8", ">i8"])
    def test_other_types_are_taken_as_they_are(self, kind, export, registry):
        path = export("npz")
        array = np.arange(28, dtype=kind).reshape(4, 7)
        npz(path, float32=array)
        info, _, found = imported(registry, path)["float32"]
        assert np.dtype(info.dtype) == np.dtype(kind).newbyteorder("=")
        assert found.array.tolist() == array.tolist()

    @pytest.mark.parametrize(
        ("array", "said"),
        [
            (np.zeros((4, 7), "<i4"), "has the type int32"),
            (np.zeros((4, 7), "<u2"), "has the type uint16"),
            (np.zeros((4, 7), bool), "has the type bool"),
            (np.zeros((4, 7), "<c8"), "has the type complex64"),
            (np.zeros((4, 8), "<f4"), r"has shape \[4, 8\], its index says \[4, 7\]"),
            (np.zeros((3, 7), "<f4"), r"has shape \[3, 7\]"),
            (np.zeros(28, "<f4"), r"has shape \[28\]"),
            (np.array([[object()] * 7] * 4), "has the type object"),
        ],
    )
    def test_what_no_store_keeps(self, array, said, export, registry):
        path = export("npz")
        npz(path, float32=array)
        expect_refused(registry, path, said)

    def test_numbers_that_bfloat16_lacks(self, export, registry):
        path = export("npz")
        npz(path, bfloat16=np.full((4, 7), 0.1, "<f4"))
        expect_refused(registry, path, "bfloat16 does not have")

    def test_a_header_that_promises_more(self, export, registry):
        path = export("npz")
        sink = io.BytesIO()
        header = {"descr": "<f4", "fortran_order": False, "shape": (4, 7)}
        np.lib.format.write_array_header_1_0(sink, header)
        npz(path, float32=sink.getvalue() + bytes(4 * 7 * 3))
        expect_refused(registry, path, "too early")
        npz(path, float32=sink.getvalue() + bytes(4 * 7 * 5))
        expect_refused(registry, path, "longer than its header")

    @pytest.mark.parametrize(
        "entries",
        [
            {"float32": np.zeros((4 << 20, 7), "<f4")},
            {"index.json": bytes(100 << 20)},
            {str(number): np.zeros(4 << 20, "<f4") for number in range(5)},
        ],
    )
    def test_entries_that_unpack_to_far_more(self, entries, export, registry):
        path = export("npz")
        npz(path, **entries)
        expect_refused(registry, path, r"would unpack from \d+ to \d+ bytes")

    @pytest.mark.parametrize("name", ["float32", "rows:lengths", "index.json"])
    def test_an_entry_less(self, name, export, registry):
        path = export("npz")
        npz(path, **{name: None})
        expect_refused(registry, path, "it has no entry")

    @pytest.mark.parametrize(
        "lengths", [[3, 1, 0, 3], [3, -1, 2, 2], [3, 1, 2], [3.0, 1.0, 0.0, 2.0], [1 << 60] * 4]
    )
    def test_wrong_lengths(self, lengths, export, registry):
        path = export("npz")
        npz(path, **{"rows:lengths": np.array(lengths)})
        expect_refused(registry, path, "cannot be imported")

    @pytest.mark.parametrize(
        "change",
        [
            lambda index: index["ids"]["lists"][0].pop(),
            lambda index: index["ids"]["lists"][0].reverse() or index["ids"].pop("of"),
            lambda index: index["ids"].update(lists=[["a", "a", "b", "c"]]),
            lambda index: index["ids"].update(lists=[[1, 2, 3, 4]]),
            lambda index: index["columns"][0].update(width=8),
            lambda index: index["columns"][0].update(width=-7),
            lambda index: index["columns"][0].update(width="7"),
            lambda index: index["columns"][0].update(dtype="float8"),
            lambda index: index["columns"][0].update(dtype=["float32"]),
            lambda index: index["columns"][0].update(more=1),
            lambda index: index["columns"].append(index["columns"][0]),
            lambda index: index.update(columns=[{}]),
            lambda index: index.update(columns={"a": 1}),
            lambda index: index.update(samples=[{"id": "a"}]),
            lambda index: index.update(meta=[1]),
            lambda index: index.update(version=99),
            lambda index: index.update(version="1"),
            lambda index: index.pop("meta"),
        ],
    )
    def test_an_index_that_contradicts(self, change, export, registry):
        path = export("npz")
        npz_index(path, change)
        expect_refused(registry, path, "cannot be imported|export of version 99|times")

    def test_a_record_that_claims_a_place(self, export, registry):
        """Keys that say whose store it is are not taken from a file."""
        path = export("npz")
        npz_index(path, lambda index: index["meta"].update(run_key="of another", unfinished="x"))
        imported(registry, path)
        with open_named(registry, "lmdb", str(path.parent / "back.lmdb"), mode="r") as store:
            assert not {"run_key", "unfinished"} & store.get_meta().keys()

    def test_an_index_of_depth(self, export, registry):
        path = export("npz")
        npz(path, **{"index.json": np.array(b"[" * 100_000)})
        expect_refused(registry, path, "cannot be imported")

    def test_an_export_of_the_first_version(self, exports, export, registry):
        """Its index is a plain entry of the archive."""
        path = export("npz")
        with np.load(path) as file:
            text = file["index.json"].item()
        npz(path, **{"index.json": None})
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("index.json", text)
        with open_named(registry, "lmdb", str(exports / "source"), mode="r") as store:
            expect_equal(imported(registry, path), content(store))


class TestParquet:
    @pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64(), pa.int64()])
    @pytest.mark.parametrize("variable", [False, True])
    def test_other_types_are_taken_as_they_are(self, kind, variable, export, registry):
        path = export("parquet")
        rows = np.arange(28.0).reshape(4, 7).astype(kind.to_pandas_dtype())
        change_column(path, pa.array(list(rows), pa.list_(kind, -1 if variable else 7)))
        info, _, found = imported(registry, path)["float32"]
        assert np.dtype(info.dtype) == np.dtype(kind.to_pandas_dtype())
        assert found.array.tolist() == rows.tolist()

    @pytest.mark.parametrize(
        ("array", "said"),
        [
            (pa.array([[0] * 7] * 4, pa.list_(pa.int32())), "holds int32"),
            (pa.array([["0"] * 7] * 4), "holds string"),
            (pa.array([1.0, 2.0, 3.0, 4.0]), "has the type double"),
            (pa.array([[0.0] * 6] * 4, pa.list_(pa.float32())), "rows that are not 7 numbers"),
            (pa.array([[0.0] * 7] * 3 + [[0.0] * 6], pa.list_(pa.float32())), "not 7 numbers"),
            (pa.array([[0.0] * 6 + [None]] * 4, pa.list_(pa.float32())), "not 7 numbers"),
            (pa.array([[0.0] * 7] * 3 + [None], pa.list_(pa.float32())), "has 3 samples"),
        ],
    )
    def test_what_no_store_keeps(self, array, said, export, registry):
        path = export("parquet")
        change_column(path, array)
        expect_refused(registry, path, said)

    def test_a_column_less(self, export, registry):
        path = export("parquet")
        pq.write_table(pq.read_table(path).drop_columns(["float32"]), path)
        expect_refused(registry, path, "has no column 'float32'")

    def test_ids_that_are_missing(self, export, registry):
        path = export("parquet")
        change_column(path, pa.array(["a", None, "c", "d"]), "sample.id")
        expect_refused(registry, path, "are not text")


def change_column(path, array, name="float32"):
    table = pq.read_table(path)
    at = table.column_names.index(name)
    pq.write_table(table.set_column(at, name, array).replace_schema_metadata(
        table.schema.metadata), path)  # fmt: skip


class TestSafetensors:
    @pytest.mark.parametrize(
        ("name", "tensor", "said"),
        [
            ("float32", torch.zeros(4, 7, dtype=torch.float64), r"is F64 \[4, 7\], and F32"),
            ("float32", torch.zeros(4, 7, dtype=torch.int32), "is I32"),
            ("float32", torch.zeros(4, 8), r"\[4, 8\]"),
            ("float32", torch.zeros(28), r"\[28\]"),
            ("float32", torch.zeros(4, 7), "is not as it was written"),
            ("rows:lengths", torch.tensor([3, 1, 1, 2]), r"\[6, 4\]"),
            ("rows:lengths", torch.tensor([3, -1, 2, 2]), "negative"),
            ("index.json", torch.zeros(5, dtype=torch.uint8), "cannot be imported"),
        ],
    )
    def test_another_tensor(self, name, tensor, said, export, registry):
        path = export("safetensors")
        tensors = load_file(path)
        save_file({**tensors, name: tensor}, path)
        expect_refused(registry, path, said)

    @pytest.mark.parametrize(
        "header", [b"", struct.pack("<Q", 1 << 60), struct.pack("<Q", 9) + b"not json ", bytes(100)]
    )
    def test_a_damaged_header(self, header, export, registry):
        path = export("safetensors")
        path.write_bytes(header)
        expect_refused(registry, path, "cannot be imported")

    @pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "link.safetensors"])
    def test_shards_outside_the_folder(self, name, export, registry):
        path = export("safetensors-shards")
        index = json.loads((path / "index.json").read_text())
        (shard,) = index["shards"]["float32"]
        shutil.copy(path / shard, path.parent / "outside.safetensors")
        (path / "link.safetensors").symlink_to(path.parent / "outside.safetensors")
        index["shards"]["float32"] = [name]
        (path / "index.json").write_text(json.dumps(index))
        expect_refused(registry, path, "not a file in it")

    def test_another_width_in_a_shard(self, export, registry):
        path = export("safetensors-shards")
        index = json.loads((path / "index.json").read_text())
        index["columns"][0]["width"] = 8
        (path / "index.json").write_text(json.dumps(index))
        expect_refused(registry, path, r"is F32 \[4, 7\], and F32 \[4, 8\]")


@pytest.mark.parametrize("form", FORMS)
def test_flipped_and_cut_files(form, exports, export, registry):
    """Each either gives the same columns, or one error."""
    with open_named(registry, "lmdb", str(exports / "source"), mode="r") as store:
        wanted = content(store)
    path = export(form)
    file = min(path.iterdir()) if path.is_dir() else path
    data, random, errors = file.read_bytes(), np.random.default_rng(0), 0
    for number in range(24):
        changed = bytearray(data)
        bit = int(random.integers(8 * len(data)))
        if number % 4:
            changed[bit // 8] ^= 1 << bit % 8
        else:
            del changed[bit // 8 :]
        file.write_bytes(changed)
        try:
            expect_equal(imported(registry, path, into=f"{number}.lmdb"), wanted)
        except StoreError as error:
            errors += 1
            assert "cannot be imported" in error.message  # noqa: PT017
            assert not (path.parent / f"{number}.lmdb").exists()
    assert errors > 8
