"""Databases that VLM-Lens wrote, read as columns.

A layer with its pooling is a column (`model.layers.3/mean`, or `/all` without pooling). A sample is
a combination of image, prompt, label and the dataset's id. Blobs are read as weights only; a
database with anything else in it is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlmlens.abc.storage import DTYPES, Array, ChunkCheck, ColumnInfo, Values
from vlmlens.errors import StoreError, did_you_mean
from vlmlens.samples import Sample
from vlmlens.stores.writing import Form, find_column, in_own_type, missing_sample
from vlmlens_plugins.storage._sqlite_database import Database
from vlmlens_plugins.storage._torch_blobs import NotATensor, load

_log = logging.getLogger("vlmlens")

_NO_IMAGE = "No image prompt"
"""What VLM-Lens writes for an image where there was none."""

_WANTED = ("name", "architecture", "image_path", "image_id", "prompt", "label")
_OPTIONAL = ("layer", "pooling_method", "tensor_dim")
_LOOKED_AT = 8


@dataclass(slots=True)
class _Column:
    """A layer with its pooling.

    Args:
        name: The column's name.
        rows: Row of the table by sample.
        sizes: A row for every size of blob that occurs.
        widths: The values of `tensor_dim` that occur.
        problem: Why it cannot be a column; empty where it can.
    """

    name: str
    rows: dict[str, int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    widths: set[int | None] = field(default_factory=set)
    problem: str = ""


class VlmLensTables:
    """Reading a database of VLM-Lens.

    Args:
        database: The open file.
        model: The model to read, where there are several.
        repeated: What to do with a layer that has several tensors of a sample.

    Raises:
        StoreError: Another schema, several models and none chosen, or blobs that are no tensors.
    """

    def __init__(self, database: Database, *, model: str | None, repeated: str) -> None:
        self._database = database
        rows = self._index()
        self._model = self._choose(rows, model)
        rows = [row for row in rows if row["name"] == self._model]
        self._samples = _name_samples(rows)
        columns = _gather(rows, repeated)
        self._forms = {
            column.name: form for column in columns if (form := self._form(column)) is not None
        }
        self._columns = {column.name: column for column in columns if column.name in self._forms}
        self._left_out = {column.name: column.problem for column in columns if column.problem}
        self._adapter = str(rows[0]["architecture"] or "") if rows else ""
        for name, problem in self._left_out.items():
            _log.warning("%s: %s is left out: %s.", database.path, name, problem)

    def columns(self) -> list[ColumnInfo]:
        """See `ColumnStore.columns`."""
        return [
            ColumnInfo(name, *form, samples=len(self._columns[name].rows))
            for name, form in self._forms.items()
        ]

    def ids(self, column: str) -> list[str]:
        """See `ColumnStore.ids`."""
        return list(self._find(column).rows)

    def read(self, column: str, ids: Sequence[str] | None = None) -> Values:
        """See `ColumnStore.read`."""
        found = self._find(column)
        form = self._forms[found.name]
        arrays = []
        for sample in found.rows if ids is None else ids:
            if sample not in found.rows:
                raise missing_sample(column, sample)
            arrays.append(self._array(column, form, found.rows[sample]))
        empty = np.empty((0, form.width), DTYPES[form.dtype])
        lengths = tuple(len(array) for array in arrays) if form.ragged else None
        return Values(np.concatenate([empty, *arrays]), form.dtype, lengths)

    def iterate(self, column: str) -> Iterator[tuple[str, Array]]:
        """See `ColumnStore.iterate`."""
        form = self._forms[self._find(column).name]
        for sample, row in self._find(column).rows.items():
            yield sample, in_own_type(self._array(column, form, row).copy(), form.dtype)

    def verify(self) -> Iterator[ChunkCheck]:
        """See `ColumnStore.verify`; VLM-Lens keeps no checksums, so that tensors are read only."""
        for name, column in self._columns.items():
            for sample, row in column.rows.items():
                size, problem = 0, ""
                try:
                    size = self._array(name, self._forms[name], row).nbytes
                except StoreError as error:
                    problem = error.message
                yield ChunkCheck(name, sample, 1, size, problem)

    def meta(self) -> dict[str, Any]:
        """The model, and the layers that are left out with the reasons."""
        return {
            "source": "VLM-Lens",
            "model": self._model or "",
            "adapter": self._adapter,
            "left_out": dict(self._left_out),
        }

    def samples(self) -> list[Sample]:
        """See `ColumnStore.samples`."""
        return list(self._samples)

    def _index(self) -> list[dict[str, Any]]:
        """Everything but the tensors, in written order."""
        there = {row[1] for row in self._database.rows("PRAGMA table_info(tensors)")}
        lacking = sorted({"layer", "tensor", "prompt"} - there)
        if lacking:
            raise StoreError(
                f"The table tensors of {self._database.path} lacks {', '.join(lacking)}.",
                subject=str(self._database.path),
                hint="It is not a database of VLM-Lens.",
            )
        names = (*_WANTED, *_OPTIONAL)
        columns = ", ".join(name if name in there else f"NULL AS {name}" for name in names)
        found = self._database.rows(
            f"SELECT rowid, length(tensor), {columns} FROM tensors ORDER BY rowid"  # noqa: S608
        )
        return [dict(zip(("row", "size", *names), row, strict=True)) for row in found]

    def _choose(self, rows: Sequence[dict[str, Any]], model: str | None) -> str | None:
        names = list(dict.fromkeys(row["name"] for row in rows))
        if model is not None and model not in names:
            raise StoreError(
                f"The database {self._database.path} has no tensors of {model!r}.",
                subject=model,
                hint=did_you_mean(model, names) or f"It has {', '.join(map(str, names))}.",
            )
        if model is None and len(names) > 1:
            raise StoreError(
                f"The database {self._database.path} has tensors of {len(names)} models: "
                f"{', '.join(map(str, names))}.",
                subject=str(self._database.path),
                hint="Choose one with --set options.storage.model=NAME.",
            )
        return model if model is not None else next(iter(names), None)

    def _form(self, column: _Column) -> Form | None:
        """What all tensors of a column have in common, as far as sizes tell; None: nothing."""
        if column.problem:
            return None
        looked = [self._load(column.name, row) for row in list(column.sizes.values())[:_LOOKED_AT]]
        dtypes = {dtype for _, dtype in looked}
        widths = {array.shape[1] for array, _ in looked} | (column.widths - {None})
        if len(widths) > 1 or len(dtypes) > 1:
            column.problem = (
                f"its tensors differ in width ({_listed(widths)}) or type ({_listed(dtypes)})"
            )
            return None
        several = any(len(array) != 1 for array, _ in looked)
        ragged = several or len(column.sizes) > 1
        return Form(dtypes.pop(), looked[0][0].shape[1], ragged)

    def _array(self, column: str, form: Form, row: int) -> Array:
        array, dtype = self._load(column, row)
        if (dtype, array.shape[1]) != (form.dtype, form.width):
            raise self._odd(column, row, f"it is {array.shape[1]} x {dtype}, not {form}")
        if not form.ragged and len(array) != 1:
            raise self._odd(column, row, f"it has {len(array)} rows, the others have one")
        return array

    def _load(self, column: str, row: int) -> tuple[Array, str]:
        found = self._database.row("SELECT tensor FROM tensors WHERE rowid = ?", row)
        try:
            return load(found[0])
        except NotATensor as error:
            raise self._odd(column, row, str(error)) from error

    def _odd(self, column: str, row: int, what: str) -> StoreError:
        return StoreError(
            f"Row {row} of {self._database.path} ({column}) cannot be read: {what}.",
            subject=str(self._database.path),
            hint="vlmlens reads tensors that torch.save wrote, and unpickles nothing else.",
        )

    def _find(self, column: str) -> _Column:
        if column in self._left_out:
            raise StoreError(
                f"Column {column!r} cannot be read: {self._left_out[column]}.", subject=column
            )
        return find_column(column, self._columns)


def _name_samples(rows: Sequence[dict[str, Any]]) -> list[Sample]:
    """The samples of the rows, each of which learns its sample's id under "sample".

    The dataset's ids where every sample has one of its own, else numbers from 1.
    """
    keys = [
        tuple(row[name] for name in ("image_id", "image_path", "prompt", "label")) for row in rows
    ]
    distinct = list(dict.fromkeys(keys))
    own = [str(key[0]) for key in distinct if key[0] is not None]
    usable = len(own) == len(distinct) == len(set(own))
    names = own if usable else [str(number) for number in range(1, len(distinct) + 1)]
    ids = dict(zip(distinct, names, strict=True))
    for row, key in zip(rows, keys, strict=True):
        row["sample"] = ids[key]
    return [
        Sample(
            id=ids[key],
            prompt=str(key[2] or ""),
            images=() if key[1] in (None, "", _NO_IMAGE) else (str(key[1]),),
            label=None if key[3] is None else str(key[3]),
        )
        for key in distinct
    ]


def _gather(rows: Sequence[dict[str, Any]], repeated: str) -> list[_Column]:
    columns: dict[str, _Column] = {}
    for row in rows:
        pooling = row["pooling_method"]
        name = f"{row['layer']}/{pooling or 'all'}"
        column = columns.setdefault(name, _Column(name))
        if row["sample"] in column.rows and repeated == "refuse":
            column.problem = (
                "a sample has several tensors (the database was written twice, or the module ran "
                "several times in a pass); the option repeated=first or repeated=last takes one"
            )
        if row["sample"] in column.rows and repeated != "last":
            continue
        column.rows[row["sample"]] = row["row"]
        column.sizes.setdefault(row["size"], row["row"])
        column.widths.add(row["tensor_dim"])
    return list(columns.values())


def _listed(values: set[Any]) -> str:
    return ", ".join(sorted(str(value) for value in values))
