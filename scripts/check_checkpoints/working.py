"""The process that does the steps of one checkpoint, and tells each outcome as a line of JSON."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

KIT, QUESTION = "kit", "question"
_LONGEST_TEXT = 600


def work() -> None:
    """Read a job from stdin, do its steps, and write to stdout.

    The job is one line of JSON. The process ends when stdin is closed, so that it does not go on
    where the process that started it was killed. What libraries print goes to stderr.
    """
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with suppress(OSError):  # if memory runs out, this process is to go, and not another one
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    do_steps(job, told)
    told.flush()
    os._exit(0)


def do_steps(job: dict[str, Any], told: TextIO) -> None:
    """Do the steps of a job one after the other."""
    steps = _steps(job)
    for name in job["steps"]:
        _tell(told, {"begin": name})
        _tell(told, {"end": name, **_outcome(steps(name))})


def _steps(job: dict[str, Any]) -> Callable[[str], Callable[[], Any]]:
    from scripts.check_checkpoints.kit import run_kit
    from scripts.check_checkpoints.question import ask
    from scripts.check_checkpoints.small_runs import Tried, run_analysis
    from vlmlens.registry import Registry

    registry = Registry.default()
    adapter, model, device = job["adapter"], job["model"], job["device"]
    tried = Tried(adapter, model, device, job["dtype"], registry, Path(job["runs"]), job["full"])

    def step(name: str) -> Callable[[], Any]:
        if name == KIT:
            return lambda: run_kit(registry, adapter, model, device)
        if name == QUESTION:
            return lambda: ask(tried)
        return lambda: run_analysis(name, tried)

    return step


def _outcome(step: Callable[[], Any]) -> dict[str, Any]:
    try:
        told = step()
    except Exception as error:  # noqa: BLE001  a step may raise anything, and the others go on
        import traceback

        traceback.print_exc()
        return {"outcome": "failed", "text": _line(f"{type(error).__name__}: {error}"), "data": {}}
    return {"outcome": told.outcome, "text": _line(told.text), "data": dict(told.data)}


def _line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST_TEXT]


def _tell(told: TextIO, message: dict[str, Any]) -> None:
    told.write(json.dumps(message, default=str) + "\n")
    told.flush()


def _end_with_parent() -> None:
    while sys.stdin.read(1):
        pass
    os._exit(1)
