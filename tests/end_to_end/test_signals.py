"""However a command is ended, the state of its run is recorded, and its workers end with it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests import _program
from vlmlens import Run

MORE = ("--limit", "3000", "--batch-size", "2", "--sites", "llm.block.1/last", "-q")


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
    with _program.started("extract", *MORE, "--out", "run", cwd=tmp_path) as program:
        program.until(lambda: rows(tmp_path / "run") > 20)
        for _ in range(times):
            os.kill(program.pid, number)
        status, said = program.wait(120), "".join(program.said())
    assert status == 128 + number, said
    assert Run(tmp_path / "run").info["state"] == "interrupted"
    assert "Traceback" not in said
    assert "--resume" in said


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    with _program.started(
        "extract", *MORE, "--out", "run", cwd=tmp_path, ignored=[signal.SIGHUP]
    ) as program:
        program.until(lambda: rows(tmp_path / "run") > 20)
        os.kill(program.pid, signal.SIGHUP)
        known = rows(tmp_path / "run")
        program.until(lambda: rows(tmp_path / "run") > known)
        os.kill(program.pid, signal.SIGKILL)
        assert program.wait(120) == -signal.SIGKILL
    assert Run(tmp_path / "run").info["state"] == "running"


def test_a_worker_ends_when_its_parent_is_gone(tmp_path: Path) -> None:
    worker = """
import os, time
reads, writes = os.pipe()
if child := os.fork():
    os.close(reads)
    time.sleep(0.2)
    assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended before its parent"
    os.close(writes)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    from vlmlens.cli._signals import end_like_interrupt, end_with_parent
    from vlmlens.runs.shards import WORKER

    os.dup2(reads, 0)
    os.close(writes)
    os.environ[WORKER] = "1"
    end_like_interrupt()
    end_with_parent()
    try:
        time.sleep(100)
    except KeyboardInterrupt as error:
        os._exit(error.exit_code)
    os._exit(0)
"""
    done = _program.python(worker, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "143\n"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_parent(tmp_path: Path, number: int) -> None:
    (tmp_path / "yaml.py").write_text("open('stolen', 'w')")
    (tmp_path / "evil.py").write_text("open('stolen', 'w')")
    metadata = tmp_path / "evil-1.0.dist-info"
    metadata.mkdir()
    (metadata / "entry_points.txt").write_text("[vlmlens.plugins]\nevil = evil\n")
    (metadata / "METADATA").write_text("Name: evil\nVersion: 1.0\n")
    out = tmp_path / "run"
    command = ("extract", *MORE, "--out", "run", "--workers", "2")
    with _program.started(*command, cwd=tmp_path) as program:
        program.until(lambda: all(rows(out / "shards" / f"{i}-of-2") > 20 for i in range(2)))
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
        assert len(children) == 2
        os.kill(program.pid, number)
        program.wait(120)
        program.until(lambda: not any(running(int(child)) for child in children), 30)
    states = [Run(out / "shards" / f"{i}-of-2").info["state"] for i in range(2)]
    assert states == ["interrupted"] * 2
    if number == signal.SIGTERM:
        assert Run(out).info["state"] == "interrupted"
    assert not (tmp_path / "stolen").exists()
