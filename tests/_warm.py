"""The process behind `tests._program`: it imports what is slow once, and forks for each request.

Nothing of vlmlens is imported before the fork. The child leaves the loop, so that the program in it
runs and ends as if it had been started by itself.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import runpy
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

SLOW = (
    "numpy", "torch", "transformers.modeling_utils", "transformers.processing_utils",
    "transformers.generation", "transformers.models.auto", "transformers.models.clip.modeling_clip",
    "transformers.models.llava.modeling_llava", "transformers.models.llava.processing_llava",
    "tokenizers", "safetensors.torch", "scipy.linalg", "scipy.stats", "sklearn.linear_model",
    "pyarrow.parquet", "pydantic", "rich.console", "rich.progress", "typer", "lmdb",
    "PIL.Image", "yaml", "matplotlib.figure",
)  # fmt: skip


def serve(listener: socket.socket) -> dict[str, Any]:
    """Answer each request by a child: its process id at once, its exit status when it ends.

    Returns:
        In the child: the request.
    """
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw") as line:
            request: dict[str, Any] = json.loads(line.readline())
            child = os.fork()
            if child == 0:
                listener.close()
                return request
            print(child, file=line, flush=True)
            _, status = os.waitpid(child, 0)
            print(os.waitstatus_to_exitcode(status), file=line, flush=True)


def become(request: dict[str, Any]) -> None:
    """Make this process what was asked for: folder, environment, arguments, streams."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    streams = (os.devnull, os.O_RDONLY), *((path, os.O_WRONLY) for path in request["out"])
    for number, (path, flags) in enumerate(streams):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = ["vlmlens", *request["args"]]
    paths = request["env"].get("PYTHONPATH", "").split(os.pathsep)
    known = set(request["before"].split(os.pathsep))
    sys.path[:0] = [request["cwd"], *(path for path in paths if path and path not in known)]
    if request["env"].get("PYTHONFAULTHANDLER"):
        faulthandler.enable()
    warnings.resetwarnings()
    if request["strict"]:
        warnings.simplefilter("error")


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file
    for name in SLOW:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.bind(f"{sys.argv[1]}-begun")
        waiting.listen()
        Path(f"{sys.argv[1]}-begun").rename(sys.argv[1])
        asked = serve(waiting)
    become(asked)
    if asked["code"] is None:
        runpy.run_module("vlmlens", run_name="__main__", alter_sys=True)
    else:
        exec(compile(asked["code"], "<string>", "exec"), {"__name__": "__main__"})
