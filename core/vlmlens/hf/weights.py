"""Loads weights of checkpoints with another layout than transformers': rename, check, place.

For families whose model class is their own, or whose files name or split weights in another way.
Weights stay on disk until they are placed. Only tensors are unpickled, and no code of a checkpoint
is run.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import safe_open

from vlmlens.errors import CheckpointError
from vlmlens.hf.checkpoints import checkpoint_file
from vlmlens.hf.renames import native_name
from vlmlens.sites import Rename

_INDEXED = ("model.safetensors", "pytorch_model.bin")
_LISTED = 40
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor on disk. Each indexing reads it again.

    Args:
        shape: Its shape.
        dtype: Its dtype.
        read: Reads the part that an index selects.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[Any], torch.Tensor]

    def __getitem__(self, index: Any) -> torch.Tensor:
        """The part that an index selects; `[...]` is all of it."""
        return self.read(index)

    def rows(self, start: int, stop: int) -> StoredTensor:
        """The rows from `start` up to `stop`; no other rows are read."""
        shape = (len(range(self.shape[0])[start:stop]), *self.shape[1:])
        return StoredTensor(shape, self.dtype, lambda index: self.read(slice(start, stop))[index])

    def made(
        self, make: Callable[[torch.Tensor], torch.Tensor], shape: Sequence[int] | None = None
    ) -> StoredTensor:
        """The result of a function of the whole tensor.

        Args:
            make: The function; called when the result is read.
            shape: Of the result, if it differs.
        """
        found = self.shape if shape is None else tuple(shape)
        return StoredTensor(found, self.dtype, lambda index: make(self[...])[index])


def concatenated(
    tensors: Sequence[StoredTensor],
    shape: tuple[int, ...] | None = None,
    dtype: torch.dtype | None = None,
) -> StoredTensor:
    """The rows of some tensors one after the other. One tensor is read at a time.

    Args:
        tensors: With the same shape but for the first dimension.
        shape: Of the result, if the rows are reshaped.
        dtype: Of the result; None: as the first is stored.
    """
    first = tensors[0]
    found = shape or (sum(tensor.shape[0] for tensor in tensors), *first.shape[1:])
    kept = first.dtype if dtype is None else dtype

    def read(index: Any) -> torch.Tensor:
        whole, start = torch.empty(found, dtype=kept), 0
        rows = whole.view(-1, *first.shape[1:])
        for tensor in tensors:
            rows[start : start + tensor.shape[0]] = tensor[...]
            start += tensor.shape[0]
        return whole[index]

    return StoredTensor(found, kept, read)


def stored_weights(model: str, arguments: Mapping[str, Any]) -> dict[str, StoredTensor]:
    """Every tensor of a checkpoint by its original name; none is read yet.

    Args:
        model: Hub id or folder.
        arguments: For `from_pretrained`; only the revision is used.

    Raises:
        CheckpointError: It has no weights, or a file holds more than tensors.
    """
    weights: dict[str, StoredTensor] = {}
    for file in _files(model, arguments):
        weights.update(_pickled(file) if file.suffix == ".bin" else stored_tensors(file))
    return weights


def place_weights(
    module_class: type[Any],
    config: Any,
    weights: Mapping[str, StoredTensor],
    model: str,
    arguments: Mapping[str, Any],
) -> Any:
    """A transformers model with these weights. Each is read once, straight into its place.

    Args:
        module_class: The `PreTrainedModel` subclass.
        config: Of the model.
        weights: By the names of its state dict.
        model: Hub id or folder, named in errors.
        arguments: For `from_pretrained`: dtype, device map, attention, quantization.

    Raises:
        CheckpointError: Weights are missing, left over, or of another shape; it lists them.
    """
    check_fit(module_class, config, weights, model)
    settings = {k: v for k, v in arguments.items() if k not in {"revision", "trust_remote_code"}}
    if settings.get("dtype") == "auto":
        settings["dtype"] = next(t.dtype for t in weights.values() if t.dtype.is_floating_point)
    return module_class.from_pretrained(None, config=config, state_dict=dict(weights), **settings)


def renamed(
    weights: Mapping[str, StoredTensor], renames: Sequence[Rename], ignored: Iterable[str] = ()
) -> dict[str, StoredTensor]:
    """Weights, named as in the model's state dict.

    Args:
        weights: By their names in the checkpoint.
        renames: See `native_name`.
        ignored: Regular expressions of names; matching weights are left out.
    """
    return {
        native_name(name, renames): tensor
        for name, tensor in weights.items()
        if not any(re.search(pattern, name) for pattern in ignored)
    }


def check_fit(module_class: type[Any], config: Any, weights: Mapping[str, Any], model: str) -> None:
    """Compare weights with the state dict of a model with this config.

    Raises:
        CheckpointError: Weights are missing, left over, or of another shape; it lists them.
    """
    with torch.device("meta"):
        module = module_class(config)
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    tied = set(getattr(module, "all_tied_weights_keys", None) or ())
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wrong = [
        f"{name} {shapes[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    problems = {
        "missing": sorted(set(expected) - set(shapes) - tied),
        "left over": sorted(set(shapes) - set(expected)),
        "of another shape": wrong,
    }
    told = [f"{what}: {_list(names)}" for what, names in problems.items() if names]
    if told:
        raise CheckpointError(
            f"The weights of {model!r} do not fit its config. " + "; ".join(told) + ".",
            subject=model,
            hint="The files are incomplete, or of another architecture.",
        )


def _files(model: str, arguments: Mapping[str, Any]) -> list[Path]:
    """The weight files, safetensors if there are any."""
    for name in _INDEXED:
        index = checkpoint_file(model, f"{name}.index.json", arguments)
        if index is not None:
            shards = {*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
            found = [_shard(model, shard, arguments) for shard in sorted(shards)]
            return [file for file in found if file is not None]
        whole = checkpoint_file(model, name, arguments)
        if whole is not None:
            return [whole]
    raise CheckpointError(
        f"{model!r} has no weights.", subject=model, hint=f"It needs {' or '.join(_INDEXED)}."
    )


def _shard(model: str, name: str, arguments: Mapping[str, Any]) -> Path | None:
    if Path(name).name != name:
        raise CheckpointError(
            f"The index of {model!r} names {name!r}, which is not a file beside it.",
            subject=model,
        )
    return checkpoint_file(model, name, arguments, needed=True)


def stored_tensors(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file, read by position: no page stays mapped in memory."""
    opened: Any = safe_open(file, framework="pt", backend="pread")
    starts = _starts(file)
    return {name: _stored(opened, name, file, start) for name, start in starts.items()}


