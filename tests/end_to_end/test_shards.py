"""One run in several processes: shards read as one store, merged, and made by workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlmlens import Run
from vlmlens.compose.plan import Plan, compose
from vlmlens.errors import FingerprintMismatch, RunError, RunExists, SpecError, StoreError
from vlmlens.registry import Registry
from vlmlens.runner.execution import execute
from vlmlens.runner.merge import merge
from vlmlens.runner.workers import execute_in_workers
from vlmlens.runs.shards import Shard, shard_folders
from vlmlens.spec.model import make_spec
from vlmlens.testing._rounding import close

SITES = ["llm.block.1/last", "llm.block.2/all", "vision.block.1/image.mean"]


def plan(out: Path | None, **values: Any) -> Plan:
    chosen = {"limit": 60, "batch_size": 7, "sites": SITES, "out": str(out) if out else None}
    return compose(make_spec({**chosen, **values}), Registry.default(), analyse=False)


def same(one: Run, other: Run) -> None:
    assert [s.id for s in one.samples] == [s.id for s in other.samples]
    for name in SITES:
        for mine, theirs in zip(one.activations[name], other.activations[name], strict=True):
            assert np.array_equal(mine, theirs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return execute(plan(tmp_path_factory.mktemp("whole") / "run"), extract_only=True)


def sharded(out: Path, count: int = 3, **values: Any) -> Run:
    for number in range(count):
        execute(plan(out, **values), shard=Shard(number, count))
    return Run(out)


def test_shards_read_as_one_store_and_merge(tmp_path: Path, whole: Run) -> None:
    run = sharded(tmp_path / "run")
    assert run.info["state"] == "sharded"
    assert not (run.path / "columns").exists()
    same(run, whole)
    with run.store() as store:
        assert [info.name for info in store.columns()] == SITES
        assert all(info.samples == 60 for info in store.columns())
        assert store.read(SITES[0], []).array.shape == (0, 128)
        assert len(dict(store.iterate(SITES[0]))) == 60
        with pytest.raises(StoreError, match="cannot be written to"):
            store.set_meta({})
    assert merge(run) == 3
    assert not (run.path / "shards").exists()
    assert Run(run.path).info["state"] == "finished"
    same(Run(run.path), whole)
    again = execute(plan(run.path), mode="resume", extract_only=True)
    same(again, whole)


def test_what_shards_tell_outlives_them(tmp_path: Path) -> None:
    sites = [r"re:model\.language_model\.(rotary_emb|layers\.1)"]
    run = sharded(tmp_path / "run", 2, sites=sites, limit=20)
    told = "1 columns are left out, because their modules give no rows."
    assert [Run(folder).info["warnings"] for folder in shard_folders(run.path)] == [[told]] * 2
    merge(run)
    again = execute(plan(run.path, sites=sites, limit=20), mode="resume", extract_only=True)
    for info in (run.info, again.info):
        assert info["warnings"] == [told]
        assert list(info["without_rows"]) == ["model.language_model.rotary_emb/last"]
        assert info["shared_beginnings"] == 20
        assert [each["shard"] for each in info["shards"]] == ["0-of-2", "1-of-2"]
        assert all(each["seconds"]["extract"] > 0 for each in info["shards"])


def test_samples_that_are_left_out_are_told_where_shards_begin(tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    values = {"data": f"images:{tmp_path}", "prompt": "What?", "on_bad_sample": "skip"}
    run = sharded(tmp_path / "run", 2, **values)
    assert [bad.id for bad in run.skipped] == ["bad.png"]
    merge(run)
    assert [bad.id for bad in run.skipped] == ["bad.png"]


def test_what_is_not_finished_is_not_merged(tmp_path: Path) -> None:
    out = tmp_path / "run"
    for number in (0, 2):
        execute(plan(out), shard=Shard(number, 3))
    with pytest.raises(RunError, match="1 of 3 shards are missing or not finished: 1-of-3"):
        merge(Run(out))
    with Run(out).store() as store, pytest.raises(StoreError, match="of any shard") as caught:
        store.read(SITES[0], [sample.id for sample in Run(out).samples])
    assert "--resume" in caught.value.hint
    execute(plan(out), shard=Shard(1, 3))
    Run(out / "shards" / "1-of-3").update(state="interrupted")
    with pytest.raises(RunError, match="1-of-3"):
        merge(Run(out))


def test_shards_made_differently_do_not_merge(tmp_path: Path) -> None:
    out = tmp_path / "run"
    execute(plan(out), shard=Shard(0, 2))
    execute(plan(out, dtype="bfloat16"), shard=Shard(1, 2))
    with pytest.raises(FingerprintMismatch, match="dtype"):
        merge(Run(out))


def test_shards_of_two_divisions(tmp_path: Path) -> None:
    run = sharded(tmp_path / "run", 2, limit=8)
    execute(plan(run.path, limit=8), shard=Shard(1, 3))
    with pytest.raises(RunError, match="shards of 2 and of 3"):
        run.store()


def test_a_run_is_not_overwritten_by_shards(tmp_path: Path, whole: Run) -> None:
    with pytest.raises(RunExists, match="finished"):
        execute(plan(whole.path), shard=Shard(0, 2))
    with pytest.raises(SpecError, match="folder that all of them know"):
        execute(plan(None), shard=Shard(0, 2))
    with pytest.raises(RunError, match="has no shards"):
        merge(whole)


@pytest.mark.parametrize(
    ("variables", "shard"),
    [
        ({"RANK": "1", "WORLD_SIZE": "4"}, Shard(1, 4)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, Shard(0, 2)),
    ],
)
def test_what_torchrun_and_srun_say(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], shard: Shard
) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SpecError, match="--shard env found no shard"):
        Shard.parse("env")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Shard.parse("env") == shard


@pytest.mark.parametrize("text", ["3", "4/4", "a/2", "-1/2", "1/"])
def test_no_shard(text: str) -> None:
    with pytest.raises(SpecError, match="is not a shard"):
        Shard.parse(text)


@pytest.mark.slow
def test_workers(tmp_path: Path, whole: Run) -> None:
    run = execute_in_workers(plan(tmp_path / "run", generate=2), 2, extract_only=True)
    assert run.info["state"] == "finished"
    assert len(run.generated) == 60
    for name in SITES:
        for mine, theirs in zip(run.activations[name], whole.activations[name], strict=True):
            close(mine, theirs)


@pytest.mark.slow
def test_a_worker_that_fails_is_heard(tmp_path: Path) -> None:
    wrong = plan(tmp_path / "run")
    spec = wrong.spec.model_copy(update={"device": "cuda:7"})
    with pytest.raises(RunError, match=r"(?s)Worker \d ended with code 2.*cuda:7"):
        execute_in_workers(Plan(**{**vars(wrong), "spec": spec}), 2, extract_only=True)
