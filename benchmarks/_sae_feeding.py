"""What feeding an SAE from a store costs beside rows in memory, and how far memory grows.

`feeding`: an SAE is trained from a tensor and from an LMDB store in turn, step by step, so that
whatever else runs hits both; the buffer is small, so that every second step from the store begins
to read a block. `scale`: a process trains on few rows and
one on many, all of them once, from a store; what counts is the memory that is the process's own
(the store's pages are the system's, which takes them back when it needs them).

    python -m benchmarks._sae_feeding                    # both, as benchmarks.sae runs them
    python -m benchmarks._sae_feeding --only scale --rows 200000 1000000
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._compare import Target, Times, ratios, table, verdicts
from vlmlens.abc.storage import ColumnBlock, ColumnStore, Values
from vlmlens.registry import Registry
from vlmlens.stores.opening import open_named
from vlmlens_plugins.sae import (
    Batch,
    Feed,
    Recipe,
    Shuffled,
    Statistics,
    StoredRows,
    TensorFeed,
    train,
)

_COLUMN, _EACH, _BLOCK = "x/image", 64, 64
_SMALL_WIDTH, _SMALL_FEATURES = 128, 256


def main() -> None:
    """Print each number with its target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("feeding", "scale"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--features", type=int, default=8192)
    parser.add_argument("--rows", type=int, nargs=2, default=(200_000, 1_000_000))
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.alone:
        print(json.dumps(_memory(chosen.alone, chosen.rows[0])))
        return
    targets: list[Target] = []
    if chosen.only != "scale":
        targets += feeding(chosen.rounds, chosen.width, chosen.features)
    if chosen.only != "feeding":
        targets += scale(*chosen.rows)
    print(verdicts(targets))


def feeding(rounds: int = 7, width: int = 1024, features: int = 8192) -> list[Target]:
    """Time of steps from LMDB over time of steps from memory: the median over rounds.

    Args:
        rounds: Of two steps from each, after one that is not counted.
        width: Of a row.
        features: Of the SAE; k is 32, a batch has 4096 rows.
    """
    batch = 4096
    with tempfile.TemporaryDirectory() as place:
        rows = _written(Path(place), 12 * batch, width)
        with open_named(Registry.default(), "lmdb", place, mode="r") as store:
            stored = StoredRows(store, _COLUMN, store.ids(_COLUMN))
            feed = _InTurn(
                TensorFeed(rows, batch=batch), Shuffled(stored, batch=batch, buffer=4 * batch)
            )
            steps = 4 * (rounds + 1) + 1
            train([Recipe(features, "topk", 32)], feed, rows=steps * batch, device="cpu")
    memory, lmdb = feed.times(rounds)
    print(table({"memory": memory, "lmdb": lmdb}, "memory", per=2, unit="step"))
    wall, cpu = (statistics.median(ratios(lmdb, memory, kind)) for kind in ("wall", "cpu"))
    return [Target("feeding from LMDB over memory", wall, 1.05, cpu=cpu)]


class _InTurn:
    """Batches of two feeds in turn; how long each takes until the next batch is asked for."""

    def __init__(self, *feeds: Feed) -> None:
        self._feeds = feeds
        self._begun: list[tuple[float, float]] = []
        self.widths, self.batch = feeds[0].widths, feeds[0].batch

    def statistics(self) -> tuple[Statistics, ...]:
        return self._feeds[0].statistics()

    def __iter__(self) -> Iterator[Batch]:
        batches = [iter(feed) for feed in self._feeds]
        for one in itertools.cycle(batches):
            self._begun.append((time.perf_counter(), time.process_time()))
            yield next(one)

    def times(self, rounds: int) -> list[Times]:
        """Of each feed, two steps together; the first two are left out."""
        found = [Times(), Times()]
        taken = np.diff(np.array(self._begun), axis=0)[4 : 4 + 4 * rounds]
        for of_round in taken.reshape(rounds, 2, 2, 2).sum(1):
            for times, (wall, cpu) in zip(found, of_round, strict=True):
                times.wall.append(float(wall))
                times.cpu.append(float(cpu))
        return found

    def state(self) -> Mapping[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        del state


def scale(few: int = 200_000, many: int = 1_000_000) -> list[Target]:
    """Own memory of training on many rows over that on few, each in a process of its own."""
    grown = []
    for rows in (few, many):
        with tempfile.TemporaryDirectory() as place:
            _written(Path(place), rows, _SMALL_WIDTH, keep=False)
            command = [sys.executable, "-m", __spec__.name if __spec__ else __name__]
            arguments = ["--alone", place, "--rows", str(rows), str(rows)]
            done = subprocess.run(
                [*command, *arguments], capture_output=True, text=True, check=True
            )
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"{rows} rows: {json.dumps(found)}", flush=True)
        grown.append(found)
    return [
        Target(f"memory for {many} rows over {few}", grown[1]["own"] / grown[0]["own"], 1.05),
    ]


def _memory(place: Path, rows: int) -> dict[str, float]:
    """Train on all rows once, and see how far the process's own memory goes."""
    torch.set_num_threads(1)
    with open_named(Registry.default(), "lmdb", str(place), mode="r") as store:
        stored = StoredRows(store, _COLUMN, store.ids(_COLUMN))
        feed = Shuffled(stored, batch=4096, buffer=2**16)
        before, most, ended = _own_memory(), [0.0], threading.Event()

        def watch() -> None:
            while not ended.wait(0.02):
                most[0] = max(most[0], _own_memory())

        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.process_time()
        (found,) = train([Recipe(_SMALL_FEATURES, "topk", 8)], feed, rows=rows, device="cpu")
        ended.set()
        watcher.join()
    seconds = time.process_time() - start
    return {
        "own": most[0] - before, "before": before, "rows": found.rows,
        "rows per cpu second": found.rows / seconds,
    }  # fmt: skip


def _own_memory() -> float:
    """MiB that are the process's own, and not pages of files."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = [line for line in text.splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1024


def _written(place: Path, rows: int, width: int, *, keep: bool = True) -> torch.Tensor:
    """Write random rows, 64 to a sample. Returns them, or nothing."""
    random = np.random.default_rng(0)
    kept: list[np.ndarray] = []
    with open_named(Registry.default(), "lmdb", str(place), mode="a") as store:
        for start in range(0, rows // _EACH, _BLOCK):
            samples = min(_BLOCK, rows // _EACH - start)
            block = random.standard_normal((samples * _EACH, width), np.float32)
            _write(store, start, samples, block)
            if keep:
                kept.append(block)
    return torch.from_numpy(np.concatenate(kept)) if keep else torch.empty(0, width)


def _write(store: ColumnStore, start: int, samples: int, block: np.ndarray) -> None:
    ids = tuple(f"s{number}" for number in range(start, start + samples))
    values = Values(block, "float32", (_EACH,) * samples)
    store.write(ColumnBlock(ids, {_COLUMN: values}))


if __name__ == "__main__":
    main()
