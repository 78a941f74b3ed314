"""The state of a training in one file, from which it goes on bit for bit.

A kind of training subclasses `Checkpoint`, so that no other one goes on from its files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError, safe_open

from vlmlens._disk import disk_errors
from vlmlens._files import replacing
from vlmlens.errors import DataError
from vlmlens_plugins._tensor_files import save_tensors

_DIGEST, _FORMAT = "sha256", 1


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What is kept: tensors by name, and JSON-ready data.

    Args:
        plan: What is trained on what; only a training with an equal plan goes on from it.
        state: Where it stands.
        tensors: The numbers.
    """

    name: ClassVar[str]
    """What such files are called in their metadata."""
    of: ClassVar[str]
    """What is trained, as messages say it: "SAEs"."""

    plan: Mapping[str, Any]
    state: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]

    def write(self, path: Path) -> None:
        """Replace the file in one step.

        Raises:
            FileError: It cannot be written.
        """
        tensors = {name: part.detach().cpu().contiguous() for name, part in self.tensors.items()}
        data = {"format": _FORMAT, "plan": self.plan, "state": self.state}
        text = json.dumps(data, allow_nan=False)
        known = {self.name: text, _DIGEST: _digest(text, tensors)}
        with disk_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as made:
                save_tensors(made, tensors, known)

    @classmethod
    def read(cls, path: Path, plan: Mapping[str, Any]) -> Self:
        """What a file holds.

        Args:
            path: The file.
            plan: What is to be trained.

        Raises:
            DataError: The file is damaged, of something else, or of another training.
            FileError: It cannot be read.
        """
        with disk_errors(), path.open("rb"):
            known, tensors = _opened(path)
        if cls.name not in known:
            raise _wrong(path, f"is no checkpoint of a training of {cls.of}")
        if known.get(_DIGEST) != _digest(known[cls.name], tensors):
            raise _wrong(path, "is damaged: its content does not have the digest that it states")
        data = json.loads(known[cls.name])
        if data["format"] != _FORMAT:
            raise _wrong(path, f"has the format {data['format']}, expected {_FORMAT}")
        given = json.loads(json.dumps(plan))
        if data["plan"] != given:
            raise _wrong(path, f"is of another training ({_difference(data['plan'], given)})")
        return cls(data["plan"], data["state"], tensors)

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors whose names begin like this, without that beginning."""
        return {
            name.removeprefix(prefix): part
            for name, part in self.tensors.items()
            if name.startswith(prefix)
        }


def _opened(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise _wrong(path, f"is damaged, or no checkpoint ({error})") from error


def _digest(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    found = hashlib.sha256(text.encode())
    for name, part in sorted(tensors.items()):
        found.update(f"{name} {part.dtype} {tuple(part.shape)}".encode())
        found.update(part.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _difference(kept: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    names = [name for name in sorted({*kept, *given}) if kept.get(name) != given.get(name)]
    return "; ".join(f"{name}: {kept.get(name)}, here {given.get(name)}" for name in names)


def _wrong(path: Path, what: str) -> DataError:
    return DataError(
        f"The checkpoint {path.name!r} {what}.",
        subject=str(path),
        hint=f"Remove {path} to train from the start, or name another one.",
    )
