"""HDF5: a dataset `[rows, width]` per column, one file. Needs h5py (the extra `hdf5`).

bfloat16 is written as float32, which holds it exactly. The dataset
`COLUMN:ids` has the sample ids, `COLUMN:lengths` the number of rows per sample of a ragged column,
and `index.json` has samples and the store's record.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vlmlens.errors import MissingDependency, StoreError
from vlmlens.transfer._parts import Content

INDEX = "index.json"


def write(content: Content, path: Path, advance: Callable[[int], None]) -> None:
    """Write all columns into one new file.

    Raises:
        MissingDependency: h5py is not installed.
    """
    h5py = _h5py()
    with h5py.File(path, "x") as file:
        for info in content.columns:
            if info.name in file or "\0" in info.name:
                raise StoreError(
                    f"The column {info.name!r} cannot stand in an HDF5 file beside the others.",
                    subject=info.name,
                    hint="Export to npz or safetensors.",
                )
            dataset: Any = None
            ids: list[str] = []
            lengths: list[int] = []
            for some, values in content.parts(info):
                numbers = values.numpy()
                if dataset is None:
                    dataset = file.create_dataset(
                        info.name, (0, info.width), numbers.dtype, maxshape=(None, info.width),
                        chunks=(max(1, min(256, len(numbers))), max(1, info.width)),
                    )  # fmt: skip
                start = dataset.shape[0]
                dataset.resize(start + len(numbers), axis=0)
                dataset[start:] = np.ascontiguousarray(numbers)
                ids += some
                lengths += values.lengths or ()
                advance(len(some))
            file.create_dataset(f"{info.name}:ids", data=ids, dtype=h5py.string_dtype())
            if info.ragged:
                file.create_dataset(f"{info.name}:lengths", data=np.array(lengths, "<i8"))
        text = json.dumps(content.about.to_record(content.columns))
        file.create_dataset(INDEX, data=text, dtype=h5py.string_dtype())


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise MissingDependency(
            "An HDF5 file needs h5py, which is not installed.",
            subject="h5py",
            hint='pip install "vlmlens[hdf5]"',
        ) from error
    return h5py
