"""The worker: one job at a time, a bounded queue, cancelling, clients that leave, errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any, cast

import pytest

from vlmlens.errors import EditError
from vlmlens.view.live import jobs
from vlmlens.view.live.jobs import Job
from vlmlens.view.live.question import Asked, LiveQuestion
from vlmlens.view.live.worker import ModelWorker, QueueFull


class Slow:
    """A model whose questions take until they are let go; its passes are counted."""

    def __init__(self) -> None:
        self.go = Event()
        self.begun = Event()
        self.running = self.most = 0
        self.answered: list[str] = []
        self.is_loaded = False
        self.closed = False

    def load(self) -> None:
        self.is_loaded = True

    def answer(
        self, model: Any, asked: Asked, step: Callable[[int, int | None], None]
    ) -> dict[str, Any]:
        assert model is self
        if asked.kind == "directions":
            return {"directions": []}
        assert asked.question is not None
        text = asked.question.text
        self.running += 1
        self.most = max(self.most, self.running)
        self.begun.set()
        try:
            if text == "edit":
                raise EditError("The edit is wrong in /a/run.", hint="Write another one.")
            if text == "bug":
                raise KeyError("/home/someone/secret")
            if text == "memory":
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            if text == "exit":
                raise SystemExit
            for number in range(200):
                step(number, 200)
                if self.go.wait(0.02):
                    break
            self.answered.append(text)
            return {"text": text}
        finally:
            self.running -= 1

    def without_paths(self, text: str) -> str:
        return text.replace("/a/run", "runs/0")

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def model() -> Slow:
    return Slow()


@pytest.fixture
def worker(model: Slow) -> Iterator[ModelWorker]:
    made = ModelWorker(cast("Any", model), answer=model.answer, most=3)
    yield made
    model.go.set()
    assert made.close(10)


def asked(text: str = "?") -> Asked:
    return Asked("answer", LiveQuestion(text))


def ended(job: Job) -> Job:
    until = time.monotonic() + 30
    while job.state not in jobs.ENDED:
        assert time.monotonic() < until
        time.sleep(0.005)
    return job


def test_one_at_a_time_in_order(worker: ModelWorker, model: Slow) -> None:
    first = worker.add(asked("first"))
    assert model.begun.wait(10)
    others = [worker.add(asked(f"{number}")) for number in range(3)]
    assert [worker.ahead(job) for job in (first, *others)] == [0, 1, 2, 3]
    model.go.set()
    for job in (first, *others):
        assert ended(job).state == "done"
    assert model.answered == ["first", "0", "1", "2"]
    assert model.most == 1
    assert others[2].told(0)["result"] == {"text": "2"}


def test_a_full_queue_takes_no_more_until_one_leaves(worker: ModelWorker, model: Slow) -> None:
    worker.add(asked())
    assert model.begun.wait(10)
    waiting = [worker.add(asked()) for _ in range(3)]
    with pytest.raises(QueueFull):
        worker.add(asked())
    worker.cancel(waiting[1])
    assert waiting[1].state == "cancelled"
    last = worker.add(asked("last"))
    model.go.set()
    assert ended(last).state == "done"
    assert len(model.answered) == 4


def test_a_running_job_ends_after_its_pass(worker: ModelWorker, model: Slow) -> None:
    first, second = worker.add(asked("first")), worker.add(asked("second"))
    assert model.begun.wait(10)
    worker.cancel(first)
    assert ended(first).state == "cancelled"
    assert first.result is None
    model.go.set()
    assert ended(second).state == "done"
    assert model.answered == ["second"]


def test_a_client_that_left_is_not_worked_for(
    worker: ModelWorker, model: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (worker.add(asked(text)) for text in ("first", "second", "third"))
    assert model.begun.wait(10)
    for job in (first, second):
        job.touched -= jobs.PATIENCE + 1
    model.go.set()
    assert ended(third).state == "done"
    assert second.state == "cancelled"
    assert "second" not in model.answered


def test_asking_keeps_a_job(worker: ModelWorker) -> None:
    job = worker.add(asked())
    job.touched -= jobs.PATIENCE - 5
    assert worker.get(job.id) is job
    assert time.monotonic() - job.touched < 5
    assert worker.get("another") is None


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("edit", "The edit is wrong in runs/0.", "Write another one."),
        ("bug", "not expected (KeyError)", "terminal"),
        ("memory", "does not fit in memory", "smaller picture"),
        ("exit", "not expected (SystemExit)", "terminal"),
    ],
)
def test_errors_are_told_and_the_worker_goes_on(
    worker: ModelWorker, model: Slow, text: str, said: str, hint: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    job = ended(worker.add(asked(text)))
    assert job.state == "failed"
    assert job.error is not None
    assert said in job.error["message"]
    assert hint in job.error["hint"]
    assert "secret" not in str(job.told(0))
    assert ("KeyError" in caplog.text) == (text == "bug")
    model.go.set()
    assert ended(worker.add(asked("next"))).state == "done"


def test_directions_do_not_wait(worker: ModelWorker, model: Slow) -> None:
    worker.add(asked())
    assert model.begun.wait(10)
    job = worker.add(Asked("directions", None))
    assert job.state == "done"
    assert worker.get(job.id) is job


def test_results_are_forgotten_in_the_end(worker: ModelWorker, model: Slow) -> None:
    model.go.set()
    first = ended(worker.add(asked()))
    for _ in range(80):
        last = worker.add(Asked("directions", None))
    assert worker.get(first.id) is None
    assert worker.get(last.id) is last


def test_closing_ends_everything(model: Slow) -> None:
    worker = ModelWorker(cast("Any", model), answer=model.answer)
    first, second = worker.add(asked("first")), worker.add(asked("second"))
    assert model.begun.wait(10)
    assert worker.close(10)
    assert first.state == second.state == "cancelled"
    assert model.closed
    with pytest.raises(QueueFull):
        worker.add(asked())
