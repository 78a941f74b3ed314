"""Stores as users handle them: every backend in a run, export, import, verify, old databases."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit._vlmlens_database import make_database, probe_reads

from tests import _program
from vlmlens import Run
from vlmlens.abc import ColumnBlock

SMALL = ("--limit", "12", "--sites", "llm.block.1/last", "--sites", "vision.block.1/image")


def vlmlens(*args: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return _program.vlmlens(*args, cwd=cwd, **{"COLUMNS": "200", **env})


def document(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the same small run in each backend; by name, and by a URI elsewhere."""
    cwd = tmp_path_factory.mktemp("stores")
    storages = {
        "lmdb": "lmdb",
        "sqlite": "sqlite",
        "zarr": "zarr",
        "uri": f"sqlite://{cwd}/else%20where.db",
    }
    for name, storage in storages.items():
        done = vlmlens("extract", *SMALL, "--storage", storage, "--out", name, cwd=cwd)
        assert done.returncode == 0, done.stderr
    return cwd


@pytest.fixture
def old(tmp_path):
    """A database of VLM-Lens in whose second layer the label can be read."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number in range(60):
        for layer, signal in (("model.layers.0", 0.0), ("model.layers.1", 4.0)):
            made = torch.randn(1, 16, generator=generator)
            made[0, 0] += signal if number % 2 else -signal
            row = {"image_id": number, "image_path": f"/gone/{number}.png", "layer": layer}
            label = "yes" if number % 2 else "no"
            rows.append({**row, "label": label, "pooling_method": "mean", "tensor": made})
    make_database(tmp_path / "old.db", rows)
    return tmp_path / "old.db"


def arrays(cwd, run):
    """All numbers of a run, through an npz file."""
    target = cwd / f"{run} as.npz"
    if not target.exists():
        document(vlmlens("export", run, target, "--json", cwd=cwd))
    with np.load(target) as file:
        return {name: file[name].tobytes() for name in file.files if name != "index.json"}


@pytest.mark.parametrize("name", ["sqlite", "zarr", "uri"])
def test_backends_hold_the_same_numbers(name, place):
    assert arrays(place, name) == arrays(place, "lmdb")
    shown = document(vlmlens("show", name, "--json", cwd=place))
    assert [column["samples"] for column in shown["columns"]] == [12, 12]


def test_resume_in_a_store_elsewhere(place):
    again = vlmlens("extract", "-c", "uri/spec.yaml", "--resume", cwd=place)
    assert again.returncode == 0, again.stderr
    assert "already stored" in again.stderr
    fresh = vlmlens("extract", "-c", "uri/spec.yaml", "--fresh", "--out", "other", cwd=place)
    assert fresh.returncode == 2
    assert "columns of another run" in fresh.stderr


def test_vlm_lens_reads_a_runs_database(place):
    features, labels = probe_reads(place / "sqlite/columns/tensors.db", "llm.block.1/last")
    assert features.shape[0] == len(labels) == 12
    assert all(labels)


@pytest.mark.parametrize("target", ["x.safetensors", "x.parquet", "x.zarr", "x.db"])
def test_export_import_round_trip(target, place, tmp_path):
    document(vlmlens("export", place / "lmdb", tmp_path / target, "--json", cwd=tmp_path))
    back = document(vlmlens("import", target, "back.lmdb", "--json", cwd=tmp_path))
    assert back == {"target": "back.lmdb", "format": "lmdb"}
    assert arrays(tmp_path, "back.lmdb") == arrays(place, "lmdb")
    again = vlmlens("export", place / "lmdb", tmp_path / target, cwd=tmp_path)
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_a_part_of_a_run_and_a_cut_file(place, tmp_path):
    flags = ("--sites", "llm.*", "--samples", "*color")
    done = vlmlens("export", place / "lmdb", "new/x.npz", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "new" / "x.npz") as file:
        assert {name for name in file.files if name != "index.json"} == {"llm.block.1/last"}
        assert 0 < len(file["llm.block.1/last"]) < 12
    data = (tmp_path / "new" / "x.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    done = vlmlens("import", "cut.npz", "back.lmdb", cwd=tmp_path)
    assert done.returncode == 2
    assert "'cut.npz' cannot be imported" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "back.lmdb").exists()


def test_unknown_storage_is_one_message(tmp_path):
    done = vlmlens("extract", "--storage", "s3://bucket/x", cwd=tmp_path)
    assert done.returncode == 2
    assert "There is no storage 's3'" in done.stderr
    assert "Installed: lmdb" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_verify(place, tmp_path):
    sound = document(vlmlens("verify", "lmdb", "--json", cwd=place))
    assert sound["damaged"] == []
    assert sound["bytes"] > 0
    document(vlmlens("export", place / "lmdb", tmp_path / "x.lmdb", "--json", cwd=tmp_path))
    data = bytearray((tmp_path / "x.lmdb" / "data.mdb").read_bytes())
    values = arrays(place, "lmdb")["llm.block.1/last"]
    data[data.index(values[:64]) + 7] ^= 1
    (tmp_path / "x.lmdb" / "data.mdb").write_bytes(data)
    done = vlmlens("verify", "x.lmdb", "--json", cwd=tmp_path)
    assert done.returncode == 2
    (damaged,) = json.loads(done.stdout)["damaged"]
    assert damaged["column"] == "llm.block.1/last"
    shown = vlmlens("verify", "x.lmdb", cwd=tmp_path)
    assert shown.returncode == 2
    assert re.search(r"\d+ chunks, .*: 1 problems", shown.stdout)


def without_last_column(run):
    """The store's last column is gone, seal and all, as if another store had been copied there."""
    with Run(run).store() as store:
        kept = [(info.name, store.ids(info.name), store.read(info.name))
                for info in store.columns()[:-1]]  # fmt: skip
    shutil.rmtree(run / "columns")
    with Run(run).store(mode="a") as store:
        for name, ids, values in kept:
            store.write(ColumnBlock(tuple(ids), {name: values}))


