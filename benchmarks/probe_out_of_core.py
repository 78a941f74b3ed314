"""A probe over a column that does not fit in memory: peak memory, seconds, and what it loses.

    python -m benchmarks.probe_out_of_core --samples 20000 --width 1024 --models ridge,logistic
    python -m benchmarks.probe_out_of_core --samples 500000 --width 4096 --folder /big/disk

A column with a planted label is written to a real LMDB store. Each probe then runs in a process of
its own, whose private memory (RssAnon) is polled. With --compare, it also runs in memory, and the
largest differences are printed. One line of JSON per probe.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.fft import dct

from vlmlens.abc import AnalysisContext, ColumnBlock, Values
from vlmlens.results import Result
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.probe import Probe, ProbeOptions
from vlmlens_plugins.storage.lmdb import LmdbStore

COLUMN = "llm.block.0/last"
CLASSES = 2
_BLOCK = 4096
_STRENGTH = 1.7
_EVERY = 0.02
_NUMBERS = ("accuracy", "control", "gap", "gap_low", "gap_high", "train_accuracy", "p")


def sample(number: int, seed: int = 0) -> Sample:
    """One of the planted samples, each a group of its own."""
    label = str(int(_label(number, seed)))
    attributes = {"number": float(np.sin(number))}
    return Sample(f"sample-{number}", "What is it?", label=label, attributes=attributes)


def _label(number: Any, seed: int) -> Any:
    return (np.asarray(number) * 2_654_435_761 + seed) % 1_000_003 % CLASSES


def rows(start: int, stop: int, width: int, decay: float) -> npt.NDArray[np.float32]:
    """float32 `[k, width]`: a spectrum `i^-decay`, with a label in all directions and a number.

    The label moves each direction in proportion to its deviation, so that components which leave
    out half of the directions leave out half of what tells the label.
    """
    numbers = np.arange(start, stop)
    x = np.random.default_rng(start).standard_normal((len(numbers), width), np.float32)
    fixed = np.random.default_rng(0).choice(np.float32([-1, 1]), (2 + CLASSES, width))
    x += np.float32(_STRENGTH / np.sqrt(2 * width)) * fixed[2:][_label(numbers, 0)]
    x += np.float32(0.5 / np.sqrt(width)) * np.sin(numbers)[:, None].astype(np.float32) * fixed[1]
    x *= fixed[0] * ((1 + np.arange(width)) ** (-decay / 2)).astype(np.float32)
    mixed: npt.NDArray[np.float32] = dct(x, norm="ortho", overwrite_x=True)
    return mixed + np.float32(0.1)


def write(folder: Path, samples: int, width: int, dtype: str, decay: float) -> int:
    """Write the store; bytes of its values."""
    with LmdbStore.open(str(folder), mode="a", options=LmdbStore.Options()) as store:
        for start in range(0, samples, _BLOCK):
            stop = min(samples, start + _BLOCK)
            ids = tuple(f"sample-{number}" for number in range(start, stop))
            store.write(ColumnBlock(ids, {COLUMN: _values(rows(start, stop, width, decay), dtype)}))
    return samples * width * (2 if dtype == "bfloat16" else 4)


def _values(x: npt.NDArray[np.float32], dtype: str) -> Values:
    if dtype == "float32":
        return Values(x, dtype)
    return Values((x.view(np.uint32) >> 16).astype("<u2"), dtype)


def probed(folder: Path, samples: int, options: dict[str, Any]) -> tuple[Result, list[str]]:
    """The result of a probe over the store, and its warnings."""
    said: list[str] = []
    table = SampleTable(sample(number) for number in range(samples))
    with LmdbStore.open(str(folder), mode="r", options=LmdbStore.Options()) as store:
        context = AnalysisContext(table, store, _no_model, warn=said.append)
        return Probe(ProbeOptions(**options)).run(context), said


def _no_model() -> Any:
    raise AssertionError("the probe must not load the model")


def child(given: Sequence[str]) -> None:
    """Probe, and print the numbers; in a process of its own."""
    folder, samples, options = given
    start = time.perf_counter()
    result, said = probed(Path(folder), int(samples), json.loads(options))
    columns = result.table("probe-columns").columns
    numbers = {name: columns[name][0] for name in _NUMBERS}
    seconds = round(time.perf_counter() - start, 1)
    print(json.dumps({"seconds": seconds, **numbers, "warnings": said}))


def measured(folder: Path, samples: int, options: dict[str, Any]) -> dict[str, Any]:
    """Run `child`; its numbers, with the peak of its private memory in MB."""
    words = [str(folder), str(samples), json.dumps(options)]
    command = [sys.executable, "-m", "benchmarks.probe_out_of_core", "--child", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        peak = max(_private(process), default=0)
        out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"The probe ended with {process.returncode}.")
    return {"peak_mb": round(peak / 1e6), **json.loads(out.strip().splitlines()[-1])}


def _private(process: subprocess.Popen[str]) -> Iterator[int]:
    """Yield the process's private memory in bytes until it ends."""
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            return
        found = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")]
        yield int(found[0]) * 1024 if found else 0
        time.sleep(_EVERY)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--decay", type=float, default=1.0, help="Variances fall as i^-DECAY.")
    parser.add_argument("--models", default="centroid,ridge,logistic")
    parser.add_argument("--folder", type=Path, help="Where the store is written for the time.")
    parser.add_argument("--compare", action="store_true", help="Probe in memory, too.")
    parser.add_argument("--options", default="{}", help="More options of the probe, as JSON.")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=given.folder))
    try:
        size = write(folder / "store", given.samples, given.width, given.dtype, given.decay)
        for model in given.models.split(","):
            print(json.dumps(_line(folder / "store", size, model, given)), flush=True)
    finally:
        shutil.rmtree(folder)


def _line(store: Path, size: int, model: str, given: argparse.Namespace) -> dict[str, Any]:
    options: dict[str, Any] = {"model": model, "answers": "off", **json.loads(given.options)}
    if model == "ridge":
        options["targets"] = ["number"]
    large = measured(store, given.samples, {**options, "in_memory": 0})
    line = {"model": model, "samples": given.samples, "width": given.width, "mb": size / 1e6}
    line.update(large)
    if given.compare:
        whole = measured(store, given.samples, {**options, "in_memory": 1_000_000})
        line["in_memory"] = {name: whole[name] for name in ("seconds", "peak_mb", "accuracy")}
        line["differences"] = {name: abs(whole[name] - large[name]) for name in _NUMBERS}
    return line


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    else:
        main()
