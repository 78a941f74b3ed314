"""Running the program, or code, in a process of its own that need not import torch anew.

A process per session has imported torch and transformers; each call is a fork of it. What decides
how a process begins (another interpreter option, a variable that libraries read when they are
imported) needs `subprocess`.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
READ_AT_IMPORT = ("HF_", "OMP_", "MKL_", "MPL", "ATEN_", "CUDA_", "TRANSFORMERS_")
STARTS_WITHIN = 120.0


def vlmlens(
    *args: object, cwd: Path | None = None, strict: bool = True, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run `vlmlens ARGS`; warnings are errors there too.

    Args:
        args: Of the command line.
        cwd: The folder it runs in.
        strict: False where warnings are to be warnings.
        env: Variables beside those of this process.
    """
    return _run([str(arg) for arg in args], None, cwd, strict, env)


def python(
    code: str, *args: str, cwd: Path | None = None, strict: bool = True, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -c CODE ARGS` likewise."""
    return _run(list(args), code, cwd, strict, env)


class Started:
    """A program that runs by itself: `pid`, what it has said until now, and its exit status.

    As a context it is killed at the end, if it has not ended.
    """

    def __init__(self, request: dict[str, object]) -> None:
        self._folder = Path(tempfile.mkdtemp(dir=warm_server().parent))
        self._out = [self._folder / "out", self._folder / "err"]
        for path in self._out:
            path.touch()
        request["out"] = [str(path) for path in self._out]
        self._asking = socket.socket(socket.AF_UNIX)
        self._asking.settimeout(STARTS_WITHIN)
        self._asking.connect(str(warm_server()))
        self._line = self._asking.makefile("rw")
        print(json.dumps(request), file=self._line, flush=True)
        self.pid = int(self._line.readline())
        self._status: int | None = None

    def said(self) -> list[str]:
        """Its standard output and its standard error."""
        return [path.read_text(encoding="utf-8", errors="replace") for path in self._out]

    def wait(self, limit: float = 600.0) -> int:
        """Its exit status: minus the signal that ended it.

        Raises:
            TimeoutError: It takes longer; it is killed.
        """
        if self._status is None:
            self._asking.settimeout(limit)
            try:
                self._status = int(self._line.readline())
            except TimeoutError:
                os.kill(self.pid, signal.SIGKILL)
                raise TimeoutError(f"{limit} s; it said: {self.said()}") from None
        return self._status

    def until(self, true: Callable[[], bool], limit: float = 120.0) -> None:
        """Wait until something is true.

        Raises:
            AssertionError: It takes longer, or the program ends before; with what it said.
        """
        end = time.monotonic() + limit
        while not true():
            ended = self._status is None and select.select([self._asking], [], [], 0)[0]
            assert not ended or true(), f"it ended with {self.wait()} and said: {self.said()}"
            assert time.monotonic() < end, f"it took {limit} s; the program said: {self.said()}"
            time.sleep(0.02)

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._line.close()
        self._asking.close()
        shutil.rmtree(self._folder)


def started(
    *args: object, cwd: Path, code: str | None = None, ignored: Iterable[int] = (), **env: str
) -> Started:
    """Start `vlmlens ARGS`, or code, and go on; the folder is not where it imports from.

    Args:
        args: Of the command line.
        cwd: The folder it runs in.
        code: What runs instead of `vlmlens`.
        ignored: Signals that whoever starts it ignores.
        env: Variables beside those of this process.
    """
    request = request_for([str(arg) for arg in args], code, cwd, True, env)
    return Started({**request, "sees_cwd": False, "ignored": [int(each) for each in ignored]})


WORKERS = (
    ("-P", "-m", "vlmlens.runner.worker_process"),
    ("-m", "scripts.check_checkpoints", "work"),
    ("-m", "scripts.gpu_check.child"),
)
"""How the command lines of worker processes begin."""

STAND_IN = """#!{python} -IS
import json, os, signal, socket, sys
args = sys.argv[1:]
if not any(tuple(args[:len(begin)]) == begin for begin in {begins}):
    os.execv({python!r}, [{python!r}, *args])
place = {server!r} + f"-{{os.getpid()}}"
if os.path.exists(place):  # of an earlier process with this number
    os.unlink(place)
_, module, *rest = args["-P" in args:]
known = {{"module": module, "args": rest, "sees_cwd": "-P" not in args}}
request = {{**{request}, **known, "env": dict(os.environ), "cwd": os.getcwd()}}
for name in {unset}:
    request["env"].pop(name, None)
asking = socket.socket(socket.AF_UNIX)
asking.connect({server!r})
socket.send_fds(asking, [json.dumps(request).encode() + b"\\n"], [0, 1, 2])
for stream in (0, 1, 2):
    os.close(stream)
told = asking.makefile()
program = int(told.readline())
for number in {passed_on}:
    signal.signal(number, lambda number, _: os.kill(program, number))
with open(place + "-begun", "w") as file:
    file.write(str(program))
os.rename(place + "-begun", place)
status = int(told.readline())
if status < 0:
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


def worker_python() -> str:
    """A stand-in for `sys.executable` that starts worker processes as forks of the warm process.

    A program that is run with `VLMLENS_TEST_PYTHON` takes its value for `sys.executable`.
    """
    return _stand_in(*WORKERS)


def kernel_python() -> str:
    """A stand-in that starts Jupyter kernels so. An interruption reaches the kernel."""
    passed_on, unset = (int(signal.SIGINT),), ("JPY_PARENT_PID",)  # its parent is another process
    return _stand_in(("-m", "ipykernel_launcher"), passed_on=passed_on, unset=unset)


@cache
def _stand_in(
    *begins: tuple[str, ...], passed_on: tuple[int, ...] = (), unset: tuple[str, ...] = ()
) -> str:
    """A stand-in for `sys.executable` that forks the warm process for some modules.

    The program has the stand-in's standard streams, which ends as it ends, and takes it along when
    it is killed.

    Args:
        begins: How command lines begin that do so; for others it is the interpreter.
        passed_on: Signals that the program gets instead of it.
        unset: Variables that the program does not get.
    """
    if not hasattr(os, "pidfd_open"):  # other systems than Linux have none
        return sys.executable
    request = {
        "code": None, "out": [], "before": os.environ.get("PYTHONPATH", ""), "strict": False,
        "ignored": [],
    }  # fmt: skip
    path = warm_server().parent / f"python-{begins[0][-1]}"
    text = STAND_IN.format(
        python=sys.executable, begins=begins, request=request, server=str(warm_server()),
        passed_on=passed_on, unset=unset,
    )  # fmt: skip
    path.write_text(text)
    path.chmod(0o700)
    return str(path)


def itself(stand_in: int) -> int:
    """The process id of the worker that a process of `worker_python` stands for.

    To kill that one is to kill a worker, as users' systems do; the stand-in then ends likewise. A
    process that stands for no other, or not yet, is the worker itself.
    """
    try:
        return int(Path(f"{warm_server()}-{stand_in}").read_text())
    except FileNotFoundError:
        return stand_in


def _run(
    args: list[str], code: str | None, cwd: Path | None, strict: bool, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    with Started(request_for(args, code, cwd, strict, env)) as program:
        status = program.wait()
        return subprocess.CompletedProcess(args, status, *program.said())


def request_for(
    args: list[str], code: str | None, cwd: Path | None, strict: bool, env: dict[str, str]
) -> dict[str, object]:
    """What the warm process is asked: the arguments of `python`, its standard output left open."""
    changed = [
        name
        for name, value in env.items()
        if name.startswith(READ_AT_IMPORT) and os.environ.get(name) != value
    ]
    assert not changed, f"{changed} are read when libraries are imported: use subprocess"
    return {
        "args": args,
        "code": code,
        "cwd": str(cwd or Path.cwd()),
        "env": {**os.environ, "COLUMNS": "160", **env},
        "before": os.environ.get("PYTHONPATH", ""),
        "strict": strict,
        "sees_cwd": True,
        "ignored": [],
    }


@cache
def warm_server(*imported: str) -> Path:
    """The socket of this session's warm process.

    Args:
        imported: What it has imported, where that is not what `tests._warm` names.
    """
    folder = Path(tempfile.mkdtemp(prefix="vlmlens-warm-"))
    place = folder / "socket"
    warm = subprocess.Popen(
        [sys.executable, "-W", "error", str(ROOT / "tests" / "_warm.py"), str(place), *imported],
        stdin=subprocess.DEVNULL,
    )
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(warm.kill)
    until = time.monotonic() + STARTS_WITHIN
    while not place.exists():
        assert warm.poll() is None, "the warm process ended"
        assert time.monotonic() < until, "the warm process did not start"
        time.sleep(0.05)
    return place
