"""Runs whose columns are larger than memory, made without a large model.

A run without a model has columns with planted classes: the mean of a class, and noise. A run with a
model is extracted from a few samples by a small LLaVA, and grows by repeating their rows under new
ids, so that every stored row is what the model gives for its sample.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.abc.storage import DTYPES, ColumnBlock, Values
from vlmlens.registry import Registry
from vlmlens.runs.run import Run
from vlmlens.samples import Sample
from vlmlens.spec.model import make_spec
from vlmlens.stores.opening import open_named

CLASSES = ("cube", "sphere", "cone", "ring")
_BLOCK = 8 * 2**20
_DISTINCT = 64
_LMDB: dict[str, Any] = {"sync": False}


@dataclass(frozen=True)
class Shape:
    """What a run holds.

    Args:
        bytes: Of each column.
        columns: Number of columns.
        width: Features of a row.
        rows: Rows of each sample; 1: the columns are not ragged.
        dtype: Of the values.
    """

    bytes: int
    columns: int = 1
    width: int = 1024
    rows: int = 1
    dtype: str = "float32"

    @property
    def samples(self) -> int:
        """Number of samples."""
        return self.bytes // (self.rows * self.width * DTYPES[self.dtype].itemsize)

    def __str__(self) -> str:
        each = f"{self.rows} x {self.width}" if self.rows > 1 else str(self.width)
        gb = self.bytes / 1e9
        return f"{self.columns} x {gb:g} GB: {self.samples:,} samples x {each} {self.dtype}"


def without_model(folder: Path, shape: Shape) -> Run:
    """Write a run of columns `llm.block.N/last`, or `llm.block.N/all` with several rows each.

    Labels are classes that the columns separate, less so in the first ones. The attribute `depth`
    is a number that the first feature has in it.
    """
    selector = "last" if shape.rows == 1 else "all"
    names = [f"llm.block.{number}/{selector}" for number in range(shape.columns)]
    spec = {"adapter": "none", "data": "planted", "sites": names, "options": {"storage": _LMDB}}
    info = {"state": "finished", "columns": names, "samples": shape.samples}
    run = Run.create(folder, make_spec(spec), info)
    random = np.random.default_rng(0)
    classes = random.integers(len(CLASSES), size=shape.samples)
    depths = random.standard_normal(shape.samples).astype(np.float32)
    run.write_samples(
        [
            Sample(
                f"s{i:07}",
                "What is it?",
                label=CLASSES[c],
                group=f"g{i // 4}",
                attributes={"depth": round(float(depth), 4)},
            )
            for i, (c, depth) in enumerate(zip(classes, depths, strict=True))
        ]
    )
    with open_named(
        Registry.default(), "lmdb", str(folder / "columns"), mode="a", options=_LMDB
    ) as store:
        for ids, block in _planted(shape, names, classes, depths):
            store.write(ColumnBlock(ids, block))
    return run


def _planted(
    shape: Shape,
    names: list[str],
    classes: npt.NDArray[np.int64],
    depths: npt.NDArray[np.float32],
) -> Iterator[tuple[tuple[str, ...], dict[str, Values]]]:
    """Blocks of samples: repeated noise, begun elsewhere each time and the mean of the class."""
    random = np.random.default_rng(1)
    at_once = max(1, _BLOCK // (shape.rows * shape.width * 4))
    noise = random.standard_normal((2 * at_once * shape.rows, shape.width), np.float32)
    means = random.standard_normal((len(CLASSES), shape.width)).astype(np.float32)
    for start in range(0, shape.samples, at_once):
        own = classes[start : start + at_once]
        some = np.repeat(own, shape.rows)
        lengths = (shape.rows,) * len(own) if shape.rows > 1 else None
        block = {}
        for number, name in enumerate(names):
            first = int(random.integers(len(noise) - len(some) + 1))
            part = np.roll(noise[first : first + len(some)], int(random.integers(shape.width)), 1)
            part += 0.1 * (number + 1) * means[some]
            part[:, 0] += np.repeat(depths[start : start + at_once], shape.rows)
            block[name] = Values(_stored(part, shape.dtype), shape.dtype, lengths)
        yield tuple(f"s{i:07}" for i in range(start, start + len(own))), block


def _stored(values: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[Any]:
    if dtype == "bfloat16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(DTYPES[dtype])


def with_model(folder: Path, shape: Shape, sites: list[str]) -> Run:
    """Extract columns of a few samples by a small LLaVA of that width, and repeat their rows.

    Args:
        folder: Of the run; the model and the pictures lie beside it.
        shape: The first column has so many bytes. `rows` is a square: tokens of an image.
        sites: The columns.
    """
    from vlmlens.runner.execution import compose, execute

    model, data = folder.with_name("model"), folder.with_name("samples.jsonl")
    _make_model(model, shape)
    _write_data(data, folder.with_name("images"))
    spec = {
        "adapter": "llava", "model": str(model), "data": str(data), "sites": sites,
        "device": "cpu", "dtype": shape.dtype, "out": str(folder), "options": {"storage": _LMDB},
    }  # fmt: skip
    execute(compose(make_spec(spec), Registry.default(), analyse=False), extract_only=True)
    run = Run(folder, trust=True)
    _grow(run, shape)
    return Run(folder, trust=True)


def _make_model(folder: Path, shape: Shape) -> None:
    from benchmarks._models import llava

    side = 14 * max(2, round(shape.rows**0.5))
    llava(folder, side=side, layers=2, width=shape.width, tower=1, inner=shape.width)


def _write_data(path: Path, images: Path) -> None:
    from benchmarks._models import photographs

    paths = photographs(images, _DISTINCT, size=(48, 48))
    lines = [
        json.dumps(
            {
                "id": f"s{i:07}",
                "image": name,
                "prompt": "Is it a cube?",
                "label": ("yes", "no")[i % 2],
                "choices": ["yes", "no"],
                "thing": CLASSES[i % 4],
            }
        )
        for i, name in enumerate(paths)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _grow(run: Run, shape: Shape) -> None:
    """Repeat the samples and their rows under new ids until there are enough."""
    known = list(run.samples)
    with run.store(mode="a") as store:
        names = [info.name for info in store.columns()]
        values = {name: store.read(name, [sample.id for sample in known]) for name in names}
        size = max(1, values[names[0]].array.nbytes // len(known))
        total = shape.bytes // size
        rounds = max(1, _BLOCK // (size * len(known)))
        for start in range(len(known), total, rounds * len(known)):
            count = min(rounds * len(known), total - start)
            ids = tuple(f"s{i:07}" for i in range(start, start + count))
            order = [i % len(known) for i in range(start, start + count)]
            store.write(ColumnBlock(ids, {name: values[name].take(order) for name in names}))
    samples = [replace(known[i % len(known)], id=f"s{i:07}") for i in range(total)]
    run.write_samples(samples)
    run.update(samples=total)
