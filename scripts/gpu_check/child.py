"""A child process: runs the checks that it is told to, one after the other.

It reads one line of JSON for each check from stdin, and answers with lines on what was stdout when
it began: `{"started": true}` when the check's module is imported, `{"numbers": {...}}` as things
are measured, `{"outcome": ..., "why": ...}` at the end. What libraries print goes to stderr.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
import traceback
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TextIO

from scripts.gpu_check.outcome import Word
from scripts.gpu_check.setting import Setting
from scripts.gpu_check.trial import CheckFailed, CheckSkipped, Trial

_LAST = 6
_LOOKS_EVERY = 1.0
_OWN = ("vlmlens", "vlmlens_plugins", "scripts")


def main() -> None:
    """Serve until stdin ends."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    setting = Setting.from_json(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        _serve(json.loads(line)["target"], setting, out)


def _end_with(parent: int) -> None:
    """End when the parent has ended, however it did: nothing must go on using the GPU."""
    while os.getppid() == parent:
        time.sleep(_LOOKS_EVERY)
    os.killpg(os.getpid(), signal.SIGKILL)


def _serve(target: str, setting: Setting, out: TextIO) -> None:
    def say(message: dict[str, Any]) -> None:
        print(json.dumps(message, default=str), file=out, flush=True)

    word, why = run(target, setting, say)
    say({"outcome": word, "why": why})
    _tidy()


def run(target: str, setting: Setting, say: Any) -> tuple[Word, str]:
    """Run a check.

    Args:
        target: `module:function`.
        setting: What it is run with.
        say: Gets messages as they come; see the module.

    Returns:
        The outcome, and why.
    """
    module, _, name = target.partition(":")
    try:
        check = getattr(import_module(module), name)
        say({"started": True})
        if setting.mistake == "hang":
            time.sleep(3600)
        check(Trial(setting, lambda numbers: say({"numbers": numbers})))
    except CheckSkipped as skipped:
        return "skipped", str(skipped)
    except CheckFailed as failed:
        return "failed", str(failed)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", *_OWN) or find_spec(package) is not None:
            return "failed", _told(error)
        return "skipped", f"not installed: {package}"
    except Exception as error:  # noqa: BLE001  whatever it is, it is told, and the next check runs
        return ("skipped", str(error)) if _lacks(error) else ("failed", _told(error))
    return "passed", ""


def _lacks(error: Exception) -> bool:
    """Whether vlmlens says that a package is not installed."""
    errors = sys.modules.get("vlmlens.errors")
    return errors is not None and isinstance(error, errors.MissingDependency)


def _told(error: Exception) -> str:
    """An error in one line, with where it came from; the whole of it goes to stderr."""
    traceback.print_exception(error)
    frames = traceback.extract_tb(error.__traceback__)[-_LAST:]
    places = " < ".join(f"{os.path.basename(f.filename)}:{f.lineno}" for f in reversed(frames))  # noqa: PTH119
    hint = getattr(error, "hint", None)
    return f"{type(error).__name__}: {error}" + (f" ({hint})" if hint else "") + f" [{places}]"


def _tidy() -> None:
    """Give back what a check held; models that are kept for the next one stay."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
