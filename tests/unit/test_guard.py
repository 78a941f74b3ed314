"""The guard around plugins' code: time limits, stdout, and what a late plugin may still do."""

from __future__ import annotations

import os
import sys
import time
from queue import Empty
from threading import Event

import pytest

from vlmlens.registry._guard import LIMIT, Escaped, Guard, TooSlow, measured


def test_an_answer_and_a_problem_come_back() -> None:
    guard = Guard(5)
    assert guard.call("a", "a", lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        guard.call("a", "a", lambda: 1 // 0)
    with pytest.raises(SystemExit):
        guard.call("a", "a", sys.exit)


def raise_(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GeneratorExit("x"), BaseException("y")])
def test_what_would_end_the_program_is_an_ordinary_error(error: BaseException) -> None:
    with pytest.raises(Escaped, match=type(error).__name__) as caught:
        Guard(5).call("a", "a", lambda: raise_(error))
    assert caught.value.__cause__ is error


def test_an_empty_queue_of_the_plugin_is_not_taken_for_a_late_one() -> None:
    with pytest.raises(Empty):
        Guard(5).call("a", "a", lambda: raise_(Empty()))


def test_a_late_one_is_not_waited_for_twice_and_the_next_is_served() -> None:
    guard, end = Guard(0.5), Event()
    with pytest.raises(TooSlow) as caught:
        guard.call("a", "late", end.wait)
    assert (caught.value.waited, caught.value.more) == (0.5, 2.0)
    began = time.perf_counter()
    with pytest.raises(TooSlow) as caught:
        guard.call("a", "late", lambda: 1)
    assert caught.value.waited == 0
    assert time.perf_counter() - began < 0.4
    assert guard.call("b", "other", lambda: 2) == 2
    end.set()
    while guard._late["late"].busy:
        time.sleep(0.01)
    assert guard.call("a", "late", lambda: 3) == 3


def test_each_late_one_makes_the_next_wait_shorter() -> None:
    guard, end = Guard(4), Event()
    waits = []
    for number in range(3):
        with pytest.raises(TooSlow) as caught:
            guard.call("a", f"late{number}", end.wait, 1.5)
        waits.append(caught.value.waited)
    assert waits == [1.5, 0.75, 0.5]
    end.set()


def test_no_thread_is_left_behind() -> None:
    import threading

    before = set(threading.enumerate())
    guard, end = Guard(0.5), Event()
    with pytest.raises(TooSlow):
        guard.call("a", "late", end.wait)
    guard.call("b", "b", lambda: None)
    guard.rest()
    (late,) = set(threading.enumerate()) - before
    end.set()
    late.join(10)
    assert set(threading.enumerate()) <= before
    guard.rest()


def test_without_a_limit_the_calling_thread_does_it() -> None:
    import threading

    assert Guard(0).call("a", "a", threading.get_ident) == threading.get_ident()
    assert Guard(5).call("a", "a", threading.get_ident) != threading.get_ident()


def test_prints_go_to_stderr_only_where_asked(capfd: pytest.CaptureFixture[str]) -> None:
    def noise() -> None:
        print("python")
        os.write(1, b"system\n")

    Guard(5).call("a", "a", noise)
    assert sorted(capfd.readouterr().out.split()) == ["python", "system"]
    Guard(5, clean=True).call("a", "a", noise)
    print("afterwards")
    out, err = capfd.readouterr()
    assert out == "afterwards\n"
    assert sorted(err.split()) == ["python", "system"]


def test_a_late_one_prints_to_stderr_for_good(capfd: pytest.CaptureFixture[str]) -> None:
    before, go, said = sys.stdout, Event(), Event()

    def late() -> None:
        go.wait()
        print("late")
        said.set()

    guard = Guard(0.5, clean=True)
    with pytest.raises(TooSlow):
        guard.call("a", "late", late)
    go.set()
    assert said.wait(10)
    print("mine")
    out, err = capfd.readouterr()
    assert (out, err) == ("mine\n", "late\n")
    while guard._late["late"].busy:
        time.sleep(0.01)
    guard.call("b", "b", lambda: None)
    assert sys.stdout is before


def test_printing_while_stdout_is_exchanged_is_safe(capfd: pytest.CaptureFixture[str]) -> None:
    """`print` borrows `sys.stdout`: freeing what it writes to ends the process."""
    end = Event()

    def chatter() -> None:
        while not end.is_set():
            print("late" * 100)

    guard = Guard(0.5, clean=True)
    with pytest.raises(TooSlow):
        guard.call("a", "late", chatter)
    filtered = sys.stdout
    for _ in range(500):
        guard.call("b", "other", lambda: None)
        assert sys.stdout is filtered
    end.set()
    while guard._late["late"].busy:
        time.sleep(0.01)
    guard.call("b", "other", lambda: None)
    assert capfd.readouterr().out == ""


def test_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    Guard(5, trace=True).call("storage x (y)", "y", lambda: None)
    said = capsys.readouterr().err
    assert said.startswith("plugin storage x (y): ")
    assert said.endswith(" ms\n")


def test_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> str:
        monkeypatch.setitem(sys.modules, "jax", sys)
        return "answer"

    monkeypatch.delitem(sys.modules, "jax", raising=False)
    answer, seconds, heavy = measured(work)
    assert (answer, heavy) == ("answer", ("jax",))
    assert seconds >= 0
    assert measured(lambda: 1)[2] == ()


@pytest.mark.parametrize(
    ("given", "limit"), [("", LIMIT), ("2.5", 2.5), ("0", 0), ("x", LIMIT), ("-1", LIMIT)]
)
def test_the_limit_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, given: str, limit: float
) -> None:
    import logging

    from vlmlens.registry import _log

    monkeypatch.setattr(_log, "prepare", [])
    monkeypatch.setattr(logging.getLogger("vlmlens"), "propagate", True)
    monkeypatch.setenv("VLMLENS_PLUGIN_TIMEOUT", given)
    assert Guard.from_environment().limit == limit
    assert bool(caplog.records) == (given in ("x", "-1"))
