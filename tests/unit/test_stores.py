from __future__ import annotations

from types import SimpleNamespace

import fsspec
import pytest

from vlmlens.errors import SpecError, StoreError, UnknownPlugin
from vlmlens.manifest import PluginKind
from vlmlens.registry import Registry
from vlmlens.runner.run_folder import check_room
from vlmlens.runs.own_files import contents
from vlmlens.runs.run import Run
from vlmlens.samples import Sample
from vlmlens.spec.model import make_spec
from vlmlens.stores.opening import beside, open_found, open_named
from vlmlens.testing._stores import block, values
from vlmlens_plugins.storage._remote_place import Remote


@pytest.fixture(scope="module")
def registry():
    return Registry.default()


class TestNames:
    @pytest.mark.parametrize(
        ("storage", "name"),
        [("lmdb", "lmdb"), ("lmdb:///x", "lmdb"), ("sqlite:///x.py:1", "sqlite"),
         ("db:///x", "sqlite"), ("zarr+s3://bucket/x", "zarr"), ("ZARR+memory://x", "zarr"),
         ("memory://x", "memory")],
    )  # fmt: skip
    def test_the_scheme_is_the_name(self, storage, name, registry):
        assert registry.find(PluginKind.STORAGE, storage).name == name

    @pytest.mark.parametrize("storage", ["s3://bucket/x", "lmbd:///x", "https+s3://x"])
    def test_unknown_schemes_name_what_is_known(self, storage, registry):
        with pytest.raises(UnknownPlugin, match=r"Installed: .*lmdb.*sqlite.*zarr"):
            open_named(registry, storage, "x", mode="a")

    @pytest.mark.parametrize(
        ("storage", "match"),
        [("lmdb://host/x", r"lmdb:///path"), ("sqlite://host/x", r"sqlite:///path"),
         ("zarr+file://host/x", r"zarr:///path"), ("lmdb+s3://bucket/x", "lmdb"),
         ("sqlite+s3://bucket/x.db", "sqlite:///path"), ("zarr+nonsense://x", "fsspec knows"),
         ("SAFETENSORS+nonsense://x", "fsspec knows"), ("safetensors+memory://x?y", "query"),
         ("lmdb:///x#1", "%23"), ("sqlite:///x.db?mode=ro", "%3F"), ("zarr:///x#1", "%23")],
    )  # fmt: skip
    def test_places_that_a_backend_does_not_reach(self, storage, match, registry, in_tmp):
        with pytest.raises(StoreError, match=match):
            open_named(registry, storage, "x", mode="a")
        assert list(in_tmp.iterdir()) == []

    @pytest.mark.parametrize("name", ["zarr", "safetensors"])
    def test_a_uri_of_something_else_is_no_folder(self, name, registry, in_tmp):
        with pytest.raises(StoreError, match=rf"{name}\+s3://bucket/path"):
            open_named(registry, name, "s3://bucket/x", mode="a")
        assert list(in_tmp.iterdir()) == []

    def test_options_are_checked(self, registry, tmp_path):
        with pytest.raises(SpecError, match="nonsense"):
            open_named(registry, f"sqlite://{tmp_path}/x", "", mode="a", options={"nonsense": 1})

    @pytest.mark.parametrize("scheme", ["lmdb", "sqlite", "zarr", "zarr+file"])
    def test_a_path_and_its_uri_are_one_store(self, scheme, registry, tmp_path):
        place = tmp_path / "my store"
        uri = f"{scheme}://{tmp_path}/my%20store"
        with open_named(registry, uri, "ignored", mode="a") as store:
            store.write(block("ab", x=values(1, rows=2)))
        for where in (uri, str(place)):
            with open_found(registry, where) as store:
                assert store.ids("x") == ["a", "b"]
        with pytest.raises(StoreError), open_found(registry, str(place), "memory"):
            pass


def cleared(run: Run) -> None:
    """Remove what a command would have listed in run.json."""
    run.update(made=sorted(contents(run.path)))
    run.clear()


