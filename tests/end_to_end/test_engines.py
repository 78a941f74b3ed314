"""One run in several processes: planned once, cut into leases, the same numbers from everyone."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests._engines import SITES, Silent, engine, execute_or_join, in_parts, part, plan, same
from tests._program import vlmlens

from vlmlens import Run
from vlmlens.abc.engine import Work
from vlmlens.compose.plan import Plan
from vlmlens.errors import (
    CheckpointNotFound,
    CompositionError,
    FingerprintMismatch,
    RunError,
    SpecError,
    StoreError,
)
from vlmlens.registry import Registry
from vlmlens.runner import begin_worker
from vlmlens.runner.execution import engine_of, execute
from vlmlens.runner.merge import merge
from vlmlens.runs.leases import lease_plans
from vlmlens.spec.model import make_spec
from vlmlens.testing._rounding import close
from vlmlens.testing.engine import OneByOne


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return execute(plan(tmp_path_factory.mktemp("whole") / "run"), extract_only=True)


# ------------------------------------------------------------------------ parts


def test_parts_give_what_one_process_gives(tmp_path: Path, whole: Run) -> None:
    out = tmp_path / "run"
    execute_or_join(out, part(0, 3))
    assert Run(out).info["state"] == "unfinished"
    with Run(out).store() as store, pytest.raises(StoreError, match="of any part") as caught:
        store.read(SITES[0], [sample.id for sample in Run(out).samples])
    assert "--resume" in caught.value.hint
    with pytest.raises(RunError, match=r"parts of .* are missing or not finished: lease"):
        merge(Run(out))
    in_parts(out)
    assert Run(out).info["state"] == "finished"
    assert Run(out).info["shared_beginnings"] == whole.info["shared_beginnings"]
    assert not (out / "columns").exists()
    same(Run(out), whole)
    leases = lease_plans(out)[0].names
    with Run(out).store() as store:
        assert [info.name for info in store.columns()] == SITES
        assert store.read(SITES[0], []).array.shape == (0, 128)
        assert len(dict(store.iterate(SITES[0]))) == 60
        with pytest.raises(StoreError, match="cannot be written to"):
            store.set_meta({})
    again = execute(plan(out), mode="resume", extract_only=True)
    assert again.info["state"] == "finished"
    assert merge(again) == len(leases)
    same(Run(out), whole)


def test_leases_do_not_depend_on_who_runs_them(tmp_path: Path, whole: Run) -> None:
    backwards = OneByOne(lambda names: names[::-1])
    run = execute(plan(tmp_path / "run"), extract_only=True, engine=backwards)
    assert len(backwards.ran) >= 8
    same(run, whole)
    assert merge(run) == len(backwards.ran)
    assert merge(run) == 0
    same(Run(run.path), whole)


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path, whole: Run) -> None:
    out = tmp_path / "run"
    execute_or_join(out, part(1, 4))
    done = lease_plans(out)[0].done()
    assert 0 < len(done) < len(lease_plans(out)[0].names)
    kept = {name: lease_plans(out)[0].receipt(name) for name in done}
    rest = OneByOne()
    execute(plan(out), mode="resume", extract_only=True, engine=rest)
    assert not done & set(rest.ran), "no finished lease is run again"
    assert {name: lease_plans(out)[0].receipt(name) for name in done} == kept
    same(Run(out), whole)


def test_one_process_goes_on_with_what_several_began(tmp_path: Path, whole: Run) -> None:
    out = tmp_path / "run"
    execute_or_join(out, part(0, 2))
    execute(plan(out), mode="resume", extract_only=True)
    assert (out / "columns").exists()
    assert lease_plans(out)[0].closed
    same(Run(out), whole)
    nothing = OneByOne()
    execute(plan(out), mode="resume", extract_only=True, engine=nothing)
    assert nothing.ran == []


def test_several_go_on_with_what_one_process_began(tmp_path: Path, whole: Run) -> None:
    out = tmp_path / "run"
    execute(plan(out, limit=20), extract_only=True)
    execute(plan(out), mode="resume", extract_only=True, engine=OneByOne())
    same(Run(out), whole)
    merge(Run(out))
    same(Run(out), whole)


def test_more_columns_make_a_plan_of_their_own(tmp_path: Path, whole: Run) -> None:
    out = tmp_path / "run"
    execute(plan(out, sites=SITES[:1]), extract_only=True, engine=OneByOne())
    execute(plan(out), mode="resume", extract_only=True, engine=OneByOne())
    assert [lease_plan.folder.name for lease_plan in lease_plans(out)] == ["001", "002"]
    lacking = lease_plans(out)[1].lease("00000")["lacking"]
    assert lacking == [SITES[1:]]
    same(Run(out), whole)


# ------------------------------------------------------------- attempts, receipts


def test_the_first_receipt_counts(tmp_path: Path, whole: Run) -> None:
    class Twice(OneByOne):
        def run_one(self, work: Work, name: str, run_lease: Any) -> None:
            first, second = work.take(name), work.take(name)
            receipts = [run_lease(lease, lambda done: None) for lease in (first, second)]
            assert work.finish(name, receipts[1])
            assert not work.finish(name, receipts[0])

    run = execute(plan(tmp_path / "run", limit=20), extract_only=True, engine=Twice())
    stores = [path for path in (run.path / "leases" / "001").iterdir() if "-" in path.name]
    assert len(stores) == len(lease_plans(run.path)[0].names), "the loser's rows are removed"
    assert run.activations[SITES[0]].shape == (20, 128)


def test_what_a_lost_worker_wrote_is_removed_by_the_next_start(tmp_path: Path) -> None:
    class Dies(OneByOne):
        def run_one(self, work: Work, name: str, run_lease: Any) -> None:
            run_lease(work.take(name), lambda done: None)
            raise KeyboardInterrupt

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        execute(plan(out, limit=20), extract_only=True, engine=Dies())
    left = [path for path in (out / "leases" / "001").iterdir() if "-" in path.name]
    assert len(left) == 1
    assert Run(out).info["state"] == "interrupted"
    with pytest.raises(StoreError, match="No store"):
        Run(out).store()
    execute(plan(out, limit=20), mode="resume", extract_only=True, engine=OneByOne())
    assert not left[0].exists()


def test_rows_made_under_other_conditions_are_refused(tmp_path: Path) -> None:
    class Other(OneByOne):
        def run_one(self, work: Work, name: str, run_lease: Any) -> None:
            receipt = run_lease(work.take(name), lambda done: None)
            if len(self.ran) > 1:
                receipt["fingerprint"] = {**receipt["fingerprint"], "torch": "0.0"}
            work.finish(name, receipt)

    with pytest.raises(FingerprintMismatch, match=r"torch was '.*', is '0\.0'"):
        execute(plan(tmp_path / "run"), extract_only=True, engine=Other())
    with pytest.raises(FingerprintMismatch, match="dtype"):
        execute(plan(tmp_path / "run", dtype="bfloat16"), mode="resume", engine=OneByOne())


def test_images_are_read_by_the_planner_only(tmp_path: Path) -> None:
    """Workers get ids, prompts and paths; without the pictures, they fail, and not before."""
    for number in range(12):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(tmp_path / f"{number:02}.png")
    values = {"data": f"images:{tmp_path}", "prompt": "What?", "batch_size": 1, "limit": None}

    class Late(OneByOne):
        def run(self, work: Work) -> None:
            self.names = work.names()

    late = Late()
    run = execute(plan(tmp_path / "run", **values), extract_only=True, engine=late)
    assert run.info["state"] == "unfinished"
    lease = lease_plans(run.path)[0].lease(late.names[0])
    assert all(
        Path(image).is_absolute() for record in lease["samples"] for image in record["images"]
    )


def test_a_worker_that_does_not_see_the_folder_writes_nothing(tmp_path: Path) -> None:
    class Away(OneByOne):
        def run(self, work: Work) -> None:
            for changed in ({"run": str(tmp_path / "away")}, {"key": "another"}):
                with pytest.raises(RunError, match="does not see the run's folder"):
                    begin_worker({**work.order, **changed})
            with pytest.raises(CompositionError, match=r"planned by 0\.0\.0"):
                begin_worker({**work.order, "vlmlens": "0.0.0"})

    execute(plan(tmp_path / "run", limit=8), extract_only=True, engine=Away())
    assert not (tmp_path / "away").exists()


def test_stores_elsewhere_lie_beside_the_runs_own(tmp_path: Path, whole: Run) -> None:
    place = tmp_path / "elsewhere" / "x"
    out, storage = tmp_path / "run", f"zarr+file://{place}"
    run = execute(plan(out, storage=storage), extract_only=True, engine=OneByOne())
    assert place.exists()
    assert len(list(Path(f"{place}.leases", "001").iterdir())) == len(lease_plans(out)[0].names)
    same(run, whole)
    with pytest.raises(StoreError, match="holds the columns of another run"):
        execute(plan(tmp_path / "other", storage=storage), extract_only=True, engine=OneByOne())
    with pytest.raises(StoreError, match="--fresh removes nothing outside"):
        execute(plan(out, storage=storage), mode="fresh", extract_only=True, engine=OneByOne())
    with pytest.raises(FingerprintMismatch, match=r"written to the storage 'zarr\+file"):
        execute(plan(out, storage=f"{storage}2"), mode="resume", extract_only=True)
    order = lease_plans(out)[0].order
    for changed in ({"store": "another"}, {"spec": {**order["spec"], "storage": f"{storage}2"}}):
        with pytest.raises(RunError, match=r"worker on .* cannot write beside the run's store"):
            begin_worker({**order, **changed})
    same(run, whole)
    merge(run)
    assert list(Path(f"{place}.leases", "001").iterdir()) == []
    same(Run(out), whole)


# -------------------------------------------------------------------- processes


def test_wrong_numbers_of_workers() -> None:
    for text in ("0", "x", "3:2", "1:2:3", "-1"):
        with pytest.raises(SpecError, match="is no number of workers"):
            engine(workers=text)
    with pytest.raises(SpecError, match="workers"):
        engine("environment", shard="0/2", workers="2")
    with pytest.raises(SpecError, match="but no engine"):
        engine_of(make_spec({"options": {"engine": {"workers": "2"}}}), Registry.default())
    with pytest.raises(CompositionError, match="is no address of a Ray cluster"):
        engine("ray", address="ray://head:10001")


@pytest.mark.slow
@pytest.mark.usefixtures("warm_workers")
def test_processes_and_one_that_is_killed(tmp_path: Path, whole: Run) -> None:
    said, killed = Silent(), []

    def kill(done: int) -> None:
        if done >= 12 and not killed:
            killed.append(children(os.getpid())[0])
            os.kill(killed[0], signal.SIGKILL)

    said.advance = kill  # type: ignore[method-assign]
    out = tmp_path / "run"
    run = execute(plan(out, generate=2), extract_only=True, engine=engine(workers=2), observer=said)
    assert any("was ended by SIGKILL" in message for message in said.said)
    assert run.info["state"] == "finished"
    assert len(run.generated) == 60
    assert not [path for path in children(os.getpid()) if path == killed[0]]
    for name in SITES:
        for mine, theirs in zip(run.activations[name], whole.activations[name], strict=True):
            close(mine, theirs)


@pytest.mark.usefixtures("warm_workers")
def test_a_worker_that_fails_is_heard(tmp_path: Path) -> None:
    wrong = plan(tmp_path / "run", limit=4)
    gone = wrong.spec.model_copy(update={"model": str(tmp_path / "gone"), "adapter": "hf"})
    with pytest.raises(CheckpointNotFound, match=r"Worker \d: .*gone"):
        execute(Plan(**{**vars(wrong), "spec": gone}), extract_only=True, engine=engine(workers=1))
    assert Run(tmp_path / "run").info["state"] == "failed"


def children(process: int) -> list[int]:
    """Worker processes of a process."""
    found = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        for child in path.read_text().split():
            command = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"worker_process" in command:
                found.append(int(child))
    return found


def test_dry_runs_and_flags_from_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "run"
    more = ("--limit", "4", "--sites", SITES[0], "--out", out)
    refused = vlmlens("extract", *more, "--workers", "2:1")
    assert refused.returncode == 2
    assert "is no number of workers" in refused.stderr
    dry = vlmlens("extract", *more, "--workers", "2", "--dry-run")
    assert dry.returncode == 0
    assert not out.exists()
    done = vlmlens("extract", *more, "--shard", "0/1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["columns"] == [SITES[0]]
    assert "engine" not in (out / "spec.yaml").read_text() or Run(out).spec.engine is None
