"""What feeding an SAE from a store costs beside rows in memory, and how far memory grows.

`feeding`: the same SAE is trained from a tensor and from an LMDB store, in turn, step by step; the
buffer is small, so that blocks are read all the time. `scale`: a process trains on few rows and
one on many, all of them once, from a store; what counts is the memory that is the process's own
(the store's pages are the system's, which takes them back when it needs them).

    python -m benchmarks._sae_feeding                    # both, as benchmarks.sae runs them
    python -m benchmarks._sae_feeding --only scale --rows 200000 1000000
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks._compare import Target, Times, ratios, verdicts
from vlmlens.abc.storage import ColumnBlock, ColumnStore, Values
from vlmlens.registry import Registry
from vlmlens.stores.opening import open_named
from vlmlens_plugins.sae import Feed, Recipe, Shuffled, StoredRows, TensorFeed, train

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
    """Time per step from LMDB over time per step from memory: the median over rounds.

    Args:
        rounds: How often each trains.
        width: Of a row.
        features: Of the SAE; k is 32, a batch has 4096 rows.
    """
    batch, steps = 4096, 6
    with tempfile.TemporaryDirectory() as place:
        rows = _written(Path(place), 12 * batch, width)
        times = {"memory": Times(), "lmdb": Times()}
        with open_named(Registry.default(), "lmdb", place, mode="r") as store:
            stored = StoredRows(store, _COLUMN, store.ids(_COLUMN))
            for _ in range(rounds):
                feeds: dict[str, Feed] = {
                    "memory": TensorFeed(rows, batch=batch),
                    "lmdb": Shuffled(stored, batch=batch, buffer=4 * batch),
                }
                for name, feed in feeds.items():
                    _timed(feed, features, steps, times[name])
    wall = statistics.median(ratios(times["lmdb"], times["memory"], "wall"))
    cpu = statistics.median(ratios(times["lmdb"], times["memory"], "cpu"))
    return [Target("feeding from LMDB over memory", wall, 1.05, cpu=cpu)]


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


def _timed(feed: Feed, features: int, steps: int, times: Times) -> None:
    """The steps after the first one, which waits for the first block."""
    begun: list[tuple[float, float]] = []

    def progress(done: int, total: int) -> None:
        del done, total
        begun.append((time.perf_counter(), time.process_time()))

    train(
        [Recipe(features, "topk", 32)], feed, rows=steps * feed.batch, device="cpu",
        progress=progress,
    )  # fmt: skip
    (wall, cpu), (last_wall, last_cpu) = begun[0], begun[-1]
    times.wall.append(last_wall - wall)
    times.cpu.append(last_cpu - cpu)


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
