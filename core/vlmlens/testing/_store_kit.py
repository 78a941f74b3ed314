"""The store under test: where it is, opening it, and using it in another process."""

from __future__ import annotations

import json
from pathlib import Path

from vlmlens.abc.storage import ColumnStore, Mode
from vlmlens.testing._plugin_checks import PluginChecks
from vlmlens.testing._processes import Process
from vlmlens.testing._stores import open_target


class StoreKit(PluginChecks):
    """A backend that is checked, and how its stores are reached."""

    def location(self, folder: Path) -> str:
        """Where a store in an empty folder of its own is."""
        return str(folder / "columns")

    def open(self, folder: Path, mode: Mode = "a") -> ColumnStore:
        """Open the store of a folder; each call gives a new handle on the same store."""
        return open_target(self.manifest.target, self.location(folder), mode, self.options)

    def start(self, action: str, folder: Path, *more: str) -> Process:
        """A process that reads the folder's store ("read") or writes to it ("write")."""
        location = self.location(folder)
        return Process(
            action, self.manifest.target, location, json.dumps(dict(self.options)), *more
        )
