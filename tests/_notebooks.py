"""A Jupyter kernel of this interpreter, and notebooks that run in it. No kernel is installed."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from tests._program import kernel_python

ROOT = Path(__file__).parents[1]
_ARGUMENTS = ["-m", "ipykernel_launcher", "-f", "{connection_file}"]
_OWN = ("HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")


@contextmanager
def kernel(folder: Path) -> Iterator[AsyncKernelManager]:
    """A kernel that runs in a folder; its settings and HOME are there, too."""
    home = folder / "home"
    home.mkdir(parents=True)
    places = {name: str(home) for name in _OWN}
    with tempfile.TemporaryDirectory(prefix="vlmlens-") as short:  # paths of sockets are limited
        connection = str(Path(short, "kernel.json"))
        manager = AsyncKernelManager(connection_file=connection, transport="ipc")
        argv = [kernel_python(), *_ARGUMENTS]
        manager._kernel_spec = KernelSpec(argv=argv, display_name="here", language="python")
        run_sync(manager.start_kernel)(cwd=str(folder), env={**os.environ, **places})
        try:
            yield manager
        finally:
            run_sync(manager.shutdown_kernel)(now=True)


class Client(NotebookClient):
    """Runs a notebook, and interrupts the kernel when an output says so.

    Args:
        stop: A pattern; the first message whose data it matches interrupts the kernel.
        times: How often.
        first: The number of the first cell where that may happen.
    """

    def __init__(
        self, nb: Any, km: Any, *, stop: str = "", times: int = 1, first: int = 0, **settings: Any
    ) -> None:
        super().__init__(nb, km=km, **settings)
        self._stop, self._times, self._first = stop, times, first
        self.stopped = False

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        """Look at the message before it becomes an output."""
        said = str(msg["content"].get("data", {}).get("text/plain", ""))
        wanted = self._stop and cell_index >= self._first and not self.stopped
        if wanted and re.search(self._stop, said):
            self.stopped = True
            for _ in range(self._times):
                run_sync(self.km.interrupt_kernel)()
        return super().process_message(msg, cell, cell_index)


def notebook(*cells: str) -> Any:
    """A notebook of code cells."""
    made = nbformat.v4.new_notebook()
    made.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    return made


def executed(book: Any, km: Any, *, allow_errors: bool = False, **settings: Any) -> Any:
    """The notebook with its outputs. A cell that fails raises `nbclient`'s CellExecutionError."""
    client = Client(book, km, timeout=300, allow_errors=allow_errors, **settings)
    try:
        client.execute()
    finally:
        if client.kc is not None:
            client.kc.stop_channels()
    return client.nb
