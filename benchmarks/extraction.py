"""What extraction costs beside the bare batched forward pass of the same model, same samples.

The bare pass is given batches that are encoded already, sorted by length, without the head, and
keeps nothing. vlmlens starts at files and prompts, and ends when the rows are on the disk. All
variants of a table run in turn, round after round, in one process; the ratios are those of each
round, and their median counts.

    python -m benchmarks.extraction                  # everything and the targets, about 12 minutes
    python -m benchmarks.extraction --only shared --rounds 3
    python -m benchmarks.extraction --only plain --vlm-lens ../vlm-lens    # beside a checkout of it
    python -m benchmarks.extraction --check          # exit 1 where a target is missed
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks._compare import Target, Times, in_turn, ratios, table, verdicts
from benchmarks._models import bare_batches, llava, pairs, paligemma, photographs
from benchmarks._vlm_lens import vlm_lens
from vlmlens.extraction.extraction import Extraction
from vlmlens.samples import Sample
from vlmlens_plugins.extract.activations import ActivationExtractor
from vlmlens_plugins.storage.lmdb import LmdbStore

POOLED = ("vision.block.3/image.mean", "llm.block.3/mean", "llm.block.7/last")
HALF = ("vision.block.3/image.mean", "llm.block.3/mean", "llm.block.3/last")
PREFIX = ("vision.block.3/image.mean", "llm.block.3/mean", "llm.block.3/last")
WHOLE = ("llm.block.3/all", "llm.block.7/all")
SIZES = (1_000, 5_000, 20_000)
PAIRS = {6: 4.5, 12: 8.0}
"""Questions per image, and how many times faster than the bare forward of all pairs."""


def main() -> int:
    """Print a table per question, then every number that has a target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--only", choices=("plain", "shared", "vision", "growth"))
    parser.add_argument("--threads", type=int, help="of torch; default: its own")
    parser.add_argument("--vlm-lens", type=Path, help="a checkout of VLM-Lens, to run it too")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--grow", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if chosen.grow:
            _grow(folder, chosen.grow)
            return 0
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, "
              f"{chosen.rounds} rounds", end="\n\n")  # fmt: skip
        parts: dict[str, Callable[[], list[Target]]] = {
            "plain": lambda: _plain(folder, chosen.samples, chosen.rounds, chosen.vlm_lens),
            "shared": lambda: _shared(folder, max(2, chosen.samples // 24), chosen.rounds),
            "vision": lambda: _vision(folder, max(2, chosen.samples // 24), chosen.rounds),
            "growth": lambda: _growth(chosen.threads),
        }
        run = [part for name, part in parts.items() if chosen.only in (None, name)]
        targets = [target for part in run for target in part()]
    if targets:
        print(verdicts(targets))
    return int(chosen.check and not all(target.met for target in targets))


def _plain(folder: Path, count: int, rounds: int, checkout: Path | None) -> list[Target]:
    vlm = llava(folder / "plain")
    samples = pairs(photographs(folder / "photographs", count), 1, letters=(10, 60))
    batches = bare_batches(vlm, samples, 8)
    base = "bare forward, batches of 8"
    variants: dict[str, Callable[[], object]] = {
        base: lambda: _forward(vlm, batches),
        "plain hooks, one by one": lambda: _plain_hooks(vlm, samples),
        "vlmlens, pooled": lambda: _extract(vlm, samples, POOLED, folder),
        "vlmlens, half depth": lambda: _extract(vlm, samples, HALF, folder),
        "vlmlens, whole sequences": lambda: _extract(vlm, samples, WHOLE, folder),
    }
    if find_spec("nnsight"):
        variants["nnsight, one by one"] = _nnsight(vlm, samples)
    if checkout is not None:
        model = str(folder / "plain")
        run = vlm_lens(checkout, folder, model, samples, _paths(vlm, POOLED))
        variants["VLM-Lens, pooled"] = run
    seconds = in_turn(variants, rounds)
    print(f"{count} samples, {_tokens(batches)} tokens each")
    print(table(seconds, base, per=count, unit="sample"), end="\n\n")
    return [
        _at_most("pooled columns, of the bare forward", seconds, "vlmlens, pooled", base, 1.05),
        _at_most("columns at half depth", seconds, "vlmlens, half depth", base, 0.62),
        _at_most("whole sequences", seconds, "vlmlens, whole sequences", base, 1.10),
    ]


def _shared(folder: Path, images: int, rounds: int) -> list[Target]:
    vlm = llava(folder / "shared", side=336)
    paths = photographs(folder / "large", images)
    base, own = "bare forward of all pairs", "vlmlens"
    targets = []
    for questions, times in PAIRS.items():
        samples = pairs(paths, questions, letters=(16, 24))
        batches = bare_batches(vlm, samples, 2)
        variants: dict[str, Callable[[], object]] = {
            base: lambda batches=batches: _forward(vlm, batches),
            own: lambda samples=samples: _extract(vlm, samples, POOLED, folder),
        }
        seconds = in_turn(variants, rounds)
        print(f"{images} images of 576 tokens, {questions} questions each")
        print(table(seconds, base, per=len(samples), unit="pair"), end="\n\n")
        wall, cpu = (median(ratios(seconds[base], seconds[own], kind)) for kind in ("wall", "cpu"))
        name = f"{questions} questions per image, times faster"
        targets.append(Target(name, wall, times, least=True, cpu=cpu))
    return targets


def _vision(folder: Path, images: int, rounds: int) -> list[Target]:
    """A prefix language model, which cannot share beginnings: its tower runs once per image."""
    vlm = paligemma(folder / "prefix")
    samples = pairs(photographs(folder / "large", images), 6, letters=(16, 24))
    base, own = "vlmlens --no-share-prefix", "vlmlens"
    variants: dict[str, Callable[[], object]] = {
        base: lambda: _extract(vlm, samples, PREFIX, folder, share=False),
        own: lambda: _extract(vlm, samples, PREFIX, folder),
    }
    seconds = in_turn(variants, rounds)
    print(f"{images} images of 256 tokens, 6 questions each, where the image sees the question")
    print(table(seconds, base, per=len(samples), unit="pair"), end="\n\n")
    return []


def _at_most(what: str, seconds: dict[str, Times], name: str, base: str, limit: float) -> Target:
    wall, cpu = (median(ratios(seconds[name], seconds[base], kind)) for kind in ("wall", "cpu"))
    return Target(what, wall, limit, cpu=cpu)


def _growth(threads: int | None) -> list[Target]:
    """Each size in a process of its own, whose peak memory is its own."""
    print("samples  seconds  ms/sample  peak MiB")
    found = {}
    for count in SIZES:
        command = [sys.executable, "-m", "benchmarks.extraction", "--grow", str(count)]
        command += ["--threads", str(threads)] if threads else []
        made = subprocess.run(command, check=True, capture_output=True, text=True)
        one = found[count] = json.loads(made.stdout)
        each = 1000 * one["wall"] / count
        print(f"{count:7}  {one['wall']:7.1f}  {each:9.2f}  {one['peak']:8.0f}", flush=True)
    print()
    few, many = found[SIZES[0]], found[SIZES[-1]]
    grown = SIZES[-1] / SIZES[0]
    wall, cpu = (many[kind] / few[kind] / grown for kind in ("wall", "cpu"))
    name = f"time per sample, {SIZES[-1]:,} against {SIZES[0]:,}"
    peak = Target("peak memory, likewise", many["peak"] / few["peak"], 1.10)
    return [Target(name, wall, 1.10, cpu=cpu), peak]


def _grow(folder: Path, count: int) -> None:
    vlm = llava(folder / "small", side=28, layers=2, width=64)
    samples = pairs(photographs(folder / "few", 100, size=(32, 24)), count // 100, letters=(5, 9))
    sites = ("llm.block.1/last", "llm.block.1/all")
    _extract(vlm, samples[:200], sites, folder, share=False)
    wall, cpu = time.perf_counter(), time.process_time()
    _extract(vlm, samples, sites, folder, share=False)
    spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**spent, "peak": peak}))


def _forward(vlm: Any, batches: Sequence[Any]) -> None:
    for batch in batches:
        vlm.forward(batch)


def _plain_hooks(vlm: Any, samples: Sequence[Sample]) -> None:
    """What one writes by hand: a hook per site, one sample at a time, everything kept."""
    kept: list[torch.Tensor] = []

    def hook(module: Any, args: Any, output: Any) -> None:
        del module, args
        found = output[0] if isinstance(output, tuple) else output
        kept.append(found.mean(1))

    handles = [
        vlm.module.get_submodule(path).register_forward_hook(hook) for path in _paths(vlm, POOLED)
    ]
    with torch.inference_mode():
        for sample in samples:
            vlm.module(**vlm.encode([sample]).inputs)
    for handle in handles:
        handle.remove()


def _nnsight(vlm: Any, samples: Sequence[Sample]) -> Callable[[], object]:
    """The same through nnsight, one sample at a time."""
    from nnsight import NNsight, save

    traced, paths = NNsight(vlm.module), _paths(vlm, POOLED)

    @torch.inference_mode()
    def run() -> list[Any]:
        kept = []
        for sample in samples:
            with traced.trace(**vlm.encode([sample]).inputs):
                saved = save([traced.get(path).output.mean(1) for path in paths])
            kept += saved
        return kept

    return run


def _paths(vlm: Any, columns: Sequence[str]) -> list[str]:
    return [vlm.sites.resolve(name.partition("/")[0])[0].path for name in columns]


def _extract(
    vlm: Any, samples: Sequence[Sample], sites: Sequence[str], folder: Path, *, share: bool = True
) -> None:
    extractor = ActivationExtractor(vlm, sites, ActivationExtractor.Options())
    columns = tuple(extractor.columns())
    work = Extraction(vlm, extractor, samples, "auto", share, print)
    place = folder / "columns"
    shutil.rmtree(place, ignore_errors=True)
    with LmdbStore.open(str(place), mode="a", options=LmdbStore.Options()) as store:
        work.run(store, [columns] * len(samples), lambda done: None)


def _tokens(batches: Sequence[Any]) -> int:
    lengths = [int(batch.inputs["attention_mask"].sum()) / len(batch) for batch in batches]
    return round(sum(lengths) / len(lengths))


if __name__ == "__main__":
    sys.exit(main())