class TestRuns:
    def make(self, folder, storage, registry, samples=("a", "b")):
        spec = make_spec({"adapter": "demo", "model": "m", "data": "x", "storage": storage})
        run = Run.create(folder, spec, {"state": "running"}, registry=registry)
        run.write_samples([Sample(name, "p", label=name.upper()) for name in samples])
        return run

    @pytest.mark.parametrize("storage", ["lmdb", "sqlite", "zarr"])
    def test_by_name_in_the_runs_folder(self, storage, registry, tmp_path):
        run = self.make(tmp_path / "run", storage, registry)
        with run.store(mode="a") as store:
            store.write(block("ab", x=values(1, rows=2)))
        assert (tmp_path / "run" / "columns").is_dir()
        with run.store() as store:
            assert store.ids("x") == ["a", "b"]
        with open_found(registry, str(tmp_path / "run" / "columns")) as store:
            known = [(sample.id, sample.label) for sample in store.samples()]
        assert known == ([("a", "A"), ("b", "B")] if storage == "sqlite" else [])
        cleared(run)
        assert list((tmp_path / "run").iterdir()) == []

    @pytest.mark.parametrize("scheme", ["lmdb://", "sqlite://", "zarr://", "zarr+memory://runs"])
    def test_by_uri_elsewhere(self, scheme, registry, tmp_path):
        uri = f"{scheme}{tmp_path}/elsewhere"
        run = self.make(tmp_path / "run", uri, registry)
        for name in "ab":
            with run.store(mode="a") as store:
                store.write(block(name, x=values(1, rows=1)))
        with run.store() as store:
            assert store.ids("x") == ["a", "b"]

    @pytest.mark.parametrize("scheme", ["lmdb://", "sqlite://", "zarr+memory://shared"])
    def test_another_runs_store_is_refused(self, scheme, registry, tmp_path):
        """Its rows have the same ids and may be of other samples. `--fresh` makes another run."""
        uri = f"{scheme}{tmp_path}/elsewhere"
        first = self.make(tmp_path / "first", uri, registry)
        with first.store(mode="a") as store:
            store.write(block("a", x=values(1, rows=1)))
        second = self.make(tmp_path / "second", uri, registry)
        with pytest.raises(StoreError, match="columns of another run"):
            second.store(mode="a")
        first.store(mode="a").close()
        with pytest.raises(StoreError, match="--fresh removes nothing outside"):
            check_room(SimpleNamespace(spec=second.spec, registry=registry))
        cleared(first)
        with pytest.raises(StoreError, match="columns of another run"):
            self.make(tmp_path / "first", uri, registry).store(mode="a")

    @pytest.mark.parametrize("scheme", ["lmdb://", "zarr+memory://after", "safetensors://"])
    def test_a_store_that_another_run_has_taken_since_is_not_read(self, scheme, registry, tmp_path):
        """Its rows have the same ids."""
        uri = f"{scheme}{tmp_path}/elsewhere"
        first, second = (self.make(tmp_path / name, uri, registry) for name in "ab")
        for number, run in enumerate((first, second)):
            with open_named(registry, uri, "", mode="a") as store:
                kind = type(store)
            kind.remove(uri, options=kind.Options())
            check_room(SimpleNamespace(spec=run.spec, registry=registry))
            with run.store(mode="a") as store:
                store.write(block("a", x=values(number, rows=1)))
        with second.store() as store:
            assert store.ids("x") == ["a"]
        with pytest.raises(StoreError, match="columns of another run"):
            first.store()

    def test_a_worker_tries_the_place_of_leases(self, registry, tmp_path, monkeypatch):
        run = self.make(tmp_path / "run", f"safetensors+memory:/{tmp_path}/x/", registry)
        run.store(mode="a").close()
        key = run.stores.key
        run.stores.try_lease(key)
        assert not fsspec.filesystem("memory").glob(f"{tmp_path}/x.leases/**")
        with pytest.raises(StoreError, match="of another run"):
            run.stores.try_lease("another")

        def denied(*args):
            raise PermissionError("Access Denied")

        monkeypatch.setattr(Remote, "put_pieces", denied)
        with pytest.raises(StoreError, match=r"Access Denied\. Check permissions"):
            run.stores.try_lease(key)

    @pytest.mark.parametrize("storage", ["zarr+s3://bucket", "safetensors+s3://bucket/"])
    def test_nothing_is_written_beside_a_bucket(self, storage):
        """`bucket.leases` would be a bucket of somebody else."""
        with pytest.raises(StoreError, match="s3://bucket/NAME"):
            beside(storage)
