"""The thread that has the model: jobs wait in a queue, one pass runs at a time."""

from __future__ import annotations

import logging
import traceback
from collections import OrderedDict
from collections.abc import Callable
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any

from vlmlens.errors import VlmlensError
from vlmlens.view.live.jobs import ENDED, Job, Stopped
from vlmlens.view.live.kinds import DIRECTIONS, answered

if TYPE_CHECKING:
    from vlmlens.view.live.model import LiveModel, Step
    from vlmlens.view.live.question import Asked

    Answer = Callable[[LiveModel, Asked, Step], dict[str, Any]]

_log = logging.getLogger("vlmlens")
_MOST_WAITING = 20
_MOST_ENDED = 64


class QueueFull(Exception):
    """So many jobs wait that no other one is taken."""


class ModelWorker:
    """Answers job after job in one thread, which alone uses the model.

    Args:
        model: Loads the model when it is first asked.
        answer: Answers one question.
        most: The most jobs that wait.
    """

    def __init__(
        self, model: LiveModel, *, answer: Answer = answered, most: int = _MOST_WAITING
    ) -> None:
        self.model = model
        self._answer_of = answer
        self._most = most
        self._changed = Condition()
        self._waiting: list[Job] = []
        self._current: Job | None = None
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._closed = False
        self.ending = False
        """Whether the app is about to end: nobody should wait for an answer any more."""
        self._thread = Thread(target=self._work, name="vlmlens-live", daemon=True)
        self._thread.start()

    def add(self, asked: Asked) -> Job:
        """Put a question into the queue.

        Raises:
            QueueFull: Too many wait.
        """
        job = Job(asked)
        if asked.kind == DIRECTIONS:
            return self._at_once(job)
        with self._changed:
            self._drop_left()
            if len(self._waiting) >= self._most or self._closed or self.ending:
                raise QueueFull
            self._jobs[job.id] = job
            self._waiting.append(job)
            self._forget()
            self._changed.notify_all()
        return job

    def get(self, name: str) -> Job | None:
        """A job by its id, which is then known to be still wanted."""
        with self._changed:
            job = self._jobs.get(name)
            if job is not None:
                job.touch()
            return job

    def ahead(self, job: Job) -> int:
        """How many jobs are before one that waits, the current one included."""
        with self._changed:
            if job not in self._waiting:
                return 0
            return self._waiting.index(job) + (self._current is not None)

    def cancel(self, job: Job) -> None:
        """Take a job out of the queue; one that runs ends after its pass."""
        with self._changed:
            job.cancelled.set()
            if job in self._waiting:
                self._waiting.remove(job)
                job.state = "cancelled"

    def close(self, patience: float) -> bool:
        """Cancel everything, and wait for the thread to end.

        Args:
            patience: Seconds to wait.

        Returns:
            Whether it ended; a pass of a large model may take longer.
        """
        with self._changed:
            self._closed = True
            for job in self._jobs.values():
                job.cancelled.set()
            for job in self._waiting:
                job.state = "cancelled"
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join(patience)
        self.model.close()
        return not self._thread.is_alive()

    def _at_once(self, job: Job) -> Job:
        """Answer what needs no model, in the caller's thread."""
        try:
            job.result, job.state = self._answer_of(self.model, job.asked, job.step), "done"
        except VlmlensError as error:
            job.error, job.state = self._told(error), "failed"
        with self._changed:
            self._jobs[job.id] = job
            self._forget()
        return job

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                job = self._current = self._waiting.pop(0)
            self._answer(job)
            with self._changed:
                self._current = None
                self._forget()

    def _answer(self, job: Job) -> None:
        try:
            job.check()
            job.state = "running" if self.model.is_loaded else "loading"
            self.model.load()
            job.check()
            job.state = "running"
            job.result = self._answer_of(self.model, job.asked, job.step)
            job.state = "done"
        except Stopped:
            job.state = "cancelled"
        except BaseException as error:  # noqa: BLE001 - the thread must go on
            job.error = self._told(error)
            job.state = "failed"

    def _told(self, error: BaseException) -> dict[str, str]:
        told = _told(error)
        return {name: self.model.without_paths(text) for name, text in told.items()}

    def _drop_left(self) -> None:
        for job in [each for each in self._waiting if each.is_left]:
            self._waiting.remove(job)
            job.state = "cancelled"

    def _forget(self) -> None:
        ended = [name for name, job in self._jobs.items() if job.state in ENDED]
        for name in ended[: max(0, len(ended) - _MOST_ENDED)]:
            del self._jobs[name]


def _told(error: BaseException) -> dict[str, str]:
    """What the page says of an error; no path of an unexpected one leaves the log."""
    if isinstance(error, VlmlensError):
        return {"message": error.message, "hint": error.hint}
    if isinstance(error, RuntimeError) and _is_out_of_memory(error):
        return {
            "message": "The question does not fit in memory.",
            "hint": "Use a smaller picture, or start with --dtype bfloat16 or --quantization 4bit.",
        }
    trace = "".join(traceback.format_exception(error))
    _log.error("A live question failed: %s", trace)
    return {
        "message": f"This failed in a way that was not expected ({type(error).__name__}).",
        "hint": "The terminal in which `vlmlens view` runs says more.",
    }


def _is_out_of_memory(error: RuntimeError) -> bool:
    from vlmlens.passes.memory import free_memory, is_out_of_memory, let_go

    if not is_out_of_memory(error):
        return False
    let_go(error)
    free_memory()
    return True
