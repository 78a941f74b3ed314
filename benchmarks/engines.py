"""What an engine costs beside one process: start-up, and time per sample after it.

Each run is a process of its own. Two sizes are timed: their difference is the time per sample, and
what is left of the smaller one is start-up. There is one worker, so that engines are compared, and
not cores.

    python -m benchmarks.engines
    python -m benchmarks.engines --samples 400 --rounds 1
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

_ENGINES = {
    "one process": (),
    "processes": ("--engine", "processes"),
    "ray": ("--engine", "ray"),
}
_SITES = ("llm.block.*/last", "vision.block.*/image.mean")


def main() -> int:
    """Print a row per engine, then the ratios that have a target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=600, help="of the smaller run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    chosen = parser.parse_args()
    sizes = (chosen.samples, 3 * chosen.samples)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        _data(work, sizes[1])
        spent: dict[tuple[str, int], list[float]] = {}
        for number in range(chosen.rounds):
            for engine in _ENGINES:
                for size in sizes:
                    seconds = _timed(work, engine, size, number)
                    spent.setdefault((engine, size), []).append(seconds)
    return _report(spent, sizes, check=chosen.check)


def _report(
    spent: dict[tuple[str, int], list[float]], sizes: tuple[int, int], *, check: bool
) -> int:
    from benchmarks._compare import Target, verdicts

    small, large = sizes
    each = {}
    print("| engine | start-up s | ms/sample |\n|---|---:|---:|")
    for engine in _ENGINES:
        first, second = (median(spent[engine, size]) for size in sizes)
        each[engine] = (second - first) / (large - small)
        start = first - small * each[engine]
        print(f"| {engine} | {start:.1f} | {1000 * each[engine]:.2f} |")
    targets = [
        Target("ray, of processes", each["ray"] / each["processes"], 1.1),
        Target("processes, of one process", each["processes"] / each["one process"], 1.1),
    ]
    print(verdicts(targets))
    return int(check and not all(target.met for target in targets))


def _data(work: Path, size: int) -> None:
    from benchmarks._models import llava, photographs

    llava(work / "model", layers=4, tower=3)
    paths = photographs(work / "photos", 64)
    rows = [
        {"id": f"s{number}", "image": paths[number % len(paths)], "prompt": "What is it?"}
        for number in range(size)
    ]
    lines = [json.dumps(row) for row in rows]
    (work / "all.jsonl").write_text("\n".join(lines) + "\n")


def _timed(work: Path, engine: str, size: int, number: int) -> float:
    out = work / f"{engine.replace(' ', '-')}-{size}-{number}"
    command = [sys.executable, "-m", "vlmlens", "extract", "--adapter", "llava", "--quiet"]
    command += ["--model", str(work / "model"), "--data", str(work / "all.jsonl")]
    command += ["--limit", str(size), "--batch-size", "8", "--no-share-prefix", "--device", "cpu"]
    command += [word for site in _SITES for word in ("--sites", site)]
    command += [*_ENGINES[engine], "--out", str(out)]
    start = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
