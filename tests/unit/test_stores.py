from __future__ import annotations

import pytest

from vlmlens.errors import SpecError, StoreError, UnknownPlugin
from vlmlens.manifest import PluginKind
from vlmlens.registry import Registry
from vlmlens.runs.own_files import contents
from vlmlens.runs.run import Run
from vlmlens.samples import Sample
from vlmlens.spec.model import make_spec
from vlmlens.stores.opening import open_found, open_named
from vlmlens.testing._stores import block, values


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
         ("sqlite+s3://bucket/x.db", "sqlite:///path"), ("zarr+nonsense://x", "fsspec knows")],
    )  # fmt: skip
    def test_places_that_a_backend_does_not_reach(self, storage, match, registry, in_tmp):
        with pytest.raises(StoreError, match=match):
            open_named(registry, storage, "x", mode="a")
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
        cleared(first)
        with pytest.raises(StoreError, match="columns of another run"):
            self.make(tmp_path / "first", uri, registry).store(mode="a")
