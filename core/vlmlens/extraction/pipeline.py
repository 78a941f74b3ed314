"""Pipeline: prepares, computes and stores at the same time, each in its own thread, in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from queue import Empty, Full, Queue
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Ready = TypeVar("Ready")
_STEP = 0.1


class _Failed:
    def __init__(self, error: BaseException) -> None:
        self.error = error


_END = object()


def prepared(
    items: Iterable[Item], prepare: Callable[[Item], Ready], *, ahead: int
) -> Generator[tuple[Item, Ready], None, None]:
    """Yield each item with the result of `prepare`, in order. Another thread prepares them.

    Close it, so that this thread ends where the items are not all taken.

    Args:
        items: The items, in order.
        prepare: Called in its own thread. An error is raised here, at that item.
        ahead: How many results may wait.
    """
    queue: Queue[Any] = Queue(ahead)
    stopped = threading.Event()

    def work() -> None:
        try:
            for item in items:
                if not _put(queue, (item, prepare(item)), stopped):
                    return
            _put(queue, _END, stopped)
        except BaseException as error:  # noqa: BLE001  raised again where the result is taken
            _put(queue, _Failed(error), stopped)

    thread = threading.Thread(target=work, name="vlmlens-prepare", daemon=True)
    thread.start()
    try:
        while (found := queue.get()) is not _END:
            if isinstance(found, _Failed):
                raise found.error
            yield found
    finally:
        stopped.set()
        thread.join()


class Sink(Generic[Item]):
    """Passes items to `store` in another thread. Made by `sink`.

    Args:
        store: Called with each item in that thread, in order.
        finish: Called in that thread after the last item.
        waiting: How many items may wait.
    """

    def __init__(
        self, store: Callable[[Item], None], finish: Callable[[], None], waiting: int
    ) -> None:
        self._store = store
        self._finish = finish
        self._queue: Queue[Any] = Queue(waiting)
        self._error: BaseException | None = None
        self._failed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="vlmlens-store", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Hand over an item. Blocks while too many items wait.

        Raises:
            BaseException: An error of `store`, at this item or an earlier one.
        """
        if not _put(self._queue, item, self._failed):
            self._raise()

    def close(self) -> None:
        """Wait until everything is stored.

        Raises:
            BaseException: An error of `store`.
        """
        _put(self._queue, _END, self._failed)
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _next(self) -> Any:
        """The next item. It looks again by itself: a signal can take away the wake-up call."""
        while True:
            try:
                return self._queue.get(timeout=_STEP)
            except Empty:
                continue

    def _work(self) -> None:
        try:
            while (item := self._next()) is not _END:
                self._store(item)
            self._finish()
        except BaseException as error:  # noqa: BLE001  raised again where the next item is put
            self._error = error
            self._failed.set()


@contextmanager
def sink(
    store: Callable[[Item], None], finish: Callable[[], None], *, waiting: int
) -> Iterator[Sink[Item]]:
    """A `Sink` that stores everything before the `with` block ends, also after an error.

    An error of the block comes first. An error of storing is raised if there is no other.
    """
    made = Sink(store, finish, waiting)
    try:
        yield made
    except BaseException:
        _put(made._queue, _END, made._failed)
        made._thread.join()
        raise
    made.close()


def _put(queue: Queue[Any], item: object, stopped: threading.Event) -> bool:
    """Put an item when there is room. Returns False if the other side has stopped."""
    while not stopped.is_set():
        try:
            queue.put(item, timeout=_STEP)
        except Full:
            continue
        return True
    while True:
        try:
            queue.get_nowait()
        except Empty:
            return False
