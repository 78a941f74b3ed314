"""However a command is ended, the state of its run is recorded, and its workers end with it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests import _program, _small_writes
from vlmlens import Run
from vlmlens.runs.leases import lease_plans

DATA = ("--limit", "800", "--set", "options.dataset.scenes=160")
MORE = (*DATA, "--batch-size", "2", "--sites", "llm.block.1/last", "-q")


def rows(run: Path) -> int:
    try:
        with Run(run).store() as store:
            return min((info.samples for info in store.columns()), default=0)
    except Exception:  # the store does not exist yet
        return 0


def running(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(
    ("number", "times"),
    [(signal.SIGTERM, 5), (signal.SIGHUP, 1)],
)
def test_signals_end_a_run_like_ctrl_c(tmp_path: Path, number: int, times: int) -> None:
    command = ("extract", *MORE, "--out", "run")
    with _program.started(*command, cwd=tmp_path, code=_small_writes.CODE) as program:
        program.until(lambda: rows(tmp_path / "run") > 20)
        for _ in range(times):
            os.kill(program.pid, number)
        status, said = program.wait(120), "".join(program.said())
    assert status == 128 + number, said
    assert Run(tmp_path / "run").info["state"] == "interrupted"
    assert "Traceback" not in said
    assert "--resume" in said


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    command = ("extract", *MORE, "--out", "run")
    with _program.started(
        *command, cwd=tmp_path, code=_small_writes.CODE, ignored=[signal.SIGHUP]
    ) as program:
        program.until(lambda: rows(tmp_path / "run") > 20)
        os.kill(program.pid, signal.SIGHUP)
        known = rows(tmp_path / "run")
        program.until(lambda: rows(tmp_path / "run") > known)
        os.kill(program.pid, signal.SIGKILL)
        assert program.wait(120) == -signal.SIGKILL
    assert Run(tmp_path / "run").info["state"] == "running"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_parent(tmp_path: Path, number: int) -> None:
    """After SIGTERM, workers are forks of the warm process; else they start as a user's do."""
    warm = {"VLMLENS_TEST_PYTHON": _program.worker_python()} if number == signal.SIGTERM else {}
    (tmp_path / "yaml.py").write_text("open('stolen', 'w')")
    (tmp_path / "evil.py").write_text("open('stolen', 'w')")
    metadata = tmp_path / "evil-1.0.dist-info"
    metadata.mkdir()
    (metadata / "entry_points.txt").write_text("[vlmlens.plugins]\nevil = evil\n")
    (metadata / "METADATA").write_text("Name: evil\nVersion: 1.0\n")
    out = tmp_path / "run"
    command = ("extract", *MORE, "--out", "run", "--workers", "2")
    with _program.started(*command, cwd=tmp_path, **warm) as program:
        program.until(lambda: any(plan.done() for plan in lease_plans(out)))
        children = [*map(_program.itself, workers_of(program.pid))]
        assert len(children) == 2
        os.kill(program.pid, number)
        program.wait(120)
        program.until(lambda: not any(running(child) for child in children), 30)
    state = "interrupted" if number == signal.SIGTERM else "running"
    assert Run(out).info["state"] == state
    assert not (tmp_path / "stolen").exists()


def workers_of(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for path in tasks for child in path.read_text().split()]
