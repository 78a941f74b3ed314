"""Runs into an S3-compatible store that is busy, slow and cuts connections, with killed workers."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.attacks.engine_kills import done, faults, stored, workers_of
from tests._engines import SITES, plan, same
from tests._object_store import ObjectStore
from typer.testing import CliRunner

from tests import _program
from vlmlens import Run
from vlmlens.abc.engine import Work, Worker
from vlmlens.cli._app import app
from vlmlens.errors import StoreCorrupt, StoreError
from vlmlens.runner.execution import execute
from vlmlens.runner.merge import merge
from vlmlens.runs.leases import lease_plans
from vlmlens.testing.engine import OneByOne

PLACE = "safetensors+s3://bucket/"


@pytest.fixture(scope="module")
def environment() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            patch.setenv(name, value)
        yield patch


@pytest.fixture(scope="module")
def server(environment: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    made = ObjectStore()
    environment.setenv("AWS_ENDPOINT_URL", made.endpoint)
    yield made
    made.close()


@pytest.fixture
def s3(server: ObjectStore) -> Iterator[ObjectStore]:
    yield server
    server.fault = lambda environ: None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What one process stores, in LMDB."""
    return execute(plan(tmp_path_factory.mktemp("whole") / "run"), extract_only=True)


@pytest.fixture(scope="module")
def leased(tmp_path_factory: pytest.TempPathFactory, server: ObjectStore) -> Run:
    """A finished run of many leases, made while a third of the requests failed."""
    dice = random.Random(0)
    kinds = ("busy", "lost", "cut", "dead")
    server.fault = lambda environ: dice.choice(kinds) if dice.random() < 0.35 else None
    out = tmp_path_factory.mktemp("leased") / "run"
    run = execute(plan(out, storage=f"{PLACE}leased"), extract_only=True, engine=OneByOne())
    assert server.faults >= 5
    server.fault = lambda environ: None
    return run


class Twice(OneByOne):
    """Each lease is run by two workers at the same time; the later one commits first."""

    def run_one(self, work: Work, name: str, worker: Worker) -> None:
        taken = [work.take(name) for _ in range(2)]
        receipts = [worker(each, lambda done: None) for each in taken]
        assert [work.finish(name, receipt) for receipt in receipts[::-1]] == [True, False]


def test_a_run_of_leases_is_what_one_process_stores(
    leased: Run, whole: Run, s3: ObjectStore
) -> None:
    leases = lease_plans(leased.path)[0].names
    assert len(leases) >= 12
    parts = s3.objects("leased.leases/")
    assert len(parts) == len(leases), "one object per lease"
    same(leased, whole)


def test_opening_costs_no_request_per_lease(leased: Run, s3: ObjectStore) -> None:
    s3.requests.clear()
    with Run(leased.path).store() as store:
        infos = store.columns()
        ids = store.ids(SITES[0])
        store.get_meta()
        assert [info.samples for info in infos] == [60] * 3
        assert len(ids) == 60
        assert len(s3.requests) <= 5, s3.requests
        s3.requests.clear()
        store.read(SITES[0])
        headers = [each for each in s3.requests if "leased.leases" not in each]
        assert len(s3.requests) - len(headers) <= len(lease_plans(leased.path)[0].names)


def test_receipts_without_cards_are_read_right(leased: Run, whole: Run, s3: ObjectStore) -> None:
    """As a reader that does not trust them, or an older worker, would leave them."""
    kept = {path: path.read_bytes() for path in leased.path.glob("leases/*/*.done")}
    try:
        for path, content in list(kept.items())[::2]:
            receipt = json.loads(content)
            assert receipt.pop("store")
            path.write_text(json.dumps(receipt))
        same(Run(leased.path), whole)
    finally:
        for path, content in kept.items():
            path.write_bytes(content)


def test_two_writers_of_one_lease(tmp_path: Path, whole: Run, s3: ObjectStore) -> None:
    made = plan(tmp_path / "run", storage=f"{PLACE}twice")
    run = execute(made, extract_only=True, engine=Twice())
    same(run, whole)
    assert len(s3.objects("twice.leases/")) == len(lease_plans(run.path)[0].names)


