"""Running the program, or code, in a process of its own that need not import torch anew.

A process per session has imported torch and transformers; each call is a fork of it. What decides
how a process begins (another interpreter option, a variable that libraries read when they are
imported) needs `subprocess`.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
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


def _run(
    args: list[str], code: str | None, cwd: Path | None, strict: bool, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    changed = [
        name
        for name, value in env.items()
        if name.startswith(READ_AT_IMPORT) and os.environ.get(name) != value
    ]
    assert not changed, f"{changed} are read when libraries are imported: use subprocess"
    folder = Path(tempfile.mkdtemp(dir=_server().parent))
    out = [folder / "out", folder / "err"]
    for path in out:
        path.touch()
    request = {
        "args": args,
        "code": code,
        "cwd": str(cwd or Path.cwd()),
        "env": {**os.environ, "COLUMNS": "160", **env},
        "before": os.environ.get("PYTHONPATH", ""),
        "out": [str(path) for path in out],
        "strict": strict,
    }
    try:
        code_of_exit = _ask(request)
        said = [path.read_text(encoding="utf-8", errors="replace") for path in out]
    finally:
        shutil.rmtree(folder)
    return subprocess.CompletedProcess(args, code_of_exit, *said)


def _ask(request: dict[str, object], limit: float = 600.0) -> int:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(limit)
        asking.connect(str(_server()))
        with asking.makefile("rw") as line:
            print(json.dumps(request), file=line, flush=True)
            child = int(line.readline())
            try:
                return int(line.readline())
            except TimeoutError:
                os.kill(child, signal.SIGKILL)
                raise


@cache
def _server() -> Path:
    """The socket of this session's warm process."""
    folder = Path(tempfile.mkdtemp(prefix="vlmlens-warm-"))
    place = folder / "socket"
    warm = subprocess.Popen(
        [sys.executable, "-W", "error", str(ROOT / "tests" / "_warm.py"), str(place)],
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
