"""Directions as files: one tensor each, so that the interventions read them as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens._files import expanded, write_bytes
from vlmlens.errors import DataError, DataNotFound, VlmlensError
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._results import slug
from vlmlens_plugins.analysis.steering.aims import Aim

Vector = npt.NDArray[np.float32]
_FORMAT = "vlmlens direction 1"
_LIST = list[Any]


@dataclass(frozen=True, slots=True)
class Direction:
    """A vector at a site, with its meaning and its origin.

    Args:
        vector: float32 `[width]`.
        site: A single site.
        rows: The selector of the rows that it was learnt from, and is added to.
        method: How it was learnt.
        aim: What it points to.
        groups: Marks of the groups of samples that it was learnt from, see `mark_of`.
        origin: The model (`ModelAdapter.describe`), options, seed, number of samples.
    """

    vector: Vector
    site: str
    rows: str
    method: str
    aim: Aim
    groups: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def norm(self) -> float:
        """Its length."""
        return float(np.linalg.norm(self.vector.astype(np.float64)))

    @property
    def usable(self) -> bool:
        """Whether its numbers are finite, and not all zero."""
        return bool(np.isfinite(self.vector).all() and self.vector.any())

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"steering.{slug(self.site)}.{slug(self.rows)}.{slug(self.aim.towards)}.safetensors"


def save_direction(path: Path, direction: Direction) -> None:
    """Write a direction, replacing the file in one step."""
    from safetensors.numpy import save

    aim = direction.aim
    about = {
        "site": direction.site,
        "rows": direction.rows,
        "method": direction.method,
        "norm": direction.norm,
        "task": aim.task,
        "attribute": aim.attribute,
        "towards": aim.towards,
        "away": list(aim.away),
        "answer": aim.answer,
        "groups": list(direction.groups),
        "origin": dict(direction.origin),
    }
    metadata = {_FORMAT: json.dumps(about)}  # one key: equal directions give equal files
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, save({"direction": direction.vector}, metadata=metadata))


def open_direction(file: str) -> Direction:
    """A direction that `save_direction` wrote.

    Raises:
        DataNotFound: There is no such file.
        DataError: It holds something else.
    """
    from safetensors import SafetensorError, safe_open

    path = expanded(file)
    if not path.is_file():
        raise DataNotFound(
            f"There is no file {file!r}.",
            subject=file,
            hint="Name a file results/steering.*.safetensors of a run.",
        )
    try:
        with safe_open(path, framework="numpy") as opened:
            metadata = opened.metadata() or {}
            if _FORMAT not in metadata:
                raise _foreign(file, "its metadata do not say so")
            vector = opened.get_tensor("direction")
        direction = _read(vector, json.loads(metadata[_FORMAT]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise _foreign(file, f"{type(error).__name__}: {error}") from error
    if not direction.usable:
        raise _foreign(file, "its numbers are not finite, or all zero")
    return direction


def _read(vector: Any, about: Any) -> Direction:
    names = ("task", "attribute", "towards", "answer")
    texts = {name: _of(about, name, str) for name in (*names, "site", "rows", "method")}
    away, groups = (tuple(map(str, _of(about, name, _LIST))) for name in ("away", "groups"))
    if getattr(vector, "dtype", None) != np.float32 or vector.ndim != 1:
        raise ValueError("the tensor is no vector of float32 numbers")
    try:
        Selector.parse(texts["rows"])
    except VlmlensError as error:
        raise ValueError(error.message) from error
    aim = Aim(texts["task"], texts["attribute"], texts["towards"], away, texts["answer"])
    origin = _of(about, "origin", dict[str, Any])
    return Direction(vector, texts["site"], texts["rows"], texts["method"], aim, groups, origin)


def _of(about: Any, name: str, kind: Any) -> Any:
    value = about[name]
    if not isinstance(value, getattr(kind, "__origin__", kind)):
        raise TypeError(f"{name} is {type(value).__name__}")
    return value


def _foreign(file: str, reason: str) -> DataError:
    return DataError(
        f"{file!r} is no direction that the analysis steering saved: {reason}.",
        subject=file,
        hint='Any vector can be added with an edit: --edit "llm.block.3/last = add(FILE)".',
    )
