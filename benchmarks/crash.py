"""Runs killed with SIGKILL at random moments and resumed: nothing lost or doubled, no bit off.

Each run is a process of its own, killed once or several times; what it ends with is compared with
an uninterrupted run, value by value. Rows are stored a few at a time. Runs tell through a pipe when
a write begins and ends: most kills are aimed into a write that is chosen by chance, or between it
and the next one; the others fall anywhere.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlmlens import Run
from vlmlens.compose.plan import compose
from vlmlens.errors import StoreError
from vlmlens.extraction import write_buffer as blocks
from vlmlens.registry import Registry
from vlmlens.runner.execution import execute
from vlmlens.spec.model import make_spec

SITES = ("llm.block.*/last", "vision.block.1/image.mean", "llm.block.2/all")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print how many runs were killed, how often, where, and what differed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--samples", type=int, default=160)
    parser.add_argument("--rows", type=int, default=8, help="rows per write")
    parser.add_argument("--storage", default="lmdb")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    blocks._ROWS = chosen.rows
    dice = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {
            "limit": chosen.samples,
            "sites": list(SITES),
            "storage": chosen.storage,
            "batch_size": chosen.rows,
        }
        _import_all(settings)
        whole = _finish(folder / "whole", settings)
        kills: list[Kill] = []
        wrong = 0
        for number in range(chosen.runs):
            kills += _killed(folder / "run", settings, whole, dice)
            _finish(folder / "run", settings)
            wrong += not _equal(Run(folder / "run"), Run(folder / "whole"))
            shutil.rmtree(folder / "run")
            if (number + 1) % 10 == 0:
                print(f"{number + 1:4} runs, {len(kills)} kills, {wrong} differ", flush=True)
    some = sum(0 < kill.rows < chosen.samples for kill in kills)
    print(
        f"{chosen.runs} runs of {chosen.samples} samples, {len(kills)} kills: "
        f"{sum(kill.writing for kill in kills)} inside a write, {some} with some rows stored, "
        f"{sum(not kill.rows for kill in kills)} before the first"
    )
    print(f"runs that lost, doubled or changed a value: {wrong} (target 0)")
    raise SystemExit(bool(wrong))


@dataclass
class Kill:
    """Rows that were stored when a run was killed, and whether it was writing."""

    rows: int
    writing: bool


@dataclass
class Whole:
    """An uninterrupted run: its seconds, its writes, seconds of one and from one to the next."""

    seconds: float
    writes: int
    writing: float
    between: float


class Child:
    """A run in a process of its own, which tells of its writes."""

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self._told, tells = os.pipe()
        self._last = b""
        fork = multiprocessing.get_context("fork")
        self.process = fork.Process(target=_extract, args=(out, settings, tells))
        self.process.start()
        os.close(tells)

    def next(self) -> bytes:
        """`(` where a write begins, `)` where it ends; nothing once the run has ended."""
        told = os.read(self._told, 1)
        self._last = told or self._last
        return told

    def wait_for_write(self, number: int) -> None:
        """Until that write begins, counted from 0, or the run has ended."""
        while told := self.next():
            number -= told == b"("
            if number < 0:
                return

    def kill(self) -> bool | None:
        """Whether it was writing; None where it had ended by itself."""
        if self.process.exitcode is None:
            os.kill(self.process.pid or 0, signal.SIGKILL)
        self.process.join()
        while self.next():
            pass
        os.close(self._told)
        if self.process.exitcode not in (0, -signal.SIGKILL):
            raise SystemExit(f"a run ended with code {self.process.exitcode}")
        return None if self.process.exitcode == 0 else self._last == b"("


def _killed(out: Path, settings: dict[str, Any], whole: Whole, dice: random.Random) -> list[Kill]:
    """Start a run and kill it, at least once; one kill in four falls anywhere."""
    kills: list[Kill] = []
    while not kills or dice.random() < 0.3:
        child = Child(out, settings)
        aimed = dice.random() < 3 / 4
        longest = whole.seconds
        if aimed:
            child.wait_for_write(dice.randrange(whole.writes))
            longest = dice.choice((whole.writing, whole.writing, whole.between))
        child.process.join(dice.uniform(0, longest))
        writing = child.kill()
        if writing is not None:
            kills.append(Kill(_rows(out), writing))
        elif kills:
            break
        else:
            shutil.rmtree(out)
    return kills


def _import_all(settings: dict[str, Any]) -> None:
    """Import here what runs import, so that their time is theirs; forks need one thread."""
    import torch

    torch.set_num_threads(1)
    compose(make_spec(settings), Registry.default(), analyse=False).load()
    importlib.import_module("vlmlens.extraction.extraction")


def _finish(out: Path, settings: dict[str, Any]) -> Whole:
    """Run to the end."""
    start = time.perf_counter()
    child, moments = Child(out, settings), []
    while child.next():
        moments.append(time.perf_counter())
    child.process.join()
    if child.process.exitcode:
        raise SystemExit(f"a run ended with code {child.process.exitcode}")
    begun, ended = moments[::2], moments[1::2]
    count = max(1, len(begun))
    writing = sum(ended) - sum(begun)
    return Whole(
        time.perf_counter() - start,
        len(begun),
        writing / count,
        (max(ended, default=start) - min(begun, default=start)) / count,
    )


def _extract(out: Path, settings: dict[str, Any], tells: int) -> None:
    import torch

    # A fork makes torch's pool of threads anew, which several threads must not do at once.
    torch.set_num_threads(1)
    _tell_of_writes(tells)
    plan = compose(make_spec({**settings, "out": str(out)}), Registry.default(), analyse=False)
    mode: Any = "resume" if (out / "run.json").exists() else "new"
    execute(plan, mode=mode, extract_only=True)


def _tell_of_writes(tells: int) -> None:
    flush = blocks.BlockWriter.flush

    def telling(writer: blocks.BlockWriter) -> None:
        if writer._blocks:
            os.write(tells, b"(")
            flush(writer)
            os.write(tells, b")")

    blocks.BlockWriter.flush = telling  # type: ignore[method-assign]


def _rows(out: Path) -> int:
    if not (out / "run.json").exists():
        return 0
    try:
        with Run(out).store() as store:
            return min((info.samples for info in store.columns()), default=0)
    except StoreError:  # killed before there was a store
        return 0


def _equal(one: Run, other: Run) -> bool:
    if list(one.activations) != list(other.activations):
        return False
    for name in other.activations:
        with one.store() as store:
            ids = store.ids(name)
        if sorted(ids) != sorted(sample.id for sample in other.samples):
            return False
        pairs = zip(one.activations[name], other.activations[name], strict=True)
        if not all(_same_bits(mine, theirs) for mine, theirs in pairs):
            return False
    return True


def _same_bits(one: Any, other: Any) -> bool:
    mine, theirs = np.asarray(one), np.asarray(other)
    return (mine.dtype, mine.shape, mine.tobytes()) == (
        theirs.dtype,
        theirs.shape,
        theirs.tobytes(),
    )


if __name__ == "__main__":
    main()
