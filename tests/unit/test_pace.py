"""Expected times: from the first batches, by their work, with a range."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vlmlens.compose.estimate import Expectation, duration
from vlmlens.compose.plan import compose
from vlmlens.extraction.batching import Lengths, Unit, work_of
from vlmlens.extraction.eta import Pace
from vlmlens.extraction.extraction import timed
from vlmlens.registry import Registry
from vlmlens.runner.execution import execute
from vlmlens.spec.model import make_spec


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def paced(work: list[float], seconds: list[float]) -> Pace:
    clock = Clock()
    pace = Pace(work, clock)
    for spent in seconds:
        clock.now += spent
        pace.batch_done()
    return pace


def test_time_follows_the_work_and_not_the_number_of_batches() -> None:
    pace = paced([10, 10, 20, 30, 1000, 2000], [50, 1, 2, 3])
    found = pace.remaining()
    assert found is not None
    assert found.low == pytest.approx(300 / 1.1)
    assert found.high == pytest.approx(330)
    assert found.batches == 3
    assert pace.expected(10) == Expectation(pytest.approx(1 / 1.1), pytest.approx(1.1), 3)  # type: ignore[arg-type]


def test_the_first_batch_is_not_counted() -> None:
    slow, quick = (paced([10.0] * 9, [first, 1, 1, 1]).remaining() for first in (500.0, 1.0))
    assert slow == quick


def test_uneven_batches_widen_the_range() -> None:
    even, uneven = (paced([10.0] * 9, [1, *times]).remaining() for times in ([2, 2, 2], [1, 2, 3]))
    assert even is not None
    assert uneven is not None
    assert uneven.low < even.low < even.high < uneven.high
    assert uneven.low <= 5 * 2 <= uneven.high


def test_very_uneven_batches_still_take_some_time() -> None:
    found = paced([10.0] * 9, [1, 0.01, 0.01, 9]).remaining()
    assert found is not None
    assert 0 < found.low < found.high


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_too_few_batches_tell_nothing(batches: int) -> None:
    pace = paced([10.0] * 5, [1.0] * batches)
    assert pace.remaining() is None
    assert not pace.known


def test_it_is_known_after_five() -> None:
    assert [paced([1.0] * 9, [1.0] * n).known for n in (4, 5)] == [False, True]


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (20, 31, "20 to 31 s"),
        (80, 120, "80 s to 2 min"),
        (60, 60.2, "about 60 s"),
        (170, 200, "about 3 min"),
    ],
)
def test_words(low: float, high: float, text: str) -> None:
    assert str(Expectation(low, high, 3)) == text


def test_durations() -> None:
    assert duration(100_000) == "27.8 h"


def test_the_work_of_a_unit() -> None:
    import numpy as np

    lengths = Lengths(np.array([100.0, 120, 110]), np.array([30.0, 50, 40]))
    assert work_of(Unit(((0,), (1,))), lengths, "beginnings") == 240
    assert work_of(Unit(((0, 1, 2),), shared=True), lengths, "images") == 330
    assert work_of(Unit(((0, 1, 2),), shared=True), lengths, "beginnings") == 70 + 120


@pytest.mark.parametrize("settings", [{}, {"share_prefix": False}, {"generate": 2}])
def test_a_plan_is_timed_and_nothing_written(in_tmp: Path, settings: dict[str, Any]) -> None:
    spec = make_spec({"limit": 40, "batch_size": 3, "sites": ["llm.block.1/last"], **settings})
    warned: list[str] = []
    estimate = timed(compose(spec, Registry.default(), analyse=False), warned.append)
    assert estimate.time is not None
    assert 0 < estimate.time.low < estimate.time.high
    assert estimate.to_dict()["time"]["batches"] == estimate.time.batches >= 4
    assert not warned
    assert not list(in_tmp.iterdir())


def test_a_run_keeps_what_was_expected(tmp_path: Path) -> None:
    spec = make_spec(
        {"limit": 40, "batch_size": 3, "sites": ["llm.block.1/last"], "out": str(tmp_path / "run")}
    )
    run = execute(compose(spec, Registry.default(), analyse=False), extract_only=True)
    expected = run.info["expected"]
    assert 0 < expected["seconds_low"] <= expected["seconds_high"] < 600
    assert expected["batches"] == 4