def _stored(opened: Any, name: str, file: Path, start: int) -> StoredTensor:
    found = opened.get_slice(name)
    dtype = _DTYPES.get(found.get_dtype())
    if dtype is None:
        raise CheckpointError(f"{name} is stored as {found.get_dtype()}, which is not known.")
    shape = tuple(found.get_shape())

    def read(index: Any) -> torch.Tensor:
        if _is_rows(index) and shape:
            low, high, _ = index.indices(shape[0])
            return _rows(file, start, (max(0, high - low), *shape[1:]), low, dtype)
        tensor: torch.Tensor = opened.get_tensor(name) if index is ... else found[index]
        return tensor

    return StoredTensor(shape, dtype, read)


def _is_rows(index: Any) -> bool:
    return isinstance(index, slice) and index.step in (None, 1)


def _rows(
    file: Path, start: int, shape: tuple[int, ...], first: int, dtype: torch.dtype
) -> torch.Tensor:
    """Rows of a tensor that begins at byte `start`; safetensors would read the whole tensor.

    Raises:
        CheckpointError: The file ends before them.
    """
    width = math.prod(shape[1:]) * dtype.itemsize
    buffer = bytearray(shape[0] * width)
    if not buffer:
        return torch.empty(shape, dtype=dtype)
    with file.open("rb") as opened:
        opened.seek(start + first * width)
        if opened.readinto(buffer) != len(buffer):
            raise CheckpointError(f"{file.name} is cut off.", subject=str(file))
    return torch.frombuffer(buffer, dtype=dtype).reshape(shape)


def _starts(file: Path) -> dict[str, int]:
    """The byte at which each tensor begins in a safetensors file: after the JSON header."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
    header.pop("__metadata__", None)
    return {name: 8 + length + said["data_offsets"][0] for name, said in header.items()}


def _pickled(file: Path) -> dict[str, StoredTensor]:
    try:
        zipped = zipfile.is_zipfile(file)
        tensors = torch.load(file, map_location="cpu", mmap=zipped, weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"{file.name} holds more than tensors, and is not opened.",
            subject=str(file),
            hint="It could run code; use a checkpoint with safetensors.",
        ) from error
    named = isinstance(tensors, Mapping)
    if not named or not all(isinstance(each, torch.Tensor) for each in tensors.values()):
        raise CheckpointError(
            f"{file.name} holds something else than tensors by name.", subject=str(file)
        )
    return {
        name: StoredTensor(tuple(tensor.shape), tensor.dtype, tensor.__getitem__)
        for name, tensor in tensors.items()
    }


def _list(names: list[str]) -> str:
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
