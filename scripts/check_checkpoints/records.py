"""What is kept of a step: one JSON file per checkpoint and step, written in one piece."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

from vlmlens._files import write_json
from vlmlens.errors import RunError

PASSED: Final = "passed"
FAILED: Final = "failed"
NOT_OFFERED: Final = "not offered"
NOT_RUN: Final = "not run"
Outcome = Literal["passed", "failed", "not offered", "not run"]
PACKAGES = ("vlmlens", "torch", "transformers")
ROOT = Path(__file__).parents[2]
_KEPT = frozenset({PASSED, NOT_OFFERED})


@dataclass(frozen=True, slots=True)
class Record:
    """The outcome of a step.

    Args:
        checkpoint: The checkpoint's id.
        adapter: The adapter's name.
        step: "kit", the name of an analysis, or "question".
        outcome: What happened.
        text: What happened, in one line.
        under: What it rests on: digest, versions, device and settings. With other ones, it is
            done again.
        full: Whether it was the full checkpoint; False for tiny copies.
        seconds: How long it took.
        when: The date and time at its end, UTC.
        commit: The commit of the checkout.
        data: More: counts, failed checks, the answer.
    """

    checkpoint: str
    adapter: str
    step: str
    outcome: Outcome
    text: str
    under: Mapping[str, Any]
    full: bool = False
    seconds: float = 0.0
    when: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    commit: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


class Records:
    """The records in a folder: `FOLDER/state/ORG--NAME/STEP.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, slug: str, record: Record) -> None:
        """Keep a record; an earlier one of the same step is replaced."""
        path = self._path(slug, record.step)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(record))

    def read(self, slug: str, step: str) -> Record | None:
        """The record of a step; None if there is none, or it is damaged."""
        try:
            found = json.loads(self._path(slug, step).read_text(encoding="utf-8"))
            return Record(**found)
        except (OSError, ValueError, TypeError):
            return None

    def all(self, slug: str) -> list[Record]:
        """The records of a checkpoint whose files are those of its latest one."""
        names = [path.stem for path in self._path(slug, "x").parent.glob("*.json")]
        read = [self.read(slug, name) for name in sorted(names)]
        found = sorted((each for each in read if each is not None), key=lambda each: each.when)
        return [each for each in found if each.under["digest"] == found[-1].under["digest"]]

    def done(self, slug: str, step: str, under: Mapping[str, Any]) -> Record | None:
        """The record of a step that need not be done again.

        That is one that passed, or that the family does not offer, under the same conditions.
        """
        found = self.read(slug, step)
        same = found is not None and found.under == json.loads(json.dumps(under))
        return found if found is not None and same and found.outcome in _KEPT else None

    def _path(self, slug: str, step: str) -> Path:
        return self.folder / "state" / slug / f"{re.sub(r'[^A-Za-z0-9._-]', '-', step)}.json"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder of records while the block runs.

    Raises:
        RunError: Another process holds it.
    """
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(
                f"Another process writes into {str(folder)!r}.",
                subject=str(folder),
                hint="Wait for it, or give another folder with --out.",
            ) from None
        yield
    finally:
        os.close(handle)


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version(), **{name: version_of(name) for name in PACKAGES}}


def version_of(distribution: str) -> str:
    """The version of an installed distribution."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def commit() -> str | None:
    """The commit of this checkout, with `-dirty` if it was changed; None if it is not known."""
    try:
        asked = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=20,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout.strip() or None
