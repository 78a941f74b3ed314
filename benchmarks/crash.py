"""Runs killed with SIGKILL at random moments and resumed: nothing lost or doubled, no bit off.

Each run is a process of its own, killed once or several times; what it ends with is compared with
an uninterrupted run, value by value. Rows are stored a few at a time, so that kills fall between
and into many writes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from vlmlens import Run, blocks
from vlmlens.errors import StoreError
from vlmlens.plan import compose
from vlmlens.registry import Registry
from vlmlens.runner import execute
from vlmlens.spec import make_spec

SITES = ("llm.block.*/last", "vision.block.1/image.mean", "llm.block.2/all")


def main() -> None:
    """Print how many runs were killed, how often, where, and what differed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--samples", type=int, default=160)
    parser.add_argument("--rows", type=int, default=8, help="rows per write")
    parser.add_argument("--storage", default="lmdb")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    blocks._ROWS = chosen.rows
    dice = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {"limit": chosen.samples, "sites": list(SITES), "storage": chosen.storage}
        _import_all(settings)
        length = _finish(folder / "whole", settings)
        stored: list[int] = []
        wrong = 0
        for number in range(chosen.runs):
            stored += _killed(folder / "run", settings, length, dice)
            _finish(folder / "run", settings)
            wrong += not _equal(Run(folder / "run"), Run(folder / "whole"))
            shutil.rmtree(folder / "run")
            if (number + 1) % 10 == 0:
                print(f"{number + 1:4} runs, {len(stored)} kills, {wrong} differ", flush=True)
    part = sum(0 < rows < chosen.samples for rows in stored)
    print(
        f"{chosen.runs} runs of {chosen.samples} samples, {len(stored)} kills, "
        f"{part} of them with some rows stored, {stored.count(0)} before the first"
    )
    print(f"runs that lost, doubled or changed a value: {wrong} (target 0)")
    raise SystemExit(bool(wrong))


def _killed(
    out: Path, settings: dict[str, Any], length: tuple[float, float], dice: random.Random
) -> list[int]:
    """Start a run and kill it, at least once; rows that were stored at each kill.

    A first kill in three falls anywhere in the run, as later ones do; the others while it extracts.
    """
    rows: list[int] = []
    while not rows or dice.random() < 0.3:
        child = _child(out, settings)
        if rows or dice.random() < 1 / 3:
            child.join(dice.uniform(0, sum(length)))
        else:
            _wait_for_extraction(child, out)
            child.join(dice.uniform(0, length[1]))
        if child.exitcode is None:
            os.kill(child.pid or 0, signal.SIGKILL)
            child.join()
            rows.append(_rows(out))
        elif rows:
            break
        else:
            shutil.rmtree(out)
    return rows


def _import_all(settings: dict[str, Any]) -> None:
    """Import here what runs import, so that their time is theirs; forks need one thread."""
    import torch

    torch.set_num_threads(1)
    compose(make_spec(settings), Registry.default(), analyse=False).load()
    importlib.import_module("vlmlens.extraction")


def _finish(out: Path, settings: dict[str, Any]) -> tuple[float, float]:
    """Run to the end; seconds until it extracts, and from then on."""
    start = time.perf_counter()
    child = _child(out, settings)
    _wait_for_extraction(child, out)
    made = time.perf_counter()
    child.join()
    if child.exitcode:
        raise SystemExit(f"a run ended with code {child.exitcode}")
    return made - start, time.perf_counter() - made


def _wait_for_extraction(child: Any, out: Path) -> None:
    """Wait until the run says which model it has loaded: rows come right after."""
    while child.is_alive() and not _has_model(out / "run.json"):
        time.sleep(0.002)


def _has_model(path: Path) -> bool:
    return path.exists() and "model" in json.loads(path.read_text(encoding="utf-8"))


def _child(out: Path, settings: dict[str, Any]) -> Any:
    child = multiprocessing.get_context("fork").Process(target=_extract, args=(out, settings))
    child.start()
    return child


def _extract(out: Path, settings: dict[str, Any]) -> None:
    import torch

    # A fork makes torch's pool of threads anew, which several threads must not do at once.
    torch.set_num_threads(1)
    plan = compose(make_spec({**settings, "out": str(out)}), Registry.default(), analyse=False)
    mode: Any = "resume" if (out / "run.json").exists() else "new"
    execute(plan, mode=mode, extract_only=True)


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
