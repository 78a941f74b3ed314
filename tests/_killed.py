"""Work that is killed at a change of a name; as a program, merges of runs are.

A fork copies what a process holds: after many tests, that costs more than the work in it. The
program is small: it holds no torch.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def killed_at(number: int, work: Any) -> bool:
    """Do the work in a forked process that ends at the n-th change of a name; whether it did.

    A fork of a process with threads may use no library that has threads of its own, like torch:
    the work is of files and LMDB alone. Folders list their files in the same order everywhere.
    """
    child = os.fork()
    if child == 0:
        left = [number]

        def counted(real: Any) -> Any:
            def call(*args: Any, **named: Any) -> Any:
                if left[0] == 0:
                    os._exit(9)
                left[0] -= 1
                return real(*args, **named)

            return call

        for name in ("unlink", "remove", "rename", "replace", "rmdir", "mkdir"):
            setattr(os, name, counted(getattr(os, name)))
        Path.iterdir = lambda folder, real=Path.iterdir: iter(sorted(real(folder)))  # type: ignore[assignment, method-assign, misc]
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9)
    return code == 9


class Merges:
    """The program, which has merged a run once and so imports nothing any more."""

    def __init__(self, program: subprocess.Popen[str]) -> None:
        self._program = program

    def killed_at(self, number: int, run: Path) -> bool:
        """Merge a run, and kill it at the n-th change of a name; whether it was."""
        assert self._program.stdin
        assert self._program.stdout
        print(json.dumps([number, str(run)]), file=self._program.stdin, flush=True)
        return bool(json.loads(self._program.stdout.readline()))


@contextmanager
def merges(run: Path) -> Iterator[Merges]:
    """Start the program; it merges this run first."""
    command = [sys.executable, "-m", "tests._killed", str(run)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as program:
        yield Merges(program)


def _serve() -> None:
    from vlmlens import Run
    from vlmlens.runner.merge import merge

    merge(Run(Path(sys.argv[1])))
    gc.freeze()
    for line in sys.stdin:
        number, run = json.loads(line)
        print(json.dumps(killed_at(number, lambda run=run: merge(Run(Path(run))))), flush=True)


if __name__ == "__main__":
    _serve()
