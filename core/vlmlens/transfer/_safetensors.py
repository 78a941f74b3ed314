"""Safetensors: a folder of shards, each with consecutive samples of one column.

A shard holds a tensor with the column's name and type; for a ragged column also the tensor
`COLUMN:lengths`. Its metadata holds the sample ids as JSON. `index.json` lists the shards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlmlens._files import write_json
from vlmlens.abc.storage import DTYPES, Array, ColumnInfo, Values
from vlmlens.transfer._parts import Content, Part, content_from

if TYPE_CHECKING:
    import torch

INDEX = "index.json"
_LENGTHS = ":lengths"


def write(content: Content, path: Path, advance: Callable[[int], None]) -> None:
    """Write all columns into a new folder."""
    from safetensors.torch import save_file

    path.mkdir()
    shards: dict[str, list[str]] = {}
    for number, info in enumerate(content.columns):
        files = shards[info.name] = []
        for part, (ids, values) in enumerate(content.parts(info)):
            files.append(f"{number:04d}-{part:05d}.safetensors")
            tensors = {info.name: _tensor(values.array, values.dtype)}
            if values.lengths is not None:
                tensors[info.name + _LENGTHS] = _tensor(np.array(values.lengths, "<i8"), "int64")
            about = {"column": info.name, "ids": json.dumps(ids)}
            save_file(tensors, path / files[-1], about)
            advance(len(ids))
    record = content.about.to_record(content.columns)
    write_json(path / INDEX, {**record, "shards": shards})


def read(path: Path) -> Content:
    """The content of a folder that `write` made."""
    record = json.loads((path / INDEX).read_text(encoding="utf-8"))
    shards = record.get("shards", {})

    def parts(info: ColumnInfo) -> Iterator[Part]:
        for name in shards[info.name]:
            yield _shard(path / name, info)

    return content_from(record, path, parts)


def _tensor(array: Array, dtype: str) -> torch.Tensor:
    import torch

    bits = np.ascontiguousarray(array)
    if dtype != "bfloat16":
        return torch.from_numpy(bits)
    return torch.from_numpy(bits.view("<i2")).view(torch.bfloat16)


def _shard(path: Path, info: ColumnInfo) -> Part:
    import torch
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        ids: list[str] = json.loads(file.metadata()["ids"])
        tensor = file.get_tensor(info.name)
        lengths = tuple(file.get_tensor(info.name + _LENGTHS).tolist()) if info.ragged else None
    carried = tensor.view(torch.int16) if info.dtype == "bfloat16" else tensor
    return ids, Values(carried.numpy().view(DTYPES[info.dtype]), info.dtype, lengths)
