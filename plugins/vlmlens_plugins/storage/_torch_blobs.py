"""Values as the blobs that `torch.save` makes, and back; nothing is unpickled.

Reading goes through `torch.load(weights_only=True)`, which builds tensors and refuses the rest.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmlens.abc.storage import DTYPES, Array

if TYPE_CHECKING:
    import torch

_DATA = b"/data/0"
_LOCAL = struct.Struct("<4s2xH6xI8xHH")
"""A zip entry's local header: signature, flags, CRC-32, lengths of name and extra field."""
_CENTRAL = struct.Struct("<4s12xI8xHHH12x")
"""Its entry in the directory: signature, CRC-32, lengths of name, extra field and comment."""
_DESCRIBED = 8
"""The flag of an entry whose CRC-32 follows its data."""


class NotATensor(ValueError):
    """A blob holds something else than a tensor of a type that stores keep."""


def save(array: Array, dtype: str) -> tuple[bytes, int]:
    """A blob of `[1, width]` or `[1, rows, width]` values, and where in it they begin.

    Args:
        array: `[width]` or `[rows, width]` bits.
        dtype: Their type, a key of `DTYPES`.
    """
    raw = array.tobytes()
    if array.ndim == 1 and raw:
        template = _template(dtype, len(array))
        return template.filled(raw), template.start
    blob = _saved(array, dtype)
    return blob, _Template(blob).start if raw else 0


class _Template:
    """A blob whose values can be replaced: `torch.save` takes longer than the disk.

    Args:
        blob: What `torch.save` made: an uncompressed zip file with one tensor's data.
    """

    def __init__(self, blob: bytes) -> None:
        self._blob = blob
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            names = [entry.filename.encode() for entry in archive.infolist()]
            entry = archive.infolist()[[name.endswith(_DATA) for name in names].index(True)]
            directory = archive.start_dir
        _, flags, _, name, extra = _LOCAL.unpack_from(blob, entry.header_offset)
        self.start = entry.header_offset + _LOCAL.size + name + extra
        if flags & _DESCRIBED:
            end = self.start + entry.file_size
            local = end + 4 if blob[end : end + 4] == b"PK\x07\x08" else end
        else:
            local = entry.header_offset + 14
        self._checks = (local, _in_directory(blob, directory, entry.filename.encode()) + 16)

    def filled(self, raw: bytes) -> bytes:
        """The blob with other values."""
        blob = bytearray(self._blob)
        blob[self.start : self.start + len(raw)] = raw
        check = zlib.crc32(raw).to_bytes(4, "little")
        for at in self._checks:
            blob[at : at + 4] = check
        return bytes(blob)


def _in_directory(blob: bytes, at: int, wanted: bytes) -> int:
    """Where an entry of the zip file's directory begins."""
    while True:
        _, _, name, extra, comment = _CENTRAL.unpack_from(blob, at)
        if blob[at + _CENTRAL.size :][:name] == wanted:
            return at
        at += _CENTRAL.size + name + extra + comment


@cache
def _template(dtype: str, width: int) -> _Template:
    return _Template(_saved(np.zeros(width, DTYPES[dtype]), dtype))


def _saved(array: Array, dtype: str) -> bytes:
    import torch

    bits = np.ascontiguousarray(array)
    if dtype == "bfloat16":
        tensor = torch.from_numpy(bits.view("<i2").copy()).view(torch.bfloat16)
    else:
        tensor = torch.from_numpy(bits.copy())
    file = io.BytesIO()
    torch.save(tensor[None], file)
    return file.getvalue()


def load(blob: bytes) -> tuple[Array, str]:
    """A blob's values as `[rows, width]` bits, and their type.

    The last dimension is the width; the others are rows. The work is bounded by the blob's size.

    Raises:
        NotATensor: It is anything but a tensor of a type in `DTYPES`.
    """
    import torch

    _check_archive(blob)
    try:
        tensor = torch.load(io.BytesIO(blob), map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler of weights raises whatever it stumbles over
        raise NotATensor("it holds something else than a tensor, or is damaged") from error
    if not isinstance(tensor, torch.Tensor):
        raise NotATensor(f"it holds a {type(tensor).__name__}")
    dtype = str(tensor.dtype).removeprefix("torch.")
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if dtype not in DTYPES or not plain or tensor.ndim == 0 or tensor.shape[-1] == 0:
        raise NotATensor(f"it is a {tensor.layout} tensor of {dtype}, {list(tensor.shape)}")
    if tensor.numel() * tensor.element_size() > len(blob):
        raise NotATensor(f"its shape {list(tensor.shape)} is larger than its {len(blob)} bytes")
    try:
        return _bits(tensor.detach().resolve_neg(), dtype), dtype
    except RuntimeError as error:
        raise NotATensor(f"it is no plain tensor of {dtype}") from error


def _check_archive(blob: object) -> None:
    """Refuse what is not the archive that `torch.save` makes, before torch looks at it.

    Raises:
        NotATensor: It is no archive, or its entries take more than its bytes.
    """
    if not isinstance(blob, bytes):
        raise NotATensor("it is no blob")
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise NotATensor("it is not what torch.save writes") from error
    if total > len(blob):
        raise NotATensor(f"it would unpack from {len(blob)} to {total} bytes")


def _bits(tensor: torch.Tensor, dtype: str) -> Array:
    import torch

    rows = tensor.reshape(-1, tensor.shape[-1]).contiguous()
    carried: Any = rows.view(torch.int16) if dtype == "bfloat16" else rows
    array: Array = carried.numpy().view(DTYPES[dtype])
    return array
