"""However a command is ended, the state of its run is recorded, and its workers end with it."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vlmlens import Run
from vlmlens.compose.plan import compose
from vlmlens.registry import Registry
from vlmlens.spec.model import make_spec

MORE = ("--limit", "3000", "--batch-size", "2", "--sites", "llm.block.1/last", "-q")


@pytest.fixture(autouse=True, scope="module")
def _imported() -> None:
    """Import here what the forked processes need, once."""
    importlib.import_module("vlmlens.extraction.extraction")
    importlib.import_module("vlmlens.cli.extract")
    compose(make_spec({"limit": 1}), Registry.default(), analyse=False).load()


def started(folder: Path, *arguments: str) -> int:
    """The process id of `vlmlens ARGUMENTS` in a folder; what it says goes to the file `said`."""
    child = os.fork()
    if child:
        return child
    os.chdir(folder)
    said = os.open("said", os.O_WRONLY | os.O_CREAT)
    for stream, number in ((0, os.open(os.devnull, os.O_RDONLY)), (1, said), (2, said)):
        os.dup2(number, stream)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w")
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w")
    sys.argv = ["vlmlens", *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        from vlmlens.cli import main

        main()
    except SystemExit as end:
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:
        os._exit(99)
    os._exit(0)


def until(true: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


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
    before = signal.signal(number, signal.SIG_DFL)  # nohup around the tests ignores some
    child = started(tmp_path, "extract", *MORE, "--out", "run")
    signal.signal(number, before)
    until(lambda: rows(tmp_path / "run") > 20)
    for _ in range(times):
        os.kill(child, number)
    _, status = os.waitpid(child, 0)
    said = (tmp_path / "said").read_text()
    assert os.waitstatus_to_exitcode(status) == 128 + number, said
    assert Run(tmp_path / "run").info["state"] == "interrupted"
    assert "Traceback" not in said
    assert "--resume" in said


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        child = started(tmp_path, "extract", *MORE, "--out", "run")
        until(lambda: rows(tmp_path / "run") > 20)
        os.kill(child, signal.SIGHUP)
        known = rows(tmp_path / "run")
        until(lambda: rows(tmp_path / "run") > known)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert Run(tmp_path / "run").info["state"] == "running"


def test_a_worker_ends_when_its_parent_is_gone(tmp_path: Path) -> None:
    from vlmlens.cli._signals import end_like_interrupt, end_with_parent
    from vlmlens.runs.shards import WORKER

    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(reads, 0)
        os.close(writes)
        os.environ[WORKER] = "1"
        end_like_interrupt()
        end_with_parent()
        try:
            time.sleep(100)
        except KeyboardInterrupt as error:
            os._exit(getattr(error, "exit_code", 1))
        os._exit(0)
    os.close(reads)
    time.sleep(0.2)
    assert running(child)
    os.close(writes)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 143


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
    parent = started(tmp_path, "extract", *MORE, "--out", "run", "--workers", "2")
    until(lambda: all(rows(out / "shards" / f"{i}-of-2") > 20 for i in range(2)))
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    assert len(children) == 2
    os.kill(parent, number)
    os.waitpid(parent, 0)
    until(lambda: not any(running(int(child)) for child in children), 30)
    states = [Run(out / "shards" / f"{i}-of-2").info["state"] for i in range(2)]
    assert states == ["interrupted"] * 2
    if number == signal.SIGTERM:
        assert Run(out).info["state"] == "interrupted"
    assert not (tmp_path / "stolen").exists()