def test_a_lost_and_a_cut_object_are_told(leased: Run, s3: ObjectStore) -> None:
    key = next(iter(s3.objects("leased.leases/")))
    content = s3.get(key)
    try:
        s3.put(key, content[: len(content) - 5])
        with Run(leased.path).store() as store:
            problems = [check.problem for check in store.verify() if check.problem]
            assert problems
            assert all("ends too early" in each and key[-40:] in each for each in problems)
            with pytest.raises(StoreCorrupt, match="ends too early"):
                [store.read(site) for site in SITES]
        s3.client.delete_object(Bucket="bucket", Key=key)
        shown = _program.vlmlens("verify", leased.path)
        assert shown.returncode == 2
        assert "is missing" in shown.stdout + shown.stderr
    finally:
        s3.put(key, content)


def test_what_a_run_can_do(tmp_path: Path, whole: Run, s3: ObjectStore) -> None:
    """Resumed, shown, exported, verified, merged, and started over."""
    out, place = tmp_path / "run", f"{PLACE}used"

    class Half(OneByOne):
        def run(self, work: Work) -> None:
            self.order = lambda names: names[: len(names) // 2]
            super().run(work)

    execute(plan(out, storage=place), extract_only=True, engine=Half())
    before = s3.objects("used.leases/")
    rest = OneByOne()
    execute(plan(out, storage=place), mode="resume", extract_only=True, engine=rest)
    assert before.items() <= s3.objects("used.leases/").items()
    same(Run(out), whole)
    for command in (("verify", out), ("export", out, tmp_path / "x.npz"), ("show", out)):
        ended = CliRunner().invoke(app, [*map(str, command)])
        assert ended.exit_code == 0, ended.output
    assert merge(Run(out)) == len(before) + len(rest.ran)
    same(Run(out), whole)
    assert s3.objects("used.leases/") == {}
    s3.requests.clear()
    with Run(out).store() as store:
        assert len(store.ids(SITES[0])) == 60
        assert len(s3.requests) <= 5
    again = execute(plan(out, storage=place), mode="resume", extract_only=True)
    same(again, whole)


def test_a_store_that_stays_away(tmp_path: Path, s3: ObjectStore) -> None:
    """One clear error, and what is stored stays."""
    out = tmp_path / "run"
    settings = {"storage": f"{PLACE}away", "options": {"storage": {"patience": 0.5}}}

    class Gone(OneByOne):
        def run_one(self, work: Work, name: str, worker: Worker) -> None:
            if len(self.ran) == 4:
                s3.fault = lambda environ: "busy" if environ["REQUEST_METHOD"] == "PUT" else None
            super().run_one(work, name, worker)

    with pytest.raises(StoreError, match=r"object store s3://bucket/away.*reduce") as caught:
        execute(plan(out, **settings), extract_only=True, engine=Gone())
    assert caught.value.exit_code == 2
    assert "--resume" in caught.value.hint
    s3.fault = lambda environ: None
    assert done(out) == 3
    assert len(s3.objects("away.leases/")) == 3


@pytest.mark.slow
def test_workers_killed(tmp_path: Path, s3: ObjectStore) -> None:
    data = ["--limit", 200, "--set", "options.dataset.scenes=40"]
    command = ["extract", *data, "--batch-size", 4, *(f"--sites={s}" for s in SITES)]
    ended = _program.vlmlens(*command, "--out", tmp_path / "whole")
    assert ended.returncode == 0, ended.stderr
    right = stored(tmp_path / "whole", SITES)
    out, dice = tmp_path / "run", random.Random(1)
    kinds = ("busy", "lost", "cut", "slow")
    s3.fault = lambda environ: dice.choice(kinds) if dice.random() < 0.1 else None
    more: list[Any] = ["--out", out, "--storage", f"{PLACE}killed"]
    warm = {"VLMLENS_TEST_PYTHON": _program.worker_python()}
    with _program.started(*command, *more, "--workers", 2, cwd=tmp_path, **warm) as driver:
        driver.until(lambda: done(out) >= 2)
        os.kill(_program.itself(workers_of(driver.pid)[0]), signal.SIGKILL)
        assert driver.wait(120) == 0, driver.said()
    s3.fault = lambda environ: None
    assert faults(out, right, SITES) == []
    assert len(s3.objects("killed.leases/")) == done(out)
