"""What a run may remove and replace: what vlmlens made, while no other process works on it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests._killed import killed_at, merges

from tests import _program
from vlmlens import Run
from vlmlens.abc import ModelAdapter
from vlmlens.compose.plan import Plan, compose
from vlmlens.errors import FileError, RunError, RunExists, StoreLocked
from vlmlens.registry import Registry
from vlmlens.report.files import write_result
from vlmlens.results import Result
from vlmlens.runner.execution import analyze, execute
from vlmlens.runner.merge import merge
from vlmlens.runner.run_folder import start_over
from vlmlens.runs.leases import lease_plans
from vlmlens.runs.lock import changing
from vlmlens.spec.model import make_spec
from vlmlens.testing.engine import OneByOne

SITE = "llm.block.1/last"


@cache
def composed() -> tuple[Plan, ModelAdapter]:
    """The plan that all runs here begin with, and its model."""
    spec = make_spec({"limit": 12, "batch_size": 4, "sites": [SITE]})
    made = compose(spec, Registry.default(), analyse=False)
    return made, made.load()


def plan(out: Path, limit: int = 12, prompt: str | None = None) -> Plan:
    made, model = composed()
    samples = [replace(each, prompt=prompt or each.prompt) for each in made.samples[:limit]]
    spec = made.spec.model_copy(update={"out": str(out)})
    return replace(made, spec=spec, samples=samples, load=lambda: model)


def extracted(out: Path) -> Run:
    return execute(plan(out), extract_only=True)


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder but locks."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock" and path.name != "lock.mdb"
    }


@pytest.fixture(scope="module")
def leased(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that several processes wrote."""
    out = tmp_path_factory.mktemp("leased") / "run"
    execute(plan(out), extract_only=True, engine=OneByOne())
    return out


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as older versions wrote it: each process a run of its own."""
    out = tmp_path_factory.mktemp("sharded") / "run"
    made = extracted(out)
    for number in range(3):
        some = replace(
            plan(out / "shards" / f"{number}-of-3"), samples=plan(out).samples[number::3]
        )
        execute(some, extract_only=True)
    shutil.rmtree(out / "columns")
    made.update(state="sharded", sharded=3, made=[])
    return out


# --------------------------------------------------------------------- --fresh


@pytest.mark.parametrize("when", ["before", "after", "both"])
def test_fresh_leaves_the_users_files(tmp_path: Path, when: str) -> None:
    users = [
        "notes.md", "plugins/mine.py", "plugins/deep/er.txt", "results/thesis.csv",
        "results/thesis.json", "images/photo.png", "papers/x.svg",
    ]  # fmt: skip
    late = [] if when == "before" else ["columns/readme.txt", "shards/mine.txt", "leases/x.txt"]
    here = {"before": users, "after": users + late, "both": users + late}[when]

    def save(names: list[str]) -> None:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("mine")

    if when != "after":
        save(users[:4] if when == "both" else users)
    run = extracted(tmp_path)
    write_result(Result("probe", "Probe"), tmp_path / "results")
    (tmp_path / "results" / "probe.map.svg").write_text("<svg/>")
    save(here)
    again = execute(plan(tmp_path, limit=8), mode="fresh", extract_only=True)
    assert {name: (tmp_path / name).read_text() for name in here} == dict.fromkeys(here, "mine")
    assert not (tmp_path / "results" / "probe.json").exists()
    assert not (tmp_path / "results" / "probe.map.svg").exists()
    assert again.activations[SITE].shape == (8, 128)
    assert len(run.path.joinpath("samples.jsonl").read_text().splitlines()) == 8


def test_fresh_of_a_run_without_a_list(tmp_path: Path) -> None:
    run = extracted(tmp_path)
    info = run.info
    assert "columns/data.mdb" in info.pop("made")
    (tmp_path / "run.json").write_text(json.dumps(info))
    (tmp_path / "results").mkdir(exist_ok=True)
    (tmp_path / "results" / "thesis.csv").write_text("mine")
    execute(plan(tmp_path, limit=8), mode="fresh", extract_only=True)
    assert (tmp_path / "results" / "thesis.csv").exists()
    assert Run(tmp_path).activations[SITE].shape == (8, 128)


def test_a_list_names_nothing_outside(tmp_path: Path) -> None:
    run = extracted(tmp_path / "run")
    (tmp_path / "mine.txt").write_text("mine")
    wrong = ["results/..", "results/../../mine.txt", "../mine.txt", str(tmp_path / "mine.txt"), "."]
    (run.path / "results").mkdir(exist_ok=True)
    run.update(made=[*run.info["made"], *wrong])
    execute(plan(run.path), mode="fresh", extract_only=True)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_what_a_killed_run_did_not_list_is_not_removed(tmp_path: Path) -> None:
    run = extracted(tmp_path)
    run.update(state="running")
    (tmp_path / "columns" / "unknown.npy").write_bytes(b"?")
    before = contents(tmp_path)
    with pytest.raises(RunError, match=r"killed.*unknown\.npy"):
        execute(plan(tmp_path), mode="fresh", extract_only=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["samples.jsonl", "spec.yaml", "report.html", "columns/x", "leases/x"]
)
@pytest.mark.parametrize("mode", ["new", "fresh", "resume"])
def test_a_new_run_replaces_no_file_of_the_user(tmp_path: Path, name: str, mode: Any) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(RunExists, match=name.partition("/")[0]):
        execute(plan(tmp_path), mode=mode, extract_only=True)
    assert contents(tmp_path) == {name: b"mine"}
    assert list(tmp_path.iterdir()) == [tmp_path / name.partition("/")[0]]


@pytest.mark.parametrize("number", [2, 4, 6, 9])
def test_fresh_that_was_killed_starts_over(tmp_path: Path, number: int) -> None:
    extracted(tmp_path)
    new = plan(tmp_path, prompt="Why?")
    assert killed_at(number, lambda: start_over(Run(tmp_path), new))
    assert Run(tmp_path).info["state"] == "starting over"
    again = execute(new, mode="resume", extract_only=True)
    assert {sample.prompt for sample in again.samples} == {"Why?"}
    assert again.info["state"] == "finished"
    assert len(again.activations[SITE]) == 12


# --------------------------------------------------------------------- one process at a time


HOLD = """
import sys, time
from pathlib import Path
from vlmlens.runs.leases import lease_plans
from vlmlens.runs.lock import changing

