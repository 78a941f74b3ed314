"""Leases in a run's folder: what is planned, what is finished, and where its rows are.

::

    leases/key                         tells this folder from another machine's at the same path
    leases/001/plan.json               what all workers need to know, and the names of the leases
    leases/001/00042.json              a lease: samples, units, and the columns that they lack
    leases/001/00042.begun/ATTEMPT     an attempt at it was handed out
    leases/001/00042-ATTEMPT/          the rows of an attempt, if the storage is no URI
    leases/001/00042.done              the receipt of the attempt that counts; made once
    leases/001/closed                  no more receipts: the rest was done in another way
    leases/001/merged                  its rows are in the run's own store now
    leases/group-KEY.json              what the first process of a start of a command tells others

A lease counts once its receipt is there. Other attempts are removed, and never read.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from vlmlens._files import create_only, remove_abandoned, replacing, write_text
from vlmlens.errors import RunError
from vlmlens.runs.records import damaged, read_record
from vlmlens.runs.signing import fits, signature

FOLDER = "leases"
_PLAN = "plan.json"
_CLOSED = "closed"
_MERGED = "merged"
_LAST = {_PLAN: 1, _MERGED: 2}
_NAME = re.compile(r"\d{5,9}")
_ATTEMPT = re.compile(r"[0-9a-f]{16}")
_OURS = re.compile(r"plan\.json|closed|merged|\d{5,9}(\.json|\.done|\.begun|-[0-9a-f]{16})")


class LeasePlan:
    """The leases of one plan of a run.

    Args:
        folder: `RUN/leases/001`, `RUN/leases/002`, ...
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: dict[str, int] = {}

    @classmethod
    def create(
        cls, run: Path, order: Mapping[str, Any], leases: Iterable[Mapping[str, Any]]
    ) -> LeasePlan:
        """Write a new plan, in one step. The caller holds the right to change the run.

        Args:
            run: The run's folder.
            order: What all workers need to know, as JSON data.
            leases: The leases, the longest first; each is made when it is written.
        """
        known = [path.name for path in (run / FOLDER).glob("*/") if path.name.isdecimal()]
        before = [int(name) for name in known]
        folder = run / FOLDER / f"{max(before, default=0) + 1:03d}"
        folder.parent.mkdir(exist_ok=True)
        counts: list[int] = []
        digests: dict[str, str] = {}
        with replacing(folder) as place:
            place.mkdir()
            for number, lease in enumerate(leases):
                name, text = f"{number:05d}", json.dumps(lease, ensure_ascii=False)
                write_text(place / f"{name}.json", text)
                digests[name] = _digest(text.encode())
                counts.append(len(lease["samples"]))
            signed = {"order": dict(order), "digests": digests}
            plan = {"format": 1, **signed, "names": list(digests), "samples": counts}
            plan["signed"] = signature(f"leases/{_PLAN}", _canonical(signed))
            write_text(place / _PLAN, json.dumps(plan, ensure_ascii=False))
        return cls(folder)

    @cached_property
    def _plan(self) -> dict[str, Any]:
        plan = read_record(self.folder / _PLAN)
        names, counts = plan.get("names"), plan.get("samples")
        right = isinstance(names, list) and isinstance(counts, list) and len(names) == len(counts)
        if not right or not all(isinstance(n, str) and _NAME.fullmatch(n) for n in names or ()):
            raise damaged(self.folder / _PLAN, "its list of leases is not one")
        if plan.get("format") != 1:
            raise RunError(
                f"{self.folder / _PLAN} has the format {plan.get('format')!r}, not 1.",
                subject=str(self.folder),
                hint="It is of a newer vlmlens: update this one.",
            )
        return plan

    @property
    def order(self) -> dict[str, Any]:
        """What all workers need to know."""
        return dict(self._plan["order"])

    @property
    def names(self) -> list[str]:
        """The leases, the longest first."""
        return list(self._plan["names"])

    @property
    def samples(self) -> dict[str, int]:
        """The number of samples of each lease."""
        return dict(zip(self._plan["names"], self._plan["samples"], strict=True))

    def lease(self, name: str) -> dict[str, Any]:
        """What is in a lease.

        Raises:
            RunError: It is not what the plan was written with.
        """
        path = self.folder / f"{name}.json"
        if not self._is_whole(name):
            raise damaged(path, "it was changed after it was planned")
        return read_record(path)

    def is_whole(self) -> bool:
        """Whether the open leases are as they were planned."""
        return all(map(self._is_whole, self.open()))

    def _is_whole(self, name: str) -> bool:
        digests, path = self._plan.get("digests"), self.folder / f"{name}.json"
        known = digests.get(name) if isinstance(digests, dict) else None
        return path.is_file() and known == _digest(path.read_bytes())

    def done(self) -> set[str]:
        """The names of the finished leases, as they are on the disk now."""
        found = {path.stem for path in self.folder.glob("*.done")}
        return found & set(self._plan["names"])

    def open(self) -> list[str]:
        """The leases that are not finished, the longest first; none if the plan is closed."""
        if self.closed:
            return []
        done = self.done()
        return [name for name in self._plan["names"] if name not in done]

    def receipt(self, name: str) -> dict[str, Any]:
        """The receipt of a finished lease."""
        receipt = read_record(self.folder / f"{name}.done")
        if not _ATTEMPT.fullmatch(str(receipt.get("attempt"))):
            raise damaged(self.folder / f"{name}.done", "it names no attempt")
        return receipt

    def receipts(self) -> Iterator[dict[str, Any]]:
        """The receipts of all finished leases, in the order of the plan."""
        done = self.done()
        for name in self._plan["names"]:
            if name in done:
                yield self.receipt(name)

    def begin(self, name: str) -> str:
        """Note a new attempt at a lease, which this process holds until `release` or its end.

        Returns:
            The attempt's key.
        """
        attempt = secrets.token_hex(8)
        begun = self.folder / f"{name}.begun"
        begun.mkdir(exist_ok=True)
        file = os.open(begun / attempt, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._held[attempt] = file
        return attempt

    def attempts(self, name: str) -> list[str]:
        """The attempts at a lease that were begun and whose rows are not removed."""
        begun = self.folder / f"{name}.begun"
        names = [path.name for path in begun.iterdir()] if begun.is_dir() else []
        return sorted(attempt for attempt in names if _ATTEMPT.fullmatch(attempt))

    def at_work(self, name: str, attempt: str) -> bool:
        """Whether a process holds an attempt, as far as the file system's locks tell."""
        if attempt in self._held:
            return True
        try:
            file = os.open(self.folder / f"{name}.begun" / attempt, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(file)
        return False

    def release(self, attempt: str) -> None:
        """Give an attempt back."""
        file = self._held.pop(attempt, None)
        if file is not None:
            os.close(file)

    def release_all(self) -> None:
        """Give all attempts back."""
        for attempt in list(self._held):
            self.release(attempt)

    def forget(self, name: str, attempt: str) -> None:
        """Note that the rows of an attempt are removed."""
        self.release(attempt)
        (self.folder / f"{name}.begun" / attempt).unlink(missing_ok=True)

    def finish(self, name: str, receipt: Mapping[str, Any]) -> bool:
        """Keep a receipt, if it is the lease's first and the plan is not closed."""
        if self.closed:
            return False
        text = json.dumps(receipt, ensure_ascii=False, allow_nan=False)
        return create_only(self.folder / f"{name}.done", text.encode())

    @property
    def closed(self) -> bool:
        """Whether its open leases are not to be run any more."""
        return (self.folder / _CLOSED).exists()

    def close(self) -> None:
        """Take no more receipts. What is finished stays."""
        create_only(self.folder / _CLOSED, b"")

    @property
    def merged(self) -> bool:
        """Whether its rows are in the run's own store, so that it is only to be removed."""
        return (self.folder / _MERGED).exists()

    def mark_merged(self) -> None:
        """Note that its rows are in the run's own store."""
        create_only(self.folder / _MERGED, b"")

    def is_own(self) -> bool:
        """Whether this user's vlmlens wrote the order and all leases on this machine."""
        content = {"order": self.order, "digests": self._plan.get("digests")}
        return fits(f"leases/{_PLAN}", _canonical(content), self._plan.get("signed"))


def lease_plans(run: Path, *, merged: bool = False) -> list[LeasePlan]:
    """The plans in a run's folder, the oldest first.

    Args:
        run: The run's folder.
        merged: Only those whose rows are in the run's own store; default: only the others.
    """
    found = (path.parent for path in (run / FOLDER).glob(f"*/{_PLAN}"))
    plans = [LeasePlan(path) for path in sorted(found) if path.name.isdecimal()]
    return [plan for plan in plans if plan.merged is merged]


def remove_leases(run: Path) -> None:
    """Remove all leases of a run, with their rows in its folder.

    What is killed meanwhile leaves no plan that looks unfinished: `merged` goes after the plan.
    """
    for folder in (run / FOLDER).glob("*/"):
        if folder.name.isdecimal():
            remove_abandoned(folder)
            ours = [path for path in folder.iterdir() if _OURS.fullmatch(path.name)]
            for path in sorted(ours, key=lambda path: _LAST.get(path.name, 0)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            _remove_if_empty(folder)
    remove_abandoned(run / FOLDER)
    for path in (run / FOLDER / "key", *(run / FOLDER).glob("group-*.json")):
        path.unlink(missing_ok=True)
    _remove_if_empty(run / FOLDER)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, ensure_ascii=False).encode()
