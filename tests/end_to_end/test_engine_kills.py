"""Workers, machines and drivers killed while a run is extracted: it ends whole, bit for bit.

`benchmarks/attacks/engine_kills.py` does this at random moments, many times.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.attacks._ray_nodes import Nodes
from benchmarks.attacks.engine_kills import done, faults, stored, workers_of

from tests import _program

SITES = ("llm.block.1/last", "llm.block.2/all")
DATA = ["--limit", "400", "--set", "options.dataset.scenes=80"]
COMMAND = ["extract", *DATA, "--batch-size", "4", *(f"--sites={s}" for s in SITES)]

WARM = {"VLMLENS_TEST_PYTHON": _program.worker_python()}


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    """What one process stores."""
    out = tmp_path_factory.mktemp("whole") / "run"
    ended = _program.vlmlens(*COMMAND, "--out", out)
    assert ended.returncode == 0, ended.stderr
    return stored(out, SITES)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """Two machines of Ray on loopback: 4 to 7 s, once for this file."""
    pytest.importorskip("ray", reason="Ray is not installed")
    made = Nodes()
    yield made
    made.end()


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def resumed(out: Path, right: dict[str, list[bytes]], *engine: object) -> None:
    ended = _program.vlmlens(*COMMAND, "--out", out, "--resume", *engine, **WARM)
    assert ended.returncode == 0, ended.stderr
    assert faults(out, right, SITES) == []


@pytest.mark.slow
def test_processes_killed(tmp_path: Path, right: dict[str, list[bytes]]) -> None:
    """One worker, then all, then the driver."""
    out = tmp_path / "run"
    started = _program.started(*COMMAND, "--out", out, "--workers", 2, cwd=tmp_path, **WARM)
    with started as driver:
        driver.until(lambda: done(out) >= 2)
        kill(_program.itself(workers_of(driver.pid)[0]))
        driver.until(lambda: done(out) >= 5)
        kill(*map(_program.itself, workers_of(driver.pid)))
        driver.until(lambda: done(out) >= 8)
        said = driver.said()[1]
        kill(driver.pid)
        assert driver.wait(60) == -signal.SIGKILL
    assert said.count("was ended by SIGKILL") >= 2, said
    finished = done(out)
    resumed(out, right, "--workers", 3)
    assert finished < done(out)


@pytest.mark.slow
def test_ray_killed(tmp_path: Path, right: dict[str, list[bytes]], nodes: Nodes) -> None:
    """An actor, then a raylet, then the driver."""
    out, engine = tmp_path / "run", ("--engine", "ray", "--address", nodes.address)
    started = _program.started(*COMMAND, "--out", out, *engine, "--workers", 2, cwd=tmp_path)
    with started as driver:
        driver.until(lambda: done(out) >= 2)
        kill(nodes.actors()[0])
        driver.until(lambda: "was lost; another one does its part" in driver.said()[1])
        driver.until(lambda: done(out) >= 5)
        kill(nodes.raylets()[0])
        driver.until(lambda: done(out) >= 8)
        kill(driver.pid)
        assert driver.wait(60) == -signal.SIGKILL
    finished = done(out)
    resumed(out, right, *engine, "--workers", 1)
    assert finished < done(out)
