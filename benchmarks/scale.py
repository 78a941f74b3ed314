"""What a run of many samples costs: time per sample, memory, `show`, and resuming.

The model is one tiny block, the columns are pooled, and every sample has an image file of its own,
so that what is measured is everything but the model. Each stage is a process of its own.

    python -m benchmarks.scale                           # 5,000, 20,000, 50,000 and 200,000 samples
    python -m benchmarks.scale --sizes 5000 20000 --check
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

SIZES = (5_000, 20_000, 50_000, 200_000)
SITES = (
    "vision.block.0/image.mean",
    "projector/image.mean",
    "llm.block.0/last",
    "llm.block.0/mean",
)
_COLORS = ("red", "green", "blue", "yellow")
_FOLDER = 1_000


def main() -> int:
    """Print a row per size, then every number that has a target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--work", type=Path, help="keep data and runs there; default: keep none")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--stage", choices=sorted(_STAGES), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.stage:
        print(json.dumps(_STAGES[chosen.stage](chosen.work, chosen.sizes[0])))
        return 0
    with tempfile.TemporaryDirectory() as name:
        work = chosen.work or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        rows = [_row(work, size) for size in chosen.sizes]
    return _report(rows, check=chosen.check)


def _row(work: Path, size: int) -> dict[str, float]:
    _stage("data", work, size)
    time.sleep(1)  # files that were just made may still change, so that they would be read again
    first = _stage("extract", work, size)
    shown = _stage("show", work, size)
    again = _stage("resume", work, size)
    row = {
        "samples": size,
        "plan": first["plan"],
        "extract": first["extract"],
        "per sample": 1000 * (first["plan"] + first["extract"]) / size,
        "cpu per sample": 1000 * first["cpu"] / size,
        "memory": first["memory"],
        "opening": shown["opening"],
        "show": shown["show"],
        "show cpu": shown["cpu"],
        "resume": again["plan"] + again["extract"],
        "resume cpu": again["cpu"],
        "memory resumed": again["memory"],
        "imports": first["imports"],
    }
    print(json.dumps(row), flush=True)
    return row


def _report(rows: list[dict[str, float]], *, check: bool) -> int:
    from benchmarks._compare import Target, verdicts

    head = ("samples", "plan s", "extract s", "ms/sample", "MB")
    head += ("open s", "show s", "resume s", "MB")
    print("| " + " | ".join(head) + " |\n|" + "---:|" * len(head))
    for row in rows:
        print(
            f"| {row['samples']:,.0f} | {row['plan']:.1f} | {row['extract']:.1f} "
            f"| {row['per sample']:.2f} | {row['memory']:.0f} | {row['opening']:.2f} "
            f"| {row['show']:.2f} | {row['resume']:.1f} | {row['memory resumed']:.0f} |"
        )
    first, last = rows[0], rows[-1]
    wall, cpu = (last[kind] / first[kind] for kind in ("per sample", "cpu per sample"))
    targets = [
        Target("time per sample, of that of the smallest", wall, 1.1, cpu=cpu),
        Target("memory", last["memory"], 700, unit=" MB"),
        Target("opening", last["opening"], 2, unit=" s"),
        Target("show", last["show"], 2, cpu=last["show cpu"], unit=" s"),
        Target("resume", last["resume"], 10, cpu=last["resume cpu"], unit=" s"),
    ]
    print(f"\n{last['imports']:.0f} MB are torch, transformers and the model.")
    print(verdicts(targets))
    return int(check and not all(target.met for target in targets))


def _stage(name: str, work: Path, size: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.scale", "--stage", name]
    command += ["--work", str(work), "--sizes", str(size)]
    environment = {**os.environ, "VLMLENS_CACHE": str(work / "cache")}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _data(work: Path, size: int) -> dict[str, float]:
    """Images of 48 x 48 pixels in folders of 1,000, a table, and the model."""
    from PIL import Image

    from benchmarks._models import llava

    if not (work / "model").exists():
        llava(work / "model", side=28, layers=1, width=32, tower=1)
    random = Random(0)
    lines = []
    for number in range(size):
        path = work / "images" / f"{number // _FOLDER:04}" / f"{number:07}.png"
        pixels = random.randbytes(3 * 4 * 4)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.frombytes("RGB", (4, 4), pixels).resize((48, 48), 0).save(path)
        color = random.choice(_COLORS)
        row = {"id": f"row-{number:07}", "image": str(path.relative_to(work)), "label": color}
        lines.append(json.dumps({**row, "prompt": "What is the color?", "scene": number % 97}))
    (work / f"{size}.jsonl").write_text("\n".join(lines) + "\n")
    return {}


def _extract(work: Path, size: int, mode: Any = "fresh") -> dict[str, float]:
    from vlmlens.registry import Registry
    from vlmlens.runner.execution import compose, execute
    from vlmlens.spec.model import make_spec

    spec = make_spec(
        {
            "adapter": "llava",
            "model": str(work / "model"),
            "data": str(work / f"{size}.jsonl"),
            "sites": list(SITES),
            "device": "cpu",
            "dtype": "float32",
            "out": str(work / f"run-{size}"),
        }
    )
    _loaded(work)
    imports = _peak()
    start, used = time.perf_counter(), time.process_time()
    plan = compose(spec, Registry.default(), analyse=False)
    composed = time.perf_counter()
    planned = _peak()
    execute(plan, mode=mode, extract_only=True)
    return {
        "imports": imports,
        "plan": composed - start,
        "plan memory": planned,
        "extract": time.perf_counter() - composed,
        "cpu": time.process_time() - used,
        "memory": _peak(),
    }


def _loaded(work: Path) -> None:
    """Load the model once, so that what follows is not about imports."""
    from vlmlens.abc.adapter import LoadRequest
    from vlmlens_adapter_llava.adapter import LlavaAdapter

    LlavaAdapter.load(LoadRequest(model=str(work / "model"), device="cpu", dtype="float32"))


def _show(work: Path, size: int) -> dict[str, float]:
    from vlmlens import Run

    start = time.perf_counter()
    run = Run(work / f"run-{size}")
    with run.store() as store:
        store.columns()
    opened = time.perf_counter() - start
    command = [sys.executable, "-m", "vlmlens", "show", str(work / f"run-{size}")]
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    return {"opening": opened, "show": time.perf_counter() - start, "cpu": cpu}


def _peak() -> float:
    """The most memory that this process has used, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


_STAGES: dict[str, Callable[[Path, int], dict[str, float]]] = {
    "data": _data,
    "extract": _extract,
    "resume": lambda work, size: _extract(work, size, "resume"),
    "show": _show,
}


if __name__ == "__main__":
    sys.exit(main())
