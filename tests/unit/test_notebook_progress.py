"""Progress in notebooks: one output, drawn anew, with nothing of the data's markup."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from vlmlens.abc.observer import SilentObserver
from vlmlens.runner import interruption, notebook_progress
from vlmlens.runner.interruption import resumable
from vlmlens.runner.notebook_progress import NotebookObserver, in_notebook
from vlmlens.runner.progress import watched

HOSTILE = '<script>alert("x")</script>\x1b[31m'


class Handle:
    """Keeps what would be shown."""

    def __init__(self) -> None:
        self.displayed: list[dict[str, str]] = []
        self.updated: list[dict[str, str]] = []

    def display(self, data: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.displayed.append(data)

    def update(self, data: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.updated.append(data)

    @property
    def last(self) -> str:
        return [*self.displayed, *self.updated][-1]["text/plain"]

    @property
    def html(self) -> ElementTree.Element:
        return ElementTree.fromstring([*self.displayed, *self.updated][-1]["text/html"])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test moves on."""
    now = [100.0]
    monkeypatch.setattr(notebook_progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_one_output_is_shown_and_then_replaced(clock: list[float]) -> None:
    handle = Handle()
    with NotebookObserver(handle) as observer:
        assert not handle.displayed
        observer.stage("extract", None)
        observer.stage("extract", 10)
        clock[0] += 4
        observer.advance(5)
        assert handle.last == "… extract (5/10, 4.0 s, 1.2/s, 4.0 s left)"
        assert handle.html.find(".//progress").get("value") == "0.5"  # type: ignore[union-attr]
        observer.stage("probe", 3)
        clock[0] += 2
    assert len(handle.displayed) == 1
    assert handle.last == "✓ extract (10/10, 4.0 s)\n✓ probe (3/3, 2.0 s)"
    assert handle.html.find(".//progress") is None


def test_a_bar_is_drawn_a_few_times_a_second(clock: list[float]) -> None:
    handle = Handle()
    with NotebookObserver(handle) as observer:
        observer.stage("extract", 10_000)
        for done in range(10_000):
            clock[0] += 0.001
            observer.advance(done)
        assert 40 <= len(handle.updated) <= 50


def test_a_stage_that_was_stopped_is_not_done(clock: list[float]) -> None:
    handle = Handle()

    def fail(observer: NotebookObserver) -> None:
        observer.stage("extract", 10)
        observer.advance(3)
        clock[0] += 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), NotebookObserver(handle) as observer:
        fail(observer)
    assert handle.last == "✗ extract (3/10, 1.0 s)"


def test_notes_fold_and_warnings_stay() -> None:
    handle = Handle()
    with NotebookObserver(handle) as observer:
        for text in ("a note", HOSTILE, HOSTILE):
            observer.note(text)
        observer.warn(HOSTILE)
        observer.warn(HOSTILE)
        assert handle.html.find("details") is None
    shown = handle.html
    assert [each.text for each in shown.findall("details/div")] == [
        "· a note", '· <script>alert("x")</script>\\x1b[31m',
    ]  # fmt: skip
    assert [each.text for each in shown.findall("div")] == [
        '! <script>alert("x")</script>\\x1b[31m'
    ]
    assert "<script" not in handle.updated[-1]["text/html"]


def test_very_many_lines_stay_small() -> None:
    handle = Handle()
    with NotebookObserver(handle) as observer:
        for number in range(500):
            observer.note(f"note {number} " + "x" * 100)
    assert handle.last.startswith("440 earlier lines …")
    assert len(handle.updated[-1]["text/html"]) < 20_000


def test_outside_of_notebooks_nothing_is_displayed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not in_notebook()
    terminal = SimpleNamespace(get_ipython=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "IPython", terminal)  # type: ignore[arg-type]
    assert not in_notebook()
    with watched(None, None) as told:
        assert isinstance(told, SilentObserver)


def test_who_is_told_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", kernel)  # type: ignore[arg-type]
    own = SilentObserver()
    for observer, progress, kind in (
        (None, None, NotebookObserver),
        (None, True, NotebookObserver),
        (None, False, SilentObserver),
        (own, True, SilentObserver),
    ):
        with watched(observer, progress) as told:
            assert isinstance(told, kind)
            assert observer is None or told is observer


# ---------------------------------------------------------------------- interruption


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    return tmp_path


def test_an_interrupt_says_how_to_go_on(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as caught, resumable(folder, "Do it again."):
        raise KeyboardInterrupt
    assert type(caught.value) is KeyboardInterrupt
    said = f"Interrupted. What was finished is kept in {str(folder)!r}. Do it again."
    assert caught.value.args == (said,)
    shown: Any = caught.value
    assert shown._render_traceback_() == [f"KeyboardInterrupt: {said}"]
    assert caught.value.__suppress_context__


def test_without_a_run_and_with_other_errors_nothing_is_said(folder: Path, tmp_path: Path) -> None:
    for place in (None, tmp_path / "none"):
        with pytest.raises(KeyboardInterrupt) as caught, resumable(place, "Do it again."):
            raise KeyboardInterrupt
        assert not caught.value.args
    with pytest.raises(ZeroDivisionError), resumable(folder, "Do it again."):
        raise ZeroDivisionError


def test_further_interrupts_wait_until_things_are_in_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, put_in_order = signal.default_int_handler, []
    started = signal.signal(signal.SIGINT, before)  # who starts tests may ignore interrupts

    def interrupted_twice() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            put_in_order.append(True)

    with pytest.raises(KeyboardInterrupt), resumable(folder, "Do it again."):
        interrupted_twice()
    assert put_in_order == [True]
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.setattr(interruption, "_PATIENCE", 0.0)
    with pytest.raises(KeyboardInterrupt), resumable(folder, "Do it again."):
        interrupted_twice()
    assert put_in_order == [True]
    signal.signal(signal.SIGINT, started)


def test_handlers_of_others_and_other_threads_are_left_alone(folder: Path) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        with resumable(folder, ""):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]
    ended: list[bool] = []

    def work() -> None:
        with resumable(folder, ""):
            ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended == [True]