with changing(Path(sys.argv[1]), shared=bool(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def in_another_process() -> Iterator[Any]:
    """A function that lets another process hold the right to change a folder."""
    with ExitStack() as stack:

        def hold(folder: Path, *, shared: bool = False) -> None:
            program = _program.started(folder, "shared" if shared else "", cwd=folder, code=HOLD)
            stack.enter_context(program).until(lambda: "held" in program.said()[0])

        yield hold


@pytest.mark.parametrize(
    "other",
    [
        lambda out: execute(plan(out), mode="resume", extract_only=True),
        lambda out: execute(plan(out, limit=5), mode="resume", extract_only=True),
        lambda out: execute(plan(out), mode="fresh", extract_only=True),
        lambda out: execute(plan(out), mode="fresh", extract_only=True, engine=OneByOne()),
        lambda out: execute(plan(out), mode="resume", extract_only=True, engine=OneByOne()),
        lambda out: merge(Run(out)),
        lambda out: analyze(Run(out), {"blind-test": {}}, Registry.default()),
    ],
    ids=["resume", "limit", "fresh", "engine", "engine-resume", "merge", "analyze"],
)
def test_a_running_run_is_left_alone(tmp_path: Path, other: Any, in_another_process: Any) -> None:
    run = extracted(tmp_path / "run")
    before = contents(run.path)
    in_another_process(run.path)
    with pytest.raises(StoreLocked, match=r"Process \d+ .* writes to the run"):
        other(run.path)
    assert contents(run.path) == before


def test_fresh_leaves_running_shards_alone(
    tmp_path: Path, sharded: Path, in_another_process: Any
) -> None:
    shutil.copytree(sharded, tmp_path / "run")
    before = contents(tmp_path / "run")
    in_another_process(tmp_path / "run" / "shards" / "1-of-3")
    for work in (
        lambda: execute(plan(tmp_path / "run"), mode="fresh", extract_only=True),
        lambda: execute(plan(tmp_path / "run"), mode="fresh", extract_only=True, engine=OneByOne()),
        lambda: merge(Run(tmp_path / "run")),
    ):
        with pytest.raises(StoreLocked, match="1-of-3"):
            work()
        assert contents(tmp_path / "run") == before


def test_analyses_share_a_run(tmp_path: Path, in_another_process: Any) -> None:
    run = extracted(tmp_path / "run")
    in_another_process(run.path, shared=True)
    with changing(run.path, shared=True):
        pass
    with pytest.raises(StoreLocked):
        execute(plan(run.path), mode="fresh", extract_only=True)


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    with _program.started(tmp_path, "", cwd=tmp_path, code=HOLD) as program:
        program.until(lambda: "held" in program.said()[0])
        os.kill(program.pid, signal.SIGKILL)
        program.wait(60)
    with changing(tmp_path):
        pass


# --------------------------------------------------------------------- merge


@pytest.mark.parametrize("old", [False, True])
def test_merge_killed_anywhere_loses_nothing(
    tmp_path: Path, leased: Path, sharded: Path, old: bool
) -> None:
    source = sharded if old else leased
    whole = Run(source).activations[SITE]
    assert len(whole) == 12
    number, out = 0, tmp_path / "run"
    shutil.copytree(source, out)
    shutil.copytree(source, tmp_path / "first")
    with merges(tmp_path / "first") as program:
        while program.killed_at(number, out):
            run = Run(out)
            assert np.array_equal(run.activations[SITE], whole), number
            merge(Run(out))
            assert np.array_equal(run.activations[SITE], whole), number
            assert run.info["state"] == "finished"
            assert not (out / "shards").exists()
            assert not (out / "leases").exists()
            assert not list(out.rglob("*.tmp"))
            shutil.rmtree(out)
            shutil.copytree(source, out)
            number += 1
    assert number > 20


def test_resuming_cleans_up_after_a_merge(tmp_path: Path, sharded: Path) -> None:
    shutil.copytree(sharded, tmp_path / "run")
    merge(Run(tmp_path / "run"))
    shutil.copytree(sharded / "shards", tmp_path / "run" / "shards")
    shutil.rmtree(tmp_path / "run" / "shards" / "0-of-3")
    assert len(Run(tmp_path / "run").activations[SITE]) == 12
    execute(plan(tmp_path / "run"), mode="resume", extract_only=True)
    assert not (tmp_path / "run" / "shards").exists()


def test_a_run_of_an_older_version_goes_on(tmp_path: Path, sharded: Path) -> None:
    shutil.copytree(sharded, tmp_path / "run")
    whole = Run(sharded).activations[SITE]
    shutil.rmtree(tmp_path / "run" / "shards" / "1-of-3")
    with pytest.raises(RunError, match="1-of-3"):
        merge(Run(tmp_path / "run"))
    run = execute(plan(tmp_path / "run"), mode="resume", extract_only=True)
    assert np.allclose(run.activations[SITE], whole, atol=1e-4)
    with run.stores.own() as own:
        assert len(own.ids(SITE)) == 4, "only what was missing"


def test_fresh_leaves_running_leases_alone(tmp_path: Path, leased: Path) -> None:
    shutil.copytree(leased, tmp_path / "run")
    plans = lease_plans(tmp_path / "run")
    (plans[0].folder / "00000.done").unlink()
    plans[0].begin("00000")
    before = contents(tmp_path / "run")
    with pytest.raises(StoreLocked, match="lease 00000"):
        execute(plan(tmp_path / "run"), mode="fresh", extract_only=True)
    assert contents(tmp_path / "run") == before
    plans[0].release_all()
    execute(plan(tmp_path / "run"), mode="fresh", extract_only=True)
    assert not (tmp_path / "run" / "leases").exists()


# --------------------------------------------------------------------- damaged files


@pytest.mark.parametrize("torn", [b"", b'{"state": "fin', b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_record_says_how_to_go_on(tmp_path: Path, torn: bytes) -> None:
    run = extracted(tmp_path)
    whole = run.activations[SITE]
    (tmp_path / "run.json").write_bytes(torn)
    with pytest.raises(RunError, match=r"run\.json.*damaged") as caught:
        run.info  # noqa: B018
    assert "--resume" in caught.value.hint
    assert "--fresh" in caught.value.hint
    with pytest.raises(RunExists, match="damaged"):
        extracted(tmp_path)
    again = execute(plan(tmp_path), mode="resume", extract_only=True)
    assert np.array_equal(again.activations[SITE], whole)
    assert again.info["state"] == "finished"
    (tmp_path / "run.json").write_bytes(torn)
    assert len(execute(plan(tmp_path, limit=4), mode="fresh").samples) == 4


@pytest.mark.parametrize("name", ["samples.jsonl", "spec.yaml"])
def test_damaged_lines_and_specs(tmp_path: Path, name: str) -> None:
    extracted(tmp_path)
    path = tmp_path / name
    text = path.read_text()
    for torn in (text[:-30] + "\n{", "{", "a: [b", "" if name == "samples.jsonl" else "- 1"):
        path.write_text(torn)
        with pytest.raises(RunError, match=rf"{name}.*damaged"):
            _ = (Run(tmp_path).samples, Run(tmp_path).spec)
        execute(plan(tmp_path), mode="resume", extract_only=True)
        assert path.read_text() == text
    assert len(Run(tmp_path).samples) == 12


def test_a_damaged_result_costs_the_report_only(tmp_path: Path) -> None:
    run = extracted(tmp_path)
    for result in (Result("probe", "Probe"), Result("other", "Other")):
        write_result(result, tmp_path / "results")
    run.update(made=[*run.info["made"], "results/probe.json", "results/other.json"])
    (tmp_path / "results" / "probe.json").write_text('{"analysis": "pro')
    again = execute(plan(tmp_path), mode="resume", extract_only=True)
    assert again.info["state"] == "finished"
    assert "probe.json holds no result" in again.info["warnings"][0]
    with pytest.raises(RunError, match=r"probe\.json.*Remove the file and run the analysis again"):
        _ = again.results
    (tmp_path / "results" / "probe.json").unlink()
    assert list(Run(tmp_path).results) == ["other"]


def test_missing_lines_are_noticed(tmp_path: Path) -> None:
    extracted(tmp_path)
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:7]))
    with pytest.raises(RunError, match="it has 7 lines, and 12 were written"):
        _ = Run(tmp_path).samples


# --------------------------------------------------------------------- what the system refuses


def test_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out, reason in (
        (tmp_path / "file", "exists already, and is no folder"),
        (tmp_path / "file" / "run", "below something that is no folder"),
        (tmp_path / ("x" * 300), "longer name"),
        (Path("/dev/null"), "no folder"),
    ):
        for mode in ("new", "resume", "fresh"):
            with pytest.raises(FileError, match=reason):
                execute(plan(out), mode=mode, extract_only=True)  # type: ignore[arg-type]
