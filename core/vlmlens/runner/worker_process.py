"""The program of a worker process: `python -P -m vlmlens.runner.worker_process`.

Lines of JSON come in: first `{"order": ...}`, then `{"lease": ...}` one at a time. Lines of JSON go
out: `{"ready": ...}` once, then `{"done": 12}` now and then, and `{"receipt": ...}` or
`{"error": ...}` at the end of each. The process ends when its standard input is closed, however
its parent ended. What libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import IO, Any

from vlmlens._disk import disk_error
from vlmlens.errors import VlmlensError

_EVERY = 0.3
"""Seconds between two lines that tell the progress."""


def main() -> None:
    """Serve one parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lines = _incoming()
    try:
        from vlmlens.runner.lease_worker import begin_worker

        work = begin_worker(next(lines)["order"])
        _say(out, {"ready": os.getpid()})
        for line in lines:
            _say(out, {"receipt": work(line["lease"], _progress(out))})
    except (VlmlensError, OSError) as raised:
        error = expected(raised)
        if error is None:
            raise
        _say(out, {"error": told(error)})
        sys.exit(error.exit_code)


def expected(error: Exception) -> VlmlensError | None:
    """The error to tell the parent; None if it is none that a user can repair."""
    if isinstance(error, OSError):
        return disk_error(error)
    return error if isinstance(error, VlmlensError) else None


def told(error: VlmlensError) -> dict[str, str]:
    """An error as data, for the parent."""
    subject = "" if error.subject is None else str(error.subject)
    kind = type(error).__name__
    return {"kind": kind, "message": error.message, "subject": subject, "hint": error.hint}


def _progress(out: IO[str]) -> Callable[[int], None]:
    last = 0.0

    def advance(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY:
            last = time.monotonic()
            _say(out, {"done": done})

    return advance


def _say(out: IO[str], message: Mapping[str, Any]) -> None:
    with suppress(BrokenPipeError):
        print(json.dumps(message, ensure_ascii=False), file=out, flush=True)


def _incoming() -> Iterator[dict[str, Any]]:
    """The lines that come in. The process ends at once when they end."""
    waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        with os.fdopen(0, encoding="utf-8", closefd=False) as lines:
            for line in lines:
                waiting.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield waiting.get()


if __name__ == "__main__":
    main()
