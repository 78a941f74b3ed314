"""What all tests share: an own cache folder, no hub, one thread per process, the demo model."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

_OWN_CACHE = tempfile.mkdtemp(prefix="vlmlens-tests-")
atexit.register(shutil.rmtree, _OWN_CACHE, ignore_errors=True)
os.environ.setdefault("VLMLENS_CACHE", _OWN_CACHE)
os.environ.setdefault("VLMLENS_STATE", _OWN_CACHE)
os.environ.setdefault("MPLCONFIGDIR", _OWN_CACHE)
if "VLMLENS_TINY_CHECKPOINTS" not in os.environ:
    os.environ["VLMLENS_TINY_CHECKPOINTS"] = str(Path(_OWN_CACHE, "tiny"))
    Path(_OWN_CACHE, "tiny").mkdir()
os.environ["HF_HUB_OFFLINE"] = "1"
# How long a random example takes depends on what else the machine does.
settings.register_profile("vlmlens", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vlmlens")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_worker_niceness", "0")  # else actors wait for all other tests

if TYPE_CHECKING:
    from vlmlens.abc import ModelAdapter
    from vlmlens.samples import Sample


@pytest.fixture(scope="session")
def vlm() -> ModelAdapter:
    """The demo model, loaded once."""
    import torch

    import vlmlens

    torch.set_num_threads(1)
    return vlmlens.load("demo", device="cpu")


@pytest.fixture(scope="session")
def scenes() -> list[Sample]:
    """Five questions about each of eight demo scenes; prompts of different lengths."""
    from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions

    return DemoDataset("scenes", DemoOptions(scenes=8)).samples([])


@pytest.fixture
def warm_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes of this test need not import torch."""
    from tests._program import worker_python

    monkeypatch.setattr(sys, "executable", worker_python())


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


TRACED = 0.5
"""Seconds of processor time in which coverage is measured in a test or a fixture.

Mostly, later lines are the same again, and tracing costs a quarter.
"""


class _Tracing:
    """The tracer of coverage. It is off but in what `measured` holds: pytest's own steps cost more
    than most tests while it is on."""

    tracer: Any = None

    def pause(self) -> None:
        """Keep a tracer that is on, and turn it off."""
        self.tracer = sys.gettrace() or self.tracer
        sys.settrace(None)

    @contextmanager
    def measured(self, item: pytest.Item) -> Iterator[None]:
        """Leave it on for `TRACED` seconds, if the test is measured."""
        if self.tracer is None or sys.gettrace() is not None or not _is_measured(item):
            yield
            return
        before = signal.signal(signal.SIGPROF, lambda *_: sys.settrace(None))
        signal.setitimer(signal.ITIMER_PROF, TRACED)
        sys.settrace(self.tracer)
        try:
            yield
        finally:
            sys.settrace(None)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)


def _is_measured(item: pytest.Item) -> bool:
    """Whether coverage is measured in a test, its fixtures included.

    It is in `unit` and `contract` only: there neither where a test is slow, nor where random
    examples run the same lines hundreds of times.
    """
    random = item.name.startswith("test_random_") or is_hypothesis_test(getattr(item, "obj", None))
    unmeasured = random or any(map(item.get_closest_marker, ("slow", "no_cover")))
    return bool({"unit", "contract"} & set(item.path.parts)) and not unmeasured


_TRACING = _Tracing()


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """The process that hands out tests runs none."""
    if session.config.getoption("dist", "no") != "no" and not hasattr(
        session.config, "workerinput"
    ):
        _TRACING.pause()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(request: pytest.FixtureRequest) -> Iterator[None]:
    """Of a fixture of a session, the test that needs it first decides."""
    with _TRACING.measured(request._pyfuncitem):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """The test itself."""
    with _TRACING.measured(pyfuncitem):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    """After the marker `no_cover`, pytest-cov begins a new tracer."""
    try:
        return (yield)
    finally:
        _TRACING.pause()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is collected stays: there is no garbage to look for meanwhile."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """All modules and tests stay to the end: collections of garbage need not look at them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)
    _TRACING.pause()
