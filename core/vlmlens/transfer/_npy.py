"""NumPy's npy: one column in a file, or a folder with a file per column.

bfloat16 is written as float32, which holds it exactly. In a folder, `COLUMN.ids.json` has the
sample ids, `COLUMN.lengths.npy` the number of rows per sample of a ragged column, and `index.json`
the samples and the store's record.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from vlmlens._files import write_json, write_text
from vlmlens.abc.storage import DTYPES, ColumnInfo
from vlmlens.errors import StoreError
from vlmlens.transfer._parts import Content

INDEX = "index.json"


def write(content: Content, path: Path, advance: Callable[[int], None]) -> None:
    """Write the only column into a new file.

    Raises:
        StoreError: There are several columns, or the only one is ragged.
    """
    if len(content.columns) != 1 or content.columns[0].ragged:
        names = [info.name for info in content.columns]
        raise StoreError(
            f"An npy file holds one column with one row per sample, not {', '.join(names[:4])}"
            f"{', ...' if len(names) > 4 else ''}.",
            subject=path.name,
            hint="Choose a column with --sites, or write a folder: --format npy, with a target "
            "that does not end in .npy.",
        )
    _column(content, content.columns[0], path, advance)


def write_folder(content: Content, path: Path, advance: Callable[[int], None]) -> None:
    """Write all columns into a new folder."""
    path.mkdir()
    for info in content.columns:
        stem = quote(info.name, safe="*[]:., ").replace("%2F", "__")
        ids, lengths = _column(content, info, path / f"{stem}.npy", advance)
        write_text(path / f"{stem}.ids.json", json.dumps(ids, ensure_ascii=False))
        if info.ragged:
            np.save(path / f"{stem}.lengths.npy", np.array(lengths, "<i8"))
    write_json(path / INDEX, content.about.to_record(content.columns))


def _column(
    content: Content, info: ColumnInfo, path: Path, advance: Callable[[int], None]
) -> tuple[list[str], list[int]]:
    """Write a column. Returns the sample ids, and the rows per sample if it is ragged."""
    lengths = [n for _, values in content.parts(info) for n in values.lengths or ()]
    rows = sum(lengths) if info.ragged else info.samples
    dtype = "<f4" if info.dtype == "bfloat16" else DTYPES[info.dtype].str
    header: dict[str, Any] = {"descr": dtype, "fortran_order": False, "shape": (rows, info.width)}
    ids: list[str] = []
    with path.open("xb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for some, values in content.parts(info):
            file.write(np.ascontiguousarray(values.numpy()).tobytes())
            ids += some
            advance(len(some))
    return ids, lengths
