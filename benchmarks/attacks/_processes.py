"""Commands as forks of one process that has imported all they need, and their plan and model."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vlmlens import Run
from vlmlens.abc import ModelAdapter
from vlmlens.compose.plan import Plan, compose
from vlmlens.errors import VlmlensError
from vlmlens.registry import Registry
from vlmlens.sample_table import SampleTable
from vlmlens.spec.model import make_spec

SITES = ("llm.block.1/last", "llm.block.2/all")


@cache
def _composed(samples: int, batch_size: int) -> tuple[Plan, ModelAdapter]:
    import torch

    torch.set_num_threads(1)  # a fork has one thread
    spec = make_spec({"limit": samples, "batch_size": batch_size, "sites": list(SITES)})
    made = compose(spec, Registry.default(), analyse=False)
    return made, made.load()


def plan(out: Path, samples: int, batch_size: int = 4, *, only: int | None = None) -> Plan:
    """The plan of a run of the demo model; `only`: with the first samples of it."""
    made, model = _composed(samples, batch_size)
    spec = made.spec.model_copy(update={"out": str(out)})
    samples = made.samples if only is None else SampleTable(made.samples[:only])
    return replace(made, spec=spec, samples=samples, load=lambda: model)


def forked(work: Callable[[], object], said: Path | None = None) -> int:
    """The process id of a fork that does the work.

    It ends with 0, with the exit code of an error of vlmlens, or with 1.

    Args:
        work: What it does.
        said: Where its output goes; None: nowhere.
    """
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    target = os.open(said or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(target, 1)
    os.dup2(target, 2)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w")
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w")
    code = 0
    try:
        work()
    except VlmlensError as error:
        print(error)
        code = error.exit_code
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - a fork must not go on as its parent
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def ended(child: int) -> int:
    """Wait for a fork: its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def command(*arguments: object) -> None:
    """Do `vlmlens ARGUMENTS` in this process."""
    from vlmlens.cli import main

    sys.argv = ["vlmlens", *map(str, arguments)]
    main()


def killed_at(number: int, work: Callable[[], object]) -> bool:
    """Do the work in a fork that is killed at its n-th change of a name; whether it was."""

    def counted() -> None:
        left = [number]

        def before(real: Any) -> Any:
            def call(*args: Any, **named: Any) -> Any:
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return real(*args, **named)

            return call

        for name in ("link", "unlink", "remove", "rename", "replace", "rmdir", "mkdir"):
            setattr(os, name, before(getattr(os, name)))
        work()

    code = ended(forked(counted))
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"the work ended with code {code}")
    return code != 0


def columns(run: Path) -> dict[str, list[bytes]]:
    """Everything a run has stored, sample by sample."""
    opened = Run(run)
    return {
        name: [np.asarray(each).tobytes() for each in opened.activations[name]] for name in SITES
    }


def table(rows: Sequence[tuple[str, int, int]], wrong: int) -> None:
    """Print what was tried, how often, and how often it went wrong; then end."""
    width = max(len(name) for name, _, _ in rows)
    print(f"{'attack':{width}}  tried  wrong")
    for name, tried, failed in rows:
        print(f"{name:{width}}  {tried:5}  {failed:5}")
    raise SystemExit(bool(wrong))
