"""Taking part in what another process planned: who may, and what is not run."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from tests._engines import Silent, engine, execute_or_join, part, plan, same, spec

from vlmlens import Run
from vlmlens.abc.engine import Part
from vlmlens.errors import (
    CompositionError,
    RunError,
    SpecError,
    UntrustedRun,
)
from vlmlens.registry import Registry
from vlmlens.runner.execution import execute
from vlmlens.runner.joining import is_first, join
from vlmlens.runs.leases import lease_plans
from vlmlens.testing.engine import OneByOne
from vlmlens_plugins.engines import environment


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return execute(plan(tmp_path_factory.mktemp("whole") / "run"), extract_only=True)


def changed_plan(out: Path) -> Path:
    """Let a plan name code of somebody else; the file that the code would write."""
    code, stolen = out.parent / "evil.py", out.parent / "stolen"
    path = out / "leases" / "001" / "plan.json"
    content = json.loads(path.read_text())
    content["order"]["spec"]["adapter"] = f"{code}:Evil"
    path.write_text(json.dumps(content))
    code.write_text(f"open({str(stolen)!r}, 'w')")
    return stolen


def test_who_takes_part_is_asked_the_same(tmp_path: Path) -> None:
    out = tmp_path / "run"
    execute_or_join(out, part(0, 2))
    with pytest.raises(SpecError, match=r"other settings: dtype was 'auto', is 'bfloat16'"):
        execute_or_join(out, part(1, 2), dtype="bfloat16")
    with pytest.raises(SpecError, match="Part 1 cannot start the run over"):
        is_first(spec(out), Part(1, 2), "fresh")
    with pytest.raises(SpecError, match="folder that all of them know"):
        is_first(spec(None), Part(1, 2), "new")
    assert is_first(spec(out), Part(0, 2), "fresh")


def test_a_plan_of_somebody_else_is_not_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    execute_or_join(out, part(0, 2))
    stolen = changed_plan(out)
    run_json = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**run_json, "signed": {}}))
    with pytest.raises(UntrustedRun):
        execute_or_join(out, part(1, 2))
    assert not stolen.exists()


def test_a_lease_that_somebody_changed_is_not_run(tmp_path: Path, whole: Run) -> None:
    out = tmp_path / "run"
    execute_or_join(out, part(0, 2))
    (plan_,) = lease_plans(out)
    path = plan_.folder / f"{plan_.open()[0]}.json"
    content = json.loads(path.read_text())
    content["samples"][0]["prompt"] = "Another question?"
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match="changed after it was planned"):
        execute_or_join(out, part(1, 2))
    same(execute(plan(out), mode="resume", extract_only=True, engine=OneByOne()), whole)


def test_a_plan_that_somebody_changed_is_made_anew(tmp_path: Path, whole: Run) -> None:
    out = tmp_path / "run"
    execute_or_join(out, part(0, 2))
    stolen = changed_plan(out)
    run = execute(plan(out), mode="resume", extract_only=True, engine=OneByOne())
    assert not stolen.exists()
    assert [each.folder.name for each in lease_plans(out)] == ["001", "002"]
    same(run, whole)


@pytest.mark.parametrize(
    ("variables", "number", "count"),
    [
        ({"RANK": "1", "WORLD_SIZE": "4"}, 1, 4),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "7"}, 0, 2),
    ],
)
def test_what_torchrun_and_srun_say(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], number: int, count: int
) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SpecError, match="not set, so this is no part of a run"):
        engine("environment")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = engine("environment").part()
    assert found is not None
    assert (found.number, found.count, bool(found.group)) == (number, count, True)


@pytest.mark.parametrize(
    ("gpus", "processes", "each", "shares"),
    [
        ("0,1,2,3", 2, None, ["0,1", "2,3"]),
        ("4,5", 2, None, ["4", "5"]),
        ("4,5", 3, 0.5, ["4", "4", "5"]),
        ("4,5,6,7", 2, 1, ["4", "5"]),
        ("7", 2, 0.5, ["7", "7"]),
        ("7", 2, None, ["7", "7"]),
    ],
)
def test_processes_of_torchrun_share_the_gpus(
    monkeypatch: pytest.MonkeyPatch,
    gpus: str,
    processes: int,
    each: float | None,
    shares: list[str],
) -> None:
    found = []
    refused = each is None and len(set(shares)) < processes
    for number in range(processes):
        values = {"RANK": number, "LOCAL_RANK": number, "CUDA_VISIBLE_DEVICES": gpus}
        sizes = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        for name, value in (values | sizes).items():
            monkeypatch.setenv(name, str(value))
        environment._take_gpus.cache_clear()
        options = {} if each is None else {"gpus_per_worker": each}
        engine("environment", **options)
        made = engine("environment", **options)
        if refused:
            with pytest.raises(CompositionError, match="2 workers with 1 GPUs each need 2 GPUs"):
                made.check_gpus()
        else:
            made.check_gpus()
        found.append(os.environ["CUDA_VISIBLE_DEVICES"])
    environment._take_gpus.cache_clear()
    assert found == shares


@pytest.mark.parametrize("text", ["3", "4/4", "a/2", "-1/2", "1/"])
def test_no_shard(text: str) -> None:
    with pytest.raises(SpecError, match="is not a shard"):
        engine("environment", shard=text)


def test_a_group_shares_the_leases(tmp_path: Path, whole: Run, monkeypatch: Any) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_PORT", "29501")
    out, said = tmp_path / "run", Silent()
    monkeypatch.setenv("RANK", "1")
    second = engine("environment")
    assert not is_first(spec(out), second.part() or Part(0, 1), "new")
    waiting = threading.Thread(target=join, args=(spec(out), second, Registry.default(), said))
    waiting.start()
    monkeypatch.setenv("RANK", "0")
    execute(plan(out), extract_only=True, engine=engine("environment"))
    waiting.join(60)
    assert not waiting.is_alive()
    assert said.done == 60
    same(Run(out), whole)