def without_samples(run):
    lines = (run / "samples.jsonl").read_text().splitlines(keepends=True)
    (run / "samples.jsonl").write_text("".join(lines[:7]))


def of_nothing(run):
    shutil.rmtree(run / "columns")
    Run(run).store(mode="a").close()


def emptied(run):
    (run / "columns" / "data.mdb").write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without_last_column, "12 of 12 samples have no value"),
        (without_samples, "it has 7 lines, and 12 were written"),
        (of_nothing, "12 of 12 samples have no value"),
        (emptied, "is empty"),
    ],
)
def test_verify_knows_what_should_be_there(damage, said, place, tmp_path):
    shutil.copytree(place / "lmdb", tmp_path / "run")
    damage(tmp_path / "run")
    done = vlmlens("verify", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stdout + done.stderr


def test_verify_of_a_run_that_is_not_finished(place, tmp_path):
    shutil.copytree(place / "lmdb", tmp_path / "run")
    of_nothing(tmp_path / "run")
    Run(tmp_path / "run").update(state="interrupted")
    done = vlmlens("verify", "run", cwd=tmp_path)
    assert done.returncode == 0
    assert "12 of 12 samples have no value" in done.stdout
    assert "the run is not finished (interrupted)" in done.stdout


class TestOldDatabase:
    def test_probe(self, old):
        done = vlmlens("analyze", "old.db", "--analysis", "probe", "--json", cwd=old.parent)
        data = document(done)
        assert data["run"] == "old.db.vlmlens"
        assert any("model.layers.1/mean" in finding["text"] for finding in data["findings"])
        report = (old.parent / "old.db.vlmlens" / "report.html").read_text()
        assert "vlmlens analyze old.db --analysis probe" in report
        again = document(
            vlmlens("analyze", "old.db.vlmlens", "--analysis", "probe", "--json", cwd=old.parent)
        )
        assert again["findings"] == data["findings"]

    def test_a_copy_in_another_store_gives_the_same(self, old):
        document(vlmlens("import", "old.db", "new.zarr", "--json", cwd=old.parent))
        found = [
            document(vlmlens("analyze", store, "--analysis", "probe", "--json", cwd=old.parent))
            for store in ("old.db", "new.zarr")
        ]
        assert found[0]["findings"] == found[1]["findings"]

    def test_without_a_model(self, old):
        done = vlmlens("analyze", "old.db", "--json", cwd=old.parent)
        assert {finding["analysis"] for finding in document(done)["findings"]} == {"probe"}
        assert "blind-test is left out" in done.stderr
        done = vlmlens("analyze", "old.db", "--analysis", "blind-test", cwd=old.parent)
        assert done.returncode == 2
        assert "needs the model, but old.db has none" in done.stderr

    def test_a_store_that_knows_no_samples(self, place):
        done = vlmlens("analyze", "lmdb/columns", "--analysis", "probe", cwd=place)
        assert done.returncode == 2
        assert "does not know its samples" in done.stderr

    def test_choosing_a_model(self, old, tmp_path):
        make_database(old, [{"name": "org/other", "tensor": torch.zeros(1, 16)}])
        done = vlmlens("analyze", "old.db", "--analysis", "probe", cwd=tmp_path)
        assert done.returncode == 2
        assert "tensors of 2 models" in done.stderr
        chosen = "options.storage.model=org/model"
        done = vlmlens("analyze", "old.db", "--analysis", "probe", "--set", chosen, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
