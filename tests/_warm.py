"""The process behind `tests._program`: it imports what is slow once, and forks for each request.

Nothing of vlmlens is imported before the fork, unless the command line names other modules to
import. The child leaves the loop, so that the program in it runs and ends as if it had been started
by itself.
"""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

SLOW = (
    "numpy", "torch", "transformers.modeling_utils", "transformers.processing_utils",
    "transformers.generation", "transformers.models.auto", "transformers.models.clip.modeling_clip",
    "transformers.models.clip.image_processing_pil_clip", "transformers.conversion_mapping",
    "transformers.models.llama.modeling_llama",
    "transformers.models.llava.modeling_llava", "transformers.models.llava.processing_llava",
    "tokenizers", "safetensors.torch", "scipy.linalg", "scipy.stats", "sklearn.linear_model",
    "pyarrow.parquet", "pydantic.main", "pydantic.types", "pydantic.type_adapter",
    "pydantic.json_schema", "pluggy",
    "packaging.requirements", "sqlite3", "rich.console", "rich.progress", "typer", "lmdb",
    "PIL.Image", "PIL.ImageDraw", "PIL.ImageFont", "PIL.GifImagePlugin", "PIL.JpegImagePlugin",
    "yaml",
    "matplotlib.figure",
)  # fmt: skip

LOOKS_EVERY = 10.0
"""Seconds after which it looks whether the tests still run; how they ended does not matter."""


def serve(listener: socket.socket) -> dict[str, Any]:
    """Answer each request by two processes: the program it asks for, and one that waits for it.

    The one that waits tells the program's process id at once, and its exit status when it ends.

    Returns:
        In the program: the request.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    parent = os.getppid()
    listener.settimeout(LOOKS_EVERY)
    while True:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            if os.getppid() != parent:
                raise SystemExit from None
            continue
        with connection:
            if os.fork() == 0:
                listener.close()
                return accept(connection)


def accept(connection: socket.socket) -> dict[str, Any]:
    """Read the request, and fork for it; only the program returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with suppress(OSError), connection.makefile("w") as line:  # who asked may have ended
        request = read(connection)
        child = os.fork()
        if child == 0:
            return request
        for number in request["streams"]:
            os.close(number)
        print(child, file=line, flush=True)
        if request["streams"]:
            await_both(child, connection)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=line, flush=True)
    os._exit(0)


def read(connection: socket.socket) -> dict[str, Any]:
    """A line of JSON, and the streams that come with it, if any."""
    text, streams, *_ = socket.recv_fds(connection, 1 << 16, 3)
    while not text.endswith(b"\n"):
        text += connection.recv(1 << 16)
    request: dict[str, Any] = json.loads(text)
    return {**request, "streams": list(streams)}


def await_both(child: int, connection: socket.socket) -> None:
    """Wait until the program has ended; kill it if the process that stands for it is killed."""
    ended = os.pidfd_open(child)
    if ended not in select.select([ended, connection], [], [])[0]:
        os.kill(child, signal.SIGKILL)


def become(request: dict[str, Any]) -> None:
    """Make this process what was asked for: folder, environment, arguments, streams, signals."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in request["ignored"] else usual)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    files = (
        (os.devnull, os.O_RDONLY),
        *((path, os.O_WRONLY | os.O_APPEND) for path in request["out"]),
    )
    for number, opened in enumerate(request["streams"] or [os.open(*each) for each in files]):
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = ["vlmlens", *request["args"]]
    sys.executable = request["env"].get("VLMLENS_TEST_PYTHON", sys.executable)
    paths = request["env"].get("PYTHONPATH", "").split(os.pathsep)
    known = set(request["before"].split(os.pathsep))
    sys.path[:0] = [path for path in paths if path and path not in known]
    if request["sees_cwd"]:
        sys.path.insert(0, request["cwd"])
    if request["env"].get("PYTHONFAULTHANDLER"):
        faulthandler.enable()
    warnings.resetwarnings()
    if request["strict"]:
        warnings.simplefilter("error")


def leave_libraries(known: list[str]) -> None:
    """At the end of a program, leave the libraries as they are; what it made itself ends as ever.

    To take them apart would first copy them all into this process: 0.4 s of each program's time.
    """
    kept = [sys.modules.pop(name) for name in known if name in sys.modules]
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
    libc = ctypes.CDLL(None)
    with suppress(AttributeError):  # other systems than Linux have none
        libc.on_exit(libc._exit, None)  # the first of what C libraries do at the end is the last


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file
    libraries: list[str] = []
    atexit.register(leave_libraries, libraries)  # before all others, and so called after them
    named = sys.argv[2:]
    for name in named or SLOW:
        importlib.import_module(name)
    libraries += (n for n in sys.modules if n.partition(".")[0] not in sys.stdlib_module_names)
    libraries.remove("__main__")
    # A table of regular expressions that is made when the first model is loaded.
    if not named:
        sys.modules["transformers.conversion_mapping"].get_checkpoint_conversion_mapping("llava")
    gc.freeze()  # collections in the programs need not look at all this
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.bind(f"{sys.argv[1]}-begun")
        waiting.listen()
        Path(f"{sys.argv[1]}-begun").rename(sys.argv[1])
        asked = serve(waiting)
    become(asked)
    if asked["code"] is None:
        runpy.run_module(asked.get("module", "vlmlens"), run_name="__main__", alter_sys=True)
    else:
        exec(compile(asked["code"], "<string>", "exec"), {"__name__": "__main__"})
