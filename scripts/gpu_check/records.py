"""The file of outcomes: appended to line by line, and gone on from after a cut."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scripts.gpu_check.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Records:
    """A file with one line of JSON for each check.

    Args:
        path: The file; it need not exist.
    """

    path: Path

    def add(self, outcome: Outcome) -> None:
        """Append a line, so that it is on the disk when this returns.

        A line that a cut left unfinished stays as it is, and the new one begins a line of its own.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                broken = file.read(1) != b"\n"
            else:
                broken = False
            file.write(("\n" * broken + outcome.line() + "\n").encode())
            file.flush()
            os.fsync(file.fileno())

    def read(self, device: str, shape: str) -> dict[int, Outcome]:
        """The last outcome of each check on a device and a shape, by the check's number.

        Lines that cannot be read are left out: a cut run may end in the middle of one.
        """
        found = {}
        for outcome in self._all():
            if (outcome.device, outcome.shape) == (device, shape):
                found[outcome.number] = outcome
        return found

    def _all(self) -> Iterable[Outcome]:
        if not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                yield Outcome.read(line)
            except ValueError:
                continue
