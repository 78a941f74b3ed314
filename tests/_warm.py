"""The process behind `tests._program`: it imports what is slow once, and forks for each request.

Nothing of vlmlens is imported before the fork, unless the command line names other modules to
import. The child leaves the loop, so that the program in it runs and ends as if it had been started
by itself.
"""

from __future__ import annotations

import atexit
import builtins
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
import weakref
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
    """Answer each request by a process: its id at once, and its exit status when it ends.

    Returns:
        In that process: the request.
    """
    keep_finalizers()
    parent = os.getppid()
    asking: dict[int, socket.socket] = {}
    standing: dict[socket.socket, int] = {}
    ended, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while os.getppid() == parent:
        ready, _, _ = select.select([listener, ended, *standing], [], [], LOOKS_EVERY)
        if ended in ready:
            ended.recv(1 << 16)
            tell(asking, standing)
        for connection in standing.keys() & ready:
            os.kill(standing.pop(connection), signal.SIGKILL)
        if listener in ready:
            connection, _ = listener.accept()
            with suppress(OSError):  # who asked may have ended
                request = read(connection)
                program = os.fork()
                if program == 0:
                    leave_loop([listener, ended, wake, connection, *asking.values()])
                    return request
                asking[program] = connection
                if request["streams"]:
                    standing[connection] = program
                for number in request["streams"]:
                    os.close(number)
                connection.sendall(b"%d\n" % program)
    raise SystemExit


def leave_loop(sockets: list[socket.socket]) -> None:
    """In a program: nothing of the loop is left."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for each in sockets:
        each.close()


def tell(asking: dict[int, socket.socket], standing: dict[socket.socket, int]) -> None:
    """Tell the exit status of each program that has ended to who asked for it."""
    while asking and (found := os.waitpid(-1, os.WNOHANG))[0]:
        with asking.pop(found[0]) as connection, suppress(OSError):
            standing.pop(connection, None)
            connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(found[1]))


def read(connection: socket.socket) -> dict[str, Any]:
    """A line of JSON, and the streams that come with it, if any."""
    text, streams, *_ = socket.recv_fds(connection, 1 << 16, 3)
    while not text.endswith(b"\n"):
        more = connection.recv(1 << 16)
        if not more:
            raise ConnectionError(text)
        text += more
    request: dict[str, Any] = json.loads(text)
    return {**request, "streams": list(streams)}


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


class Ending:
    """Ends the process when it is deleted itself, with the builtins: the last of what a program can
    see. What Python would delete after them is left, since it would be copied first (0.05 s).

    Args:
        status: The exit status.
    """

    leave = staticmethod(os._exit)

    def __init__(self, status: int) -> None:
        self.status = status

    def __del__(self) -> None:
        self.leave(self.status & 0xFF)


def leave_libraries(known: list[str], statuses: list[int]) -> None:
    """At the end of a program, leave the libraries as they are; what it made itself ends as ever.

    To take them apart would first copy them all into this process: 0.4 s of each program's time.

    Args:
        known: The libraries' modules.
        statuses: With what the program will end, if that is known; else Python decides it.
    """
    kept = [sys.modules.pop(name) for name in known if name in sys.modules]
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
    libc = ctypes.CDLL(None)
    with suppress(AttributeError):  # other systems than Linux have none
        libc.on_exit(libc._exit, None)  # the first of what C libraries do at the end is the last
    with suppress(OSError, ValueError):  # what cannot be written has a status of its own
        sys.stdout.flush()
        vars(builtins).update((str(status), Ending(status)) for status in statuses)


def keep_finalizers() -> None:
    """What libraries would do at the end, too, they do not do in the programs (torch: 0.03 s)."""
    finalizers: Any = weakref.finalize
    for each in finalizers._registry:
        each.atexit = False


def run(request: dict[str, Any], statuses: list[int]) -> None:
    """Run the program, and note with which status it ends."""
    try:
        if request["code"] is None:
            runpy.run_module(request.get("module", "vlmlens"), run_name="__main__", alter_sys=True)
        else:
            exec(compile(request["code"], "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            statuses.append(end.code or 0)
        raise
    statuses.append(0)


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file
    libraries: list[str] = []
    statuses: list[int] = []
    # Before all others, and so called after them.
    atexit.register(leave_libraries, libraries, statuses)
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
    run(asked, statuses)
