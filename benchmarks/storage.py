"""Storage: each backend against plain files, side by side in one run.

Writes, reads as a matrix and reads row by row the same float16 columns with every backend, and
prints medians and ratios: writing against a plain file with fsync, reading a column against a copy
of an `np.memmap`, size against the payload. Warm: everything is in the page cache. A write has 256
rows, as runs write them: they gather what small batches give.

    python -m benchmarks.storage                      # about 200 MB, under two minutes
    python -m benchmarks.storage --rows 10000 --columns 8 --rounds 5 --only lmdb
    python -m benchmarks.storage --check              # exit 1 where LMDB misses a target
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from vlmlens.abc import ColumnBlock, ColumnStore, Values
from vlmlens.registry import Registry
from vlmlens.stores.opening import open_named

TARGETS = {"write": 0.5, "read": 0.9, "size": 1.03, "row": 20.0}
"""Of LMDB: at least, at least, at most, at most microseconds."""

SLOW = {"sqlite": 8}
"""Backends that get so many times fewer rows."""


@dataclass
class Times:
    """Seconds of each round, the stored bytes and the payload."""

    payload: int
    write: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    row: list[float] = field(default_factory=list)
    stored: int = 0


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def make(rows: int, columns: int, width: int) -> list[np.ndarray]:
    """Columns of activation-like numbers."""
    random = np.random.default_rng(0)
    return [
        random.standard_normal((rows, width), dtype=np.float32).astype(np.float16)
        for _ in range(columns)
    ]


def size_of(path: Path) -> int:
    """Bytes that files take, without locks."""
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    return sum(f.stat().st_size for f in files if not f.name.startswith(("lock.", "writer.")))


def plain(folder: Path, data: list[np.ndarray], times: Times, rows: list[int]) -> None:
    """One round of plain files: written with one fsync each, read by memmap."""
    files = [folder / f"{i}.raw" for i in range(len(data))]

    def write() -> None:
        for path, array in zip(files, data, strict=True):
            with path.open("wb") as file:
                file.write(array.data)
                file.flush()
                os.fsync(file.fileno())

    times.write.append(timed(write))
    maps = [np.memmap(f, data[0].dtype, "r", shape=data[0].shape) for f in files]
    times.first.append(median(timed(lambda m=m: np.array(m)) for m in maps))
    times.read.append(median(timed(lambda m=m: np.array(m)) for m in maps))
    times.row.append(median(timed(lambda r=r: np.array(maps[0][r])) for r in rows))
    times.stored = size_of(folder)


def backend(
    name: str, folder: Path, data: list[np.ndarray], batch: int, times: Times, rows: list[int]
) -> None:
    """One round of a backend: written batch by batch, each durable; read in a fresh store."""
    registry, names = Registry.default(), [f"llm.block.{i}/last" for i in range(len(data))]
    place = str(folder / "store")

    def write(store: ColumnStore) -> None:
        for first in range(0, len(data[0]), batch):
            ids = tuple(f"sample-{row}" for row in range(first, min(first + batch, len(data[0]))))
            columns = {
                column: Values(array[first : first + batch], "float16")
                for column, array in zip(names, data, strict=True)
            }
            store.write(ColumnBlock(ids, columns))

    with open_named(registry, name, place, mode="a") as store:
        times.write.append(timed(lambda: write(store)))
    times.stored = size_of(Path(place))
    with open_named(registry, name, place, mode="r") as store:
        store.columns()
        times.first.append(median(timed(lambda c=c: store.read(c)) for c in names))
        times.read.append(median(timed(lambda c=c: store.read(c)) for c in names))
        some = rows if name not in SLOW else rows[:50]
        times.row.append(
            median(timed(lambda r=r: store.read(names[0], [f"sample-{r}"])) for r in some)
        )
        found = store.read(names[-1]).array
        assert found.tobytes() == data[-1].tobytes(), f"{name} gives other numbers"


def run(args: argparse.Namespace) -> dict[str, Times]:
    """All rounds: plain files and every backend in turn."""
    data = make(args.rows, args.columns, args.width)
    payload = sum(array.nbytes for array in data)
    names = ["plain", *(args.only or ("lmdb", "zarr", "sqlite"))]
    parts = {name: [a[: len(a) // SLOW.get(name, 1)] for a in data] for name in names}
    results = {name: Times(sum(a.nbytes for a in part)) for name, part in parts.items()}
    print(f"{args.columns} columns of {args.rows} x {args.width} float16: {payload / 1e6:.0f} MB, "
          f"{args.batch} rows per write, {args.rounds} rounds", file=sys.stderr)  # fmt: skip
    for number in range(args.rounds):
        for name in names:
            part = parts[name]
            random = np.random.default_rng(number)
            rows = random.integers(0, len(part[0]), args.lookups).tolist()
            folder = Path(tempfile.mkdtemp(prefix="storage-", dir=args.dir))
            try:
                if name == "plain":
                    plain(folder, part, results[name], rows)
                else:
                    backend(name, folder, part, args.batch, results[name], rows)
            finally:
                shutil.rmtree(folder)
    return results


def ratio(results: dict[str, Times], name: str, what: str) -> float:
    """Median over rounds of a backend's speed over the plain files', per byte."""
    base, own = results["plain"], results[name]
    pairs = zip(getattr(base, what), getattr(own, what), strict=True)
    return median(a / base.payload / (b / own.payload) for a, b in pairs)


def table(results: dict[str, Times], columns: int) -> str:
    """The numbers for people."""
    lines = [
        f"{'':10}{'write MB/s':>12}{'/plain':>8}{'first MB/s':>12}{'/memmap':>9}"
        f"{'read MB/s':>11}{'/memmap':>9}{'row us':>9}{'size':>8}"
    ]
    for name, times in results.items():
        column = times.payload / columns / 1e6
        lines.append(
            f"{name:10}{times.payload / 1e6 / median(times.write):>12.0f}"
            f"{ratio(results, name, 'write'):>8.2f}"
            f"{column / median(times.first):>12.0f}{ratio(results, name, 'first'):>9.2f}"
            f"{column / median(times.read):>11.0f}{ratio(results, name, 'read'):>9.2f}"
            f"{1e6 * median(times.row):>9.1f}{times.stored / times.payload:>8.3f}"
        )
    return "\n".join(lines)


def missed(results: dict[str, Times]) -> list[str]:
    """The targets that LMDB misses."""
    if "lmdb" not in results:
        return []
    times = results["lmdb"]
    found = {
        "write": ratio(results, "lmdb", "write"),
        "read": ratio(results, "lmdb", "read"),
        "size": times.stored / times.payload,
        "row": 1e6 * median(times.row),
    }
    wrong = []
    for name, value in found.items():
        good = value >= TARGETS[name] if name in ("write", "read") else value <= TARGETS[name]
        verdict = "met" if good else "MISSED"
        print(f"lmdb {name}: {value:.3f}, target {TARGETS[name]}: {verdict}")
        wrong += [] if good else [name]
    return wrong


def main() -> int:
    """Run, print, and say whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=256, help="rows per write")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lookups", type=int, default=1000, help="random rows per round")
    parser.add_argument("--only", action="append", help="a backend; repeatable")
    parser.add_argument("--dir", help="where to write; default: the system's temporary folder")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    args = parser.parse_args()
    results = run(args)
    print(table(results, args.columns))
    wrong = missed(results)
    return 1 if wrong and args.check else 0


if __name__ == "__main__":
    sys.exit(main())
