"""Preparing, computing and storing at the same time."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from vlmlens.extraction.pipeline import prepared, sink


def test_results_come_in_order_from_another_thread() -> None:
    threads = set()

    def square(number: int) -> int:
        threads.add(threading.current_thread().name)
        return number**2

    assert list(prepared(range(5), square, ahead=2)) == [(i, i * i) for i in range(5)]
    assert threads == {"vlmlens-prepare"}


def test_no_more_than_so_many_are_prepared_ahead() -> None:
    made: list[int] = []
    results = prepared(range(100), made.append, ahead=2)
    next(results)
    time.sleep(0.3)
    assert 1 <= len(made) <= 4
    results.close()  # type: ignore[attr-defined]
    assert len(made) <= 5


def test_an_error_is_raised_at_its_item() -> None:
    def fail(number: int) -> int:
        if number == 2:
            raise KeyError("broken")
        return number

    seen = []
    with pytest.raises(KeyError, match="broken"):
        seen += [item for item, _ in prepared(range(9), fail, ahead=1)]
    assert alive("vlmlens-prepare") == 0


def test_an_error_of_the_items_themselves() -> None:
    def items() -> Any:
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(prepared(items(), str, ahead=1))


def test_leaving_early_ends_the_thread() -> None:
    for item, _ in prepared(range(1000), str, ahead=2):
        if item == 3:
            break
    deadline = time.monotonic() + 5
    while alive("vlmlens-prepare") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert alive("vlmlens-prepare") == 0


def alive(name: str) -> int:
    return sum(thread.name == name for thread in threading.enumerate())


def test_a_sink_stores_everything_in_order() -> None:
    stored: list[Any] = []
    with sink(stored.append, lambda: stored.append("end"), waiting=2) as out:
        for number in range(50):
            out.put(number)
    assert stored == [*range(50), "end"]


def test_a_sink_stores_what_it_has_where_the_block_fails() -> None:
    stored: list[Any] = []

    def interrupted() -> None:
        with sink(stored.append, lambda: stored.append("end"), waiting=9) as out:
            out.put(1)
            out.put(2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert stored == [1, 2, "end"]
    assert alive("vlmlens-store") == 0


def test_an_error_of_storing_comes_out() -> None:
    def full(item: int) -> None:
        if item == 1:
            raise OSError("disk full")

    def put(items: int) -> None:
        with sink(full, lambda: None, waiting=1) as out:
            for number in range(items):
                out.put(number)

    for items in (2, 1000):
        with pytest.raises(OSError, match="disk full"):
            put(items)
    assert alive("vlmlens-store") == 0


def test_the_blocks_own_error_comes_first() -> None:
    def full(item: int) -> None:
        raise OSError("disk full")

    def both() -> None:
        with sink(full, lambda: None, waiting=1) as out:
            out.put(1)
            time.sleep(0.05)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        both()


def test_an_error_of_finishing_comes_out() -> None:
    def finish() -> None:
        raise OSError("late")

    with pytest.raises(OSError, match="late"), sink(print, finish, waiting=1):
        pass
