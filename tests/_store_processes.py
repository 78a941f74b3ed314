"""The storage kit, whose processes need not import the backends anew.

Each is a fork of a process that has imported them and has opened no store. How the kit starts its
processes itself is seen in the checks of `tests/unit/test_lmdb_store.py`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests import _program
from vlmlens.testing import StorageTests
from vlmlens.testing._processes import Process

IMPORTED = (
    "torch", "zarr", "vlmlens.testing._stores", "vlmlens_plugins.storage.lmdb",
    "vlmlens_plugins.storage.safetensors", "vlmlens_plugins.storage.sqlite",
    "vlmlens_plugins.storage.zarr",
)  # fmt: skip


class WarmStorageTests(StorageTests):
    """The kit with such processes."""

    def start(self, action: str, folder: Path, *more: str) -> Process:
        """See `StoreKit.start`."""
        options = json.dumps(dict(self.options))
        return ForkedProcess(action, self.manifest.target, self.location(folder), options, *more)


class ForkedProcess(Process):
    """A process of the kit that is a fork; all else is the kit's."""

    def __init__(self, *arguments: str) -> None:
        if not hasattr(os, "pidfd_open"):  # other systems than Linux have none
            super().__init__(*arguments)
        else:
            self._process: Any = Forked("vlmlens.testing._store_process", arguments)


class Forked:
    """What the kit needs of a `subprocess.Popen`, its standard streams included."""

    def __init__(self, module: str, arguments: tuple[str, ...]) -> None:
        request = _program.request_for(list(arguments), None, None, False, {})
        request |= {"module": module, "out": [], "sees_cwd": False}
        (theirs, given), (said, output) = os.pipe(), os.pipe()
        self.stdin = os.fdopen(given, "w")
        self.stdout = os.fdopen(said)
        self.returncode: int | None = None
        self._asking = socket.socket(socket.AF_UNIX)
        self._asking.connect(str(_program.warm_server(*IMPORTED)))
        line = json.dumps(request).encode() + b"\n"
        socket.send_fds(self._asking, [line], [theirs, output, 2])
        os.close(theirs)
        os.close(output)
        self._told = self._asking.makefile()
        self.pid = int(self._told.readline())

    def kill(self) -> None:
        """`kill -9`, if it still runs."""
        if self.returncode is None and not select.select([self._asking], [], [], 0)[0]:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float) -> int:
        """Its exit status."""
        if self.returncode is None:
            if not select.select([self._asking], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a process of the storage kit", timeout)
            self.returncode = int(self._told.readline())
            self._told.close()
            self._asking.close()
        return self.returncode
