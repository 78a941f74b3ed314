from __future__ import annotations

import json
import os
import shutil
import tracemalloc

import numpy as np
import pytest

from vlmlens.abc import ColumnBlock, Values
from vlmlens.abc.storage import DTYPES
from vlmlens.errors import RunNotFound, StoreError
from vlmlens.registry import Registry
from vlmlens.samples import Sample
from vlmlens.stores.opening import open_named
from vlmlens.stores.sharded import ShardedStore
from vlmlens.testing._stores import block, expect_same, ragged, values
from vlmlens.transfer import Origin, bring, carry, check_all, origin_of
from vlmlens.transfer import _parts as parts

STORES = ("lmdb", "sqlite", "zarr")
FILES = ("safetensors", "safetensors-shards", "npz", "parquet")
SAMPLES = [
    Sample("a", "What color?", images=("a.png",), label="red", attributes={"x": 1}),
    Sample("b", "漢字?", choices=("1", "2"), task="count", group="g"),
    Sample("c", ""),
    Sample("d", "last"),
]
META = {"fingerprint": {"torch": "2"}, "n": [1, None, 0.5]}


@pytest.fixture(scope="module")
def registry():
    return Registry.default()


@pytest.fixture
def source(tmp_path, registry):
    """A store with every dtype, ragged rows, a sample without rows, columns of some samples."""
    path = tmp_path / "source"
    with open_named(registry, "lmdb", str(path), mode="a") as store:
        store.set_meta({**META, "run_key": "of the place"})
        store.describe(SAMPLES, model="org/model", adapter="llava")
        given = {dtype: values(i, dtype, rows=4, width=7) for i, dtype in enumerate(DTYPES)}
        store.write(
            block("abcd", **given, **{"llm.block.1/all": ragged(9, (3, 1, 0, 2), "bfloat16")})
        )
        store.write(block("db", **{"some/last": values(3, rows=2)}))
        store.write(block("ac", **{"some/all": ragged(4, (2, 5), "float16", width=3)}))
    return path


def content(store):
    return {
        info.name: (info, store.ids(info.name), store.read(info.name)) for info in store.columns()
    }


def expect_equal(found, wanted, *, order=True):
    assert list(found) == list(wanted)
    for name, (info, ids, given) in wanted.items():
        there, its_ids, its_values = found[name]
        assert there == info
        assert (its_ids if order else sorted(its_ids)) == (ids if order else sorted(ids))
        expect_same(its_values.take([its_ids.index(i) for i in ids]), given, name)


def read(registry, where, storage=None):
    with origin_of(registry, str(where), storage) as origin:
        return content(origin.store), origin.about()


def damage(folder, values):
    """Flip a bit of some values of an LMDB store, in all copies that the file has."""
    data = (folder / "data.mdb").read_bytes()
    assert values in data
    (folder / "data.mdb").write_bytes(data.replace(values, bytes([values[0] ^ 1]) + values[1:]))


class TestStores:
    @pytest.mark.parametrize("first", STORES)
    @pytest.mark.parametrize("second", STORES)
    def test_any_to_any_and_back(self, first, second, source, tmp_path, registry):
        wanted, about = read(registry, source)
        one, two, three = (str(tmp_path / name) for name in ("one", "two", "three"))
        for origin, target, form in (
            (source, one, first),
            (one, two, second),
            (two, three, "lmdb"),
        ):
            with origin_of(registry, str(origin)) as opened:
                assert carry(registry, opened, target, form) == form
        for where in (one, two, three):
            found, its_about = read(registry, where)
            expect_equal(found, wanted)
            assert its_about == about
        assert about.meta == META
        assert about.samples == SAMPLES
        assert (about.model, about.adapter) == ("org/model", "llava")

    @pytest.mark.parametrize(
        ("target", "storage"),
        [("x.zarr", "zarr"), ("x.db", "sqlite"), ("x.sqlite", "sqlite"), ("x.lmdb", "lmdb"),
         ("sqlite://{}/y.db", "sqlite://{}/y.db"), ("zarr+memory://t/{}", "zarr+memory://t/{}")],
    )  # fmt: skip
    def test_target_says_how(self, target, storage, source, tmp_path, registry, monkeypatch):
        monkeypatch.chdir(tmp_path)
        target, storage = target.format(tmp_path), storage.format(tmp_path)
        with origin_of(registry, str(source)) as origin:
            assert carry(registry, origin, target) == storage
        expect_equal(read(registry, target)[0], read(registry, source)[0])

    def test_target_that_says_nothing(self, source, tmp_path, registry):
        with (
            origin_of(registry, str(source)) as origin,
            pytest.raises(StoreError, match=r"does not say how.*--format \(.*zarr.*sqlite:///x.db"),
        ):
            carry(registry, origin, str(tmp_path / "x"))

    @pytest.mark.parametrize("form", ["lmdb", "zarr", "npz", "safetensors"])
    def test_existing_target_is_refused_and_kept(self, form, source, tmp_path, registry):
        (tmp_path / "x").write_text("mine")
        with (
            origin_of(registry, str(source)) as origin,
            pytest.raises(StoreError, match=r"x' exists already"),
        ):
            carry(registry, origin, str(tmp_path / "x"), form)
        assert (tmp_path / "x").read_text() == "mine"

    def test_existing_remote_target(self, source, tmp_path, registry):
        target = f"zarr+memory://existing{tmp_path}"
        for attempt in range(2):
            with origin_of(registry, str(source)) as origin:
                if attempt == 0:
                    carry(registry, origin, target)
                else:
                    with pytest.raises(StoreError, match="exists already"):
                        carry(registry, origin, target)

    def test_interrupted_store_is_not_taken_for_a_complete_one(self, source, tmp_path, registry):
        target = str(tmp_path / "x.db")

        def stop(done, total):
            if done > total / 2:
                raise KeyboardInterrupt

        with origin_of(registry, str(source)) as origin, pytest.raises(KeyboardInterrupt):
            carry(registry, origin, target, progress=stop)
        with pytest.raises(StoreError, match="incomplete"), origin_of(registry, target):
            pass

    def test_nothing_there(self, tmp_path, registry):
        with pytest.raises(RunNotFound), origin_of(registry, str(tmp_path / "x")):
            pass
        (tmp_path / "x").write_text("no store")
        with (
            pytest.raises(StoreError, match=r"neither a run nor a store.*lmdb.*sqlite.*zarr"),
            origin_of(registry, str(tmp_path / "x")),
        ):
            pass


