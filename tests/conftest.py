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
from typing import TYPE_CHECKING

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
"""Seconds of its processor time in which coverage is measured in a test: mostly, later lines are
the same again, and tracing costs a quarter."""


def _measured(item: pytest.Item) -> bool:
    """Whether coverage is measured in a test, its fixtures included.

    It is in `unit` and `contract` only: there neither where a test is slow, nor where random
    examples run the same lines hundreds of times.
    """
    random = item.name.startswith("test_random_") or is_hypothesis_test(getattr(item, "obj", None))
    unmeasured = random or any(map(item.get_closest_marker, ("slow", "no_cover")))
    return bool({"unit", "contract"} & set(item.path.parts)) and not unmeasured


@contextmanager
def _traced(seconds: float) -> Iterator[None]:
    """Leave a tracer, such as that of coverage, on for so long; then until the end without it."""
    tracer = sys.gettrace()
    if tracer is None:
        yield
        return
    before = signal.signal(signal.SIGPROF, lambda *_: sys.settrace(None))
    if seconds:
        signal.setitimer(signal.ITIMER_PROF, seconds)
    else:
        sys.settrace(None)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        if sys.gettrace() is None:  # else the marker `no_cover` has begun a new one
            sys.settrace(tracer)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """See `_measured`, and `TRACED`."""
    with _traced(TRACED if _measured(item) else 0):
        return (yield)


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
