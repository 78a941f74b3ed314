"""A run killed with SIGKILL goes on where it stopped, bit for bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from tests import _program, _small_writes
from vlmlens import Run

SAMPLES = 400
DATA = ["--limit", str(SAMPLES), "--set", f"options.dataset.scenes={SAMPLES // 5}"]
COMMAND = ["extract", *DATA, "--batch-size", "4", "-q"]


def stored(run: Path) -> int:
    """Rows that a reader in another process sees right now."""
    try:
        with Run(run).store() as store:
            return min((column.samples for column in store.columns()), default=0)
    except Exception:  # the store does not exist yet
        return 0


def kill_after(run: Path, rows: int) -> int:
    mode = ["--resume"] if run.exists() else []
    command = (*COMMAND, "--out", run, *mode)
    with _program.started(*command, cwd=run.parent, code=_small_writes.CODE) as program:
        program.until(lambda: stored(run) >= rows)
        os.kill(program.pid, signal.SIGKILL)
        assert program.wait(60) == -signal.SIGKILL, program.said()
    return stored(run)


@pytest.mark.slow
def test_killed_twice_and_resumed(tmp_path: Path) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    first = kill_after(broken, 40)
    assert 40 <= first < SAMPLES
    assert first % 4 == 0, "a batch is stored whole or not at all"
    assert Run(broken).info["state"] == "running"
    second = kill_after(broken, first + 40)
    assert first + 40 <= second < SAMPLES
    for more in ((broken, "--resume"), (whole,)):
        done = _program.vlmlens(*COMMAND, "--out", *more)
        assert done.returncode == 0, done.stderr
    resumed, reference = Run(broken), Run(whole)
    assert resumed.info["state"] == "finished"
    assert list(resumed.activations) == list(reference.activations)
    for name in reference.activations:
        assert resumed.activations[name].shape == (SAMPLES, 128)
        assert np.array_equal(resumed.activations[name], reference.activations[name]), name
    with resumed.store() as store:
        ids = store.ids("llm.block.0/last")
    assert sorted(ids) == sorted({sample.id for sample in reference.samples}), "nothing twice"
