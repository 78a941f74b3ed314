"""What extraction costs beside the bare batched forward pass of the same model, same samples.

The bare pass is given batches that are encoded already, sorted by length, without the head, and
keeps nothing. vlmlens starts at files and prompts, and ends when the rows are on the disk.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks._compare import in_turn, table
from benchmarks._models import bare_batches, llava, pairs, photographs
from vlmlens.extraction import Extraction
from vlmlens.samples import Sample
from vlmlens_plugins.extract.activations import ActivationExtractor
from vlmlens_plugins.storage.lmdb import LmdbStore

POOLED = ("vision.block.3/image.mean", "llm.block.3/mean", "llm.block.7/last")
HALF = ("vision.block.3/image.mean", "llm.block.3/mean", "llm.block.3/last")
WHOLE = ("llm.block.3/all", "llm.block.7/all")


def main() -> None:
    """Print one table per question."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--only", choices=("plain", "shared", "growth"))
    parser.add_argument("--grow", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if chosen.grow:
            _grow(Path(folder), chosen.grow)
            return
        if chosen.only in (None, "plain"):
            _plain(Path(folder), chosen.samples, chosen.rounds)
        for questions in (6, 12) if chosen.only in (None, "shared") else ():
            _shared(Path(folder), questions, max(2, chosen.samples // 16), chosen.rounds)
    if chosen.only in (None, "growth"):
        _growth()


def _plain(folder: Path, count: int, rounds: int) -> None:
    vlm = llava(folder / "plain")
    samples = pairs(photographs(folder / "photographs", count), 1, letters=(10, 60))
    batches = bare_batches(vlm, samples, 8)
    variants: dict[str, Callable[[], object]] = {
        "bare forward, batches of 8": lambda: _forward(vlm, batches),
        "plain hooks, one by one": lambda: _plain_hooks(vlm, samples),
        "vlmlens, pooled": lambda: _extract(vlm, samples, POOLED, folder),
        "vlmlens, half depth": lambda: _extract(vlm, samples, HALF, folder),
        "vlmlens, whole sequences": lambda: _extract(vlm, samples, WHOLE, folder),
    }
    seconds = in_turn(variants, rounds)
    print(f"{count} samples, {_tokens(batches)} tokens each")
    print(table(seconds, "bare forward, batches of 8", per=count, unit="sample"), end="\n\n")


def _shared(folder: Path, questions: int, images: int, rounds: int) -> None:
    vlm = llava(folder / f"shared-{questions}", side=336)
    samples = pairs(photographs(folder / "large", images), questions, letters=(16, 24))
    batches = bare_batches(vlm, samples, 2)
    variants: dict[str, Callable[[], object]] = {
        "bare forward of all pairs": lambda: _forward(vlm, batches),
        "vlmlens": lambda: _extract(vlm, samples, POOLED, folder),
        "vlmlens --no-share-prefix": lambda: _extract(vlm, samples, POOLED, folder, share=False),
    }
    seconds = in_turn(variants, rounds)
    print(f"{images} images of 576 tokens, {questions} questions each")
    print(table(seconds, "bare forward of all pairs", per=len(samples), unit="pair"), end="\n\n")


def _growth() -> None:
    print("samples  seconds  peak MiB")
    for count in (1_000, 20_000):
        command = [sys.executable, "-m", "benchmarks.extraction", "--grow", str(count)]
        subprocess.run(command, check=True)


def _grow(folder: Path, count: int) -> None:
    import time

    vlm = llava(folder / "small", side=28, layers=2)
    samples = pairs(photographs(folder / "few", 100, size=(32, 24)), count // 100, letters=(5, 9))
    sites = ("llm.block.1/last", "llm.block.1/all")
    start = time.perf_counter()
    _extract(vlm, samples, sites, folder, share=False)
    spent = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{count:7}  {spent:7.1f}  {peak:8.0f}")


def _forward(vlm: Any, batches: Sequence[Any]) -> None:
    for batch in batches:
        vlm.forward(batch)


def _plain_hooks(vlm: Any, samples: Sequence[Sample]) -> None:
    """What one writes by hand: a hook per site, one sample at a time, everything kept."""
    kept: list[torch.Tensor] = []
    paths = [vlm.sites.resolve(name.partition("/")[0])[0].path for name in POOLED]

    def hook(module: Any, args: Any, output: Any) -> None:
        del module, args
        found = output[0] if isinstance(output, tuple) else output
        kept.append(found.mean(1))

    handles = [vlm.module.get_submodule(path).register_forward_hook(hook) for path in paths]
    with torch.inference_mode():
        for sample in samples:
            vlm.module(**vlm.encode([sample]).inputs)
    for handle in handles:
        handle.remove()


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
    main()