class TestFiles:
    @pytest.mark.parametrize("form", FILES)
    @pytest.mark.parametrize("size", [1, 50, 1 << 20])
    def test_round_trip(self, form, size, source, tmp_path, registry, monkeypatch):
        """Bit for bit, whatever the parts' size."""
        for module in ("_parts", "_parquet"):
            monkeypatch.setattr(f"vlmlens.transfer.{module}.PART_BYTES", size)
        monkeypatch.setattr(parts.parts_of, "__defaults__", (size,))
        wanted, about = read(registry, source)
        file, back = str(tmp_path / f"x.{form}"), str(tmp_path / "back")
        seen = []
        with origin_of(registry, str(source)) as origin:
            named = form if form == "safetensors-shards" else None
            assert carry(registry, origin, file, named, lambda *at: seen.append(at)) == form
        assert seen[-1] == (28, 28)
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
        assert bring(registry, file, back, "lmdb") == "lmdb"
        found, its_about = read(registry, back)
        expect_equal(found, wanted, order=form != "parquet")
        assert its_about == about

    def test_npz_is_plain_numpy(self, source, tmp_path, registry):
        wanted, _ = read(registry, source)
        with origin_of(registry, str(source)) as origin:
            carry(registry, origin, str(tmp_path / "x.npz"))
        with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
            assert file["float16"].tobytes() == wanted["float16"][2].array.tobytes()
            assert file["bfloat16"].dtype == np.float32
            assert file["bfloat16"].tobytes() == wanted["bfloat16"][2].numpy().tobytes()
            assert file["llm.block.1/all:lengths"].tolist() == [3, 1, 0, 2]
            assert json.loads(file["index.json"].item())["columns"][0]["name"] == "float32"
            assert {name: file[name].shape for name in file}["float32"] == (4, 7)

    @pytest.mark.parametrize("form", ["safetensors", "safetensors-shards"])
    def test_safetensors_keeps_bfloat16(self, form, source, tmp_path, registry):
        import torch
        from safetensors.torch import load_file

        wanted, _ = read(registry, source)
        path = tmp_path / "x.safetensors"
        with origin_of(registry, str(source)) as origin:
            carry(registry, origin, str(path), form)
        if form == "safetensors-shards":
            index = json.loads((path / "index.json").read_text())
            (shard,) = index["shards"]["bfloat16"]
            path /= shard
        loaded = load_file(path)
        tensor = loaded["bfloat16"]
        assert tensor.dtype == torch.bfloat16
        bits = tensor.view(torch.int16).numpy().tobytes()
        assert bits == wanted["bfloat16"][2].array.tobytes()
        if form == "safetensors":
            assert loaded["llm.block.1/all:lengths"].tolist() == [3, 1, 0, 2]
            assert json.loads(loaded["index.json"].numpy().tobytes())["ids"]["some/last"] == [
                "d",
                "b",
            ]

    def test_parquet_has_a_row_per_sample(self, source, tmp_path, registry):
        import pyarrow.parquet as pq

        wanted, _ = read(registry, source)
        with origin_of(registry, str(source)) as origin:
            carry(registry, origin, str(tmp_path / "x.parquet"))
        table = pq.read_table(tmp_path / "x.parquet")
        assert table["sample.id"].to_pylist() == list("abcd")
        assert table["sample.label"].to_pylist() == ["red", None, None, None]
        assert table["int64"].to_pylist() == wanted["int64"][2].array.tolist()
        assert [row is not None for row in table["some/last"].to_pylist()] == [
            False,
            True,
            False,
            True,
        ]
        assert [len(row) for row in table["llm.block.1/all"].to_pylist()] == [3, 1, 0, 2]
        assert table["sample.choices"].to_pylist() == [[], ["1", "2"], [], []]
        assert table["sample.images"].to_pylist()[0] == ["a.png"]
        assert table["sample.attributes"].to_pylist() == ['{"x": 1}', None, None, None]
        assert table["sample.task"].to_pylist() == [None, "count", None, None]
        assert table["sample.group"].to_pylist() == [None, "g", None, None]

    def test_hdf5(self, source, tmp_path, registry):
        h5py = pytest.importorskip("h5py")
        wanted, _ = read(registry, source)
        with origin_of(registry, str(source)) as origin:
            assert carry(registry, origin, str(tmp_path / "x.h5")) == "hdf5"
        with h5py.File(tmp_path / "x.h5") as file:
            for name, (info, ids, given) in wanted.items():
                assert file[name][()].tobytes() == given.numpy().tobytes()
                assert list(file[f"{name}:ids"].asstr()) == ids
                if info.ragged:
                    assert tuple(file[f"{name}:lengths"]) == given.lengths
            assert json.loads(file["index.json"][()])["columns"][0]["name"] == "float32"

    def test_npy(self, source, tmp_path, registry):
        wanted, _ = read(registry, source)
        with origin_of(registry, str(source)) as origin:
            carry(registry, origin.select(["some/last"], []), str(tmp_path / "one.npy"))
            carry(registry, origin, str(tmp_path / "all"), "npy")
            with pytest.raises(StoreError, match=r"holds one column.*--sites.*--format npy"):
                carry(registry, origin, str(tmp_path / "many.npy"))
        one = np.load(tmp_path / "one.npy")
        assert one.tobytes() == wanted["some/last"][2].array.tobytes()
        for name, (info, ids, given) in wanted.items():
            stem = name.replace("/", "__")
            assert np.load(tmp_path / "all" / f"{stem}.npy").tobytes() == given.numpy().tobytes()
            assert json.loads((tmp_path / "all" / f"{stem}.ids.json").read_text()) == ids
            if info.ragged:
                lengths = np.load(tmp_path / "all" / f"{stem}.lengths.npy")
                assert tuple(lengths) == given.lengths
        assert sorted(path.name for path in tmp_path.iterdir()) == ["all", "one.npy", "source"]

    @pytest.mark.parametrize("target", ["new/folder/x.npz", "new/x.safetensors", "new/x.parquet",
                                        "new/x.lmdb"])  # fmt: skip
    def test_the_targets_folder_is_made(self, target, source, tmp_path, registry):
        with origin_of(registry, str(source)) as origin:
            carry(registry, origin, str(tmp_path / target))
        assert (tmp_path / target).exists()

    def test_some_columns_and_samples(self, source, tmp_path, registry):
        wanted, _ = read(registry, source)
        with origin_of(registry, str(source)) as origin:
            some = origin.select(["float*", "some/all", "llm.block.1"], ["a", "[cd]"])
            carry(registry, some, str(tmp_path / "x.npz"))
        bring(registry, str(tmp_path / "x.npz"), str(tmp_path / "back"), "lmdb")
        found, about = read(registry, tmp_path / "back")
        assert list(found) == ["float32", "float16", "float64", "llm.block.1/all", "some/all"]
        assert [sample.id for sample in about.samples] == ["a", "c", "d"]
        for name, ids in (("float16", "acd"), ("some/all", "ac"), ("llm.block.1/all", "acd")):
            assert found[name][1] == list(ids)
            places = [wanted[name][1].index(sample) for sample in ids]
            expect_same(found[name][2], wanted[name][2].take(places), name)

    @pytest.mark.parametrize(
        ("sites", "samples", "said"),
        [(["float31"], [], r"No stored column matches 'float31'.*float32"),
         ([], ["e"], r"No stored sample matches 'e'.*Stored: a, b")],
    )  # fmt: skip
    def test_what_matches_nothing(self, sites, samples, said, source, registry):
        with origin_of(registry, str(source)) as origin, pytest.raises(StoreError, match=said):
            origin.select(sites, samples)

    @pytest.mark.parametrize("suffix", ["parquet", "npz", "safetensors"])
    def test_opening_an_export_says_how(self, suffix, source, tmp_path, registry):
        file = str(tmp_path / f"x.{suffix}")
        with origin_of(registry, str(source)) as origin:
            carry(registry, origin, file)
        with (
            pytest.raises(StoreError, match=rf"exported file.*vlmlens import .*x\.{suffix}"),
            origin_of(registry, file),
        ):
            pass

    @pytest.mark.parametrize("name", ["x.npz", "x.parquet", "x.safetensors"])
    def test_what_is_no_export(self, name, tmp_path, registry):
        (tmp_path / name).write_bytes(b"something else")
        with pytest.raises(StoreError, match="cannot be imported"):
            bring(registry, str(tmp_path / name), str(tmp_path / "x.db"))
        assert not (tmp_path / "x.db").exists()

    @pytest.mark.parametrize("suffix", ["npz", "parquet", "safetensors"])
    def test_a_pipe_is_not_waited_for(self, suffix, tmp_path, registry):
        os.mkfifo(tmp_path / f"x.{suffix}")
        with pytest.raises(StoreError, match="not a regular file"):
            bring(registry, str(tmp_path / f"x.{suffix}"), str(tmp_path / "back"), "lmdb")

    @pytest.mark.parametrize("form", FILES)
    def test_memory_is_flat(self, form, tmp_path, registry, monkeypatch):
        """A column of 32 MiB goes through parts of 1 MiB."""
        for module in ("_parts", "_parquet"):
            monkeypatch.setattr(f"vlmlens.transfer.{module}.PART_BYTES", 1 << 20)
        monkeypatch.setattr(parts.parts_of, "__defaults__", (1 << 20,))
        array = np.ones((128, 1 << 14), "<f4")
        with open_named(registry, "lmdb", str(tmp_path / "source"), mode="a") as store:
            for number in range(4):
                ids = tuple(f"{number}.{row}" for row in range(128))
                store.write(ColumnBlock(ids, {"x": Values(array, "float32")}))
        del array
        for name in ("imports", "measured"):
            tracemalloc.stop()
            tracemalloc.start()
            with origin_of(registry, str(tmp_path / "source")) as origin:
                carry(registry, origin, str(tmp_path / f"{name}.{form}"), form)
            peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 12 << 20


