"""What engines do when workers fail: half lines, failed starts, full disks, lost machines."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from vlmlens.abc.engine import Json, Work, Worker
from vlmlens.errors import CompositionError, FileError, RunError
from vlmlens.registry import Registry
from vlmlens.runner.execution import engine_of
from vlmlens.runner.worker_process import expected, told
from vlmlens.spec.model import make_spec
from vlmlens_plugins.engines._handout import MOST_STARTS, Handout, failed
from vlmlens_plugins.engines.ray import RayOptions, _resources


class Leases(Work):
    """Leases by name, and what was dropped."""

    def __init__(self, *names: str) -> None:
        self.order: Json = {}
        self._names = list(names)
        self.finished: list[str] = []
        self.dropped: list[tuple[str, bool]] = []
        self.said: list[str] = []

    def begin(self) -> Worker:
        raise NotImplementedError

    def names(self) -> list[str]:
        return self._names

    def open(self) -> list[str]:
        return [name for name in self._names if name not in self.finished]

    def busy(self, name: str) -> bool:
        return False

    def take(self, name: str) -> Json:
        return {"samples": [{"id": name}]}

    def finish(self, name: str, receipt: Json) -> bool:
        self.finished.append(name)
        return True

    def drop(self, name: str, lease: Json, *, gone: bool = True) -> None:
        self.dropped.append((name, gone))

    def advance(self, name: str, done: int) -> None:
        return

    def warn(self, message: str) -> None:
        self.said.append(message)


def test_a_worker_that_never_gets_ready_is_given_up() -> None:
    handout = Handout(Leases("a"), "Worker")
    for _ in range(MOST_STARTS - 1):
        handout.lost(0, "ended with code 1.")
    handout.lost(1, "ended with code 1.")  # another one has its own count
    with pytest.raises(RunError, match=r"Worker 0 was lost 3 times before it was ready.*code 1"):
        handout.lost(0, "ended with code 1.")


def test_losses_of_workers_that_were_ready_are_not_failed_starts() -> None:
    work = Leases(*"abcdefgh")
    handout = Handout(work, "Worker")
    for _ in range(2 * MOST_STARTS):
        handout.take(0)
        handout.finish(0, {})
        handout.lost(0, "was ended by SIGKILL.")
    assert len(work.said) == 2 * MOST_STARTS


def test_what_may_still_be_written_is_looked_at_again_by_the_next_start() -> None:
    work = Leases("a", "b")
    handout = Handout(work, "Ray worker")
    handout.take(0)
    handout.take(1)
    handout.lost(0, "does not answer.", gone=False)
    handout.lost(1, "ended.", gone=True)
    handout.clear()
    assert work.dropped == [("b", True), ("a", False)]


@pytest.fixture
def half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are killed in the middle of a line, which a full pipe makes possible."""
    script = tmp_path / "python"
    script.write_text('#!/bin/sh\nread order\nprintf \'{"receipt": {"att\'\nkill -9 $$\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


@pytest.mark.usefixtures("half_line")
def test_a_worker_killed_in_the_middle_of_a_line() -> None:
    """Its listener must see the end: the driver would wait for ever."""
    spec = make_spec({"engine": "processes", "options": {"engine": {"workers": 1}}})
    engine = engine_of(spec, Registry.default())
    assert engine is not None
    with pytest.raises(RunError, match="before it was ready; at last it was ended by SIGKILL"):
        engine.run(Leases("a"))


def test_a_full_disk_of_a_worker_is_one_clear_error() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/run/leases/001")
    known = expected(full)
    assert known is not None
    raised = failed(3, told(known))
    assert isinstance(raised, FileError)
    assert raised.message.startswith("Worker 3: No space is left on the disk")
    assert expected(OSError("a bug")) is None
    assert expected(ValueError("a bug")) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"engine": "processes", "storage": "memory"}, "does not offer 'durable'"),
        ({"engine": "processes", "storage": "safetensors+memory://x/y"}, "fsspec's 'memory'"),
        ({"engine": "ray", "address": "127.0.0.1:99999"}, "is no address of a Ray cluster"),
        ({"engine": "ray", "address": "host.invalid:6379"}, "cannot be reached"),
    ],
)
def test_what_cannot_work_is_said_before_a_run_is_planned(
    values: Mapping[str, Any], message: str
) -> None:
    if values["engine"] == "ray":
        pytest.importorskip("ray", reason="Ray is not installed")
    own = {key: value for key, value in values.items() if key == "address"}
    settings = {key: value for key, value in values.items() if key != "address"}
    with pytest.raises(CompositionError, match=message):
        engine_of(make_spec({**settings, "options": {"engine": own}}), Registry.default())


def test_an_address_that_nobody_listens_at() -> None:
    """Ray itself would wait for minutes."""
    pytest.importorskip("ray", reason="Ray is not installed")
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but it does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        spec = make_spec({"engine": "ray", "options": {"engine": {"address": address}}})
        with pytest.raises(CompositionError, match="cannot be reached: Connection refused"):
            engine_of(spec, Registry.default())


@pytest.mark.parametrize(
    ("asked", "has", "gets"), [(None, 4, 1), (None, 1, None), (0, 4, None), (2, 0, 2)]
)
def test_each_worker_of_ray_gets_a_gpu_if_there_are_enough(
    asked: int | None, has: float, gets: int | None
) -> None:
    options = RayOptions(workers="2:4", gpus_per_worker=asked)
    assert _resources(options, {"CPU": 8, "GPU": has}).get("num_gpus") == gets
