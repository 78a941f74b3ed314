"""Directions from files: those of steering, weights of linear probes, and plain vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from vlmlens._files import expanded
from vlmlens.errors import DataError, DataNotFound, did_you_mean
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.probe.export import read_export
from vlmlens_plugins.analysis.steering.aims import mark_of
from vlmlens_plugins.analysis.steering.files import open_direction

_STEERING = "vlmlens direction"
_UNREADABLE = (OSError, KeyError, TypeError, ValueError, EOFError, BadZipFile)
Floats = npt.NDArray[np.float64]


def _unknown(sample: Sample) -> bool:
    del sample
    return False


@dataclass(frozen=True, slots=True)
class Along:
    """A direction.

    Args:
        vector: float64 `[width]`, of length 1.
        learnt_at: The column at which it was learnt; "" if the file does not say it.
        learnt_from: Whether it was learnt from a sample.
        known: Whether the file says from which samples it was learnt.
    """

    vector: Floats
    learnt_at: str = ""
    learnt_from: Callable[[Sample], bool] = _unknown
    known: bool = False


def read_along(text: str) -> Along:
    """The direction that `FILE` or `FILE:CLASS` names.

    Raises:
        DataNotFound: There is no such file.
        DataError: It holds no direction.
    """
    whole = expanded(text)
    file, colon, wanted = (text, "", "") if whole.is_file() else text.rpartition(":")
    path = whole if not colon else expanded(file)
    if not path.is_file():
        raise DataNotFound(
            f"There is no file {text!r}.",
            subject=text,
            hint="Name a file results/steering.*.safetensors of a run, a file that a probe "
            "exported (FILE, or FILE:CLASS), or a .npy file.",
        )
    try:
        return _read(path, wanted)
    except _UNREADABLE as error:
        raise _no_direction(text, f"{type(error).__name__}: {error}") from error


def _read(path: Path, wanted: str) -> Along:
    if path.suffix == ".npy":
        return Along(_unit(path, np.load(path, allow_pickle=False)))
    if path.suffix == ".npz":
        return _of_probe(path, wanted)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as opened:
            said, names = opened.metadata() or {}, list(opened.keys())
            made_here = any(name == "facts" or name.startswith(_STEERING) for name in said)
            if not made_here and len(names) == 1:
                return Along(_unit(path, opened.get_tensor(names[0])))
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    return _of_probe(path, wanted) if "facts" in said else _of_steering(path)


def _of_steering(path: Path) -> Along:
    found = open_direction(str(path))
    groups = frozenset(found.groups)

    def learnt_from(sample: Sample) -> bool:
        return mark_of(sample.split_group) in groups

    at = f"{found.site}/{found.rows}"
    return Along(_unit(path, found.vector), at, learnt_from, known=True)


def _of_probe(path: Path, wanted: str) -> Along:
    arrays, facts = read_export(path)
    weights, ids = arrays["weights"], frozenset(facts["ids"])
    if "weights2" in arrays or weights.ndim != 2:
        raise _no_direction(str(path), "its probe is not linear")
    vector = weights @ _of_class(path, weights.shape[1], facts, wanted)

    def learnt_from(sample: Sample) -> bool:
        return sample.id in ids

    return Along(_unit(path, vector), str(facts["column"]), learnt_from, known=True)


def _of_class(path: Path, outputs: int, facts: Mapping[str, Any], wanted: str) -> Floats:
    """How the outputs of a probe are weighed: for one class, against the mean of the others."""
    classes = [str(name) for name in facts["classes"]]
    if outputs == 1 and not wanted:
        return np.ones(1)
    if wanted not in classes:
        raise DataError(
            f"{str(path)!r} has a direction for each of {len(classes)} classes, and "
            f"{wanted or 'none'!r} is named.",
            subject=str(path),
            hint=did_you_mean(wanted, classes) or f"Write FILE:CLASS: {', '.join(classes[:8])}.",
        )
    place = classes.index(wanted)
    if outputs == 1:
        return np.array([1.0 if place == 1 else -1.0])
    weighed = np.full(outputs, -1 / (outputs - 1))
    weighed[place] = 1
    return weighed


def _unit(path: Path, values: npt.NDArray[Any]) -> Floats:
    vector = np.asarray(values, np.float64).squeeze()
    if vector.ndim != 1 or not np.isfinite(vector).all() or not vector.any():
        raise _no_direction(str(path), "expected is one vector of finite numbers, not all zero")
    unit: Floats = vector / np.linalg.norm(vector)
    return unit


def _no_direction(file: str, reason: str) -> DataError:
    return DataError(
        f"{file!r} holds no direction: {reason}.",
        subject=file,
        hint="Use a file of steering, of a linear probe (export=FOLDER), or a .npy vector.",
    )