class TestVerify:
    @pytest.mark.parametrize("storage", STORES)
    def test_sound_and_damaged(self, storage, tmp_path, registry):
        given = values(1, rows=64, width=64, special=False)
        path = tmp_path / "x"
        with open_named(registry, storage, str(path), mode="a") as store:
            store.write(block([f"s{i}" for i in range(64)], y=values(2, rows=64), x=given))
            found = check_all(Origin(store, None))
            assert found.damaged == []
            every = found.chunks
            assert sum(chunk.bytes for chunk in every) == given.array.nbytes + 64 * 16
            assert sum(chunk.samples for chunk in every) == 128
        needle, hits = given.array[40].tobytes(), 0
        for file in path.rglob("*"):
            if file.is_file() and needle in (data := file.read_bytes()):
                at = data.index(needle) + 3
                file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
                hits += 1
        assert hits == 1
        with origin_of(registry, str(path)) as origin:
            damaged = [chunk for chunk in check_all(origin).damaged if chunk.column]
            assert [chunk.column for chunk in damaged] == ["x"]
            assert "damaged" in damaged[0].problem

    @pytest.mark.parametrize("form", [*FILES, "zarr", "lmdb", "hdf5", "npy"])
    def test_damage_is_not_copied(self, form, source, tmp_path, registry):
        """Reads of LMDB need not compare checksums; those of copies do."""
        damage(source, read(registry, source)[0]["some/last"][2].array.tobytes())
        with origin_of(registry, str(source)) as origin:
            origin.store.read("some/last")
            with pytest.raises(StoreError, match=r"'some/last'.*is damaged"):
                carry(registry, origin, str(tmp_path / "x"), form)
        assert not (tmp_path / "x").exists() or form in ("zarr", "lmdb")

    def test_shards_are_checked(self, source, tmp_path, registry):
        shutil.copytree(source, tmp_path / "other")
        damage(tmp_path / "other", read(registry, source)[0]["some/last"][2].array.tobytes())
        stores = [open_named(registry, "lmdb", str(tmp_path / name), mode="r")
                  for name in ("source", "other")]  # fmt: skip
        with ShardedStore(stores) as sharded:
            damaged = [chunk.column for chunk in sharded.verify() if chunk.problem]
        assert damaged == ["some/last"]

    def test_a_store_without_checksums_is_read(self, registry):
        with open_named(registry, "memory", "verify", mode="a") as store:
            store.write(block("ab", x=values(1, rows=2)))
            found = check_all(Origin(store, None))
        (chunk,) = found.chunks
        assert (chunk.samples, chunk.bytes, found.damaged, found.open) == (2, 32, [], [])
