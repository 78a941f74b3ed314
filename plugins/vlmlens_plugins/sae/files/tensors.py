"""Tensors of a file, as float32, checked against the size of the file. Nothing is unpickled."""

from __future__ import annotations

import io
import math
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from typing import IO, Any

import torch

from vlmlens_plugins.sae.files.place import Place

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_WHOLE = (torch.int32, torch.int64)
_UNREADABLE = (OSError, EOFError, ValueError, LookupError, RuntimeError, zipfile.BadZipFile,
               struct.error, zlib.error)  # fmt: skip
"""What reading an archive raises that is damaged, encrypted or packed in unknown ways."""
_MOST = 64
_LARGEST_PICKLE = 1 << 20
_ALLOWED = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16")),
    *(f"torch {kind}Storage" for kind in ("Int", "Long", "Short", "Char", "Byte", "Bool")),
}
"""What the pickle of plain tensors imports, as `module name`."""


class Tensors:
    """The tensors of one file by name; what nobody asked for is refused at the end.

    Args:
        place: Where they lie.
        found: float or whole-number tensors by name.
    """

    def __init__(self, place: Place, found: Mapping[str, torch.Tensor]) -> None:
        self._place, self._found = place, dict(found)

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def take(self, name: str) -> torch.Tensor:
        """A tensor of numbers, float32 and contiguous.

        Raises:
            DataError: There is none.
        """
        found = self._taken(name)
        if found.dtype not in _FLOATS:
            raise self._place.refused(f"its tensor {name!r} is of {found.dtype}, not of floats")
        return found.detach().float().contiguous()

    def turned(self, name: str) -> torch.Tensor:
        """A matrix, transposed.

        Raises:
            DataError: There is none, or it is no matrix.
        """
        found = self.take(name)
        if found.ndim != 2:
            raise self._place.refused(f"its tensor {name!r} has {found.ndim} dimensions, not 2")
        return found.T.contiguous()

    def number(self, name: str) -> float:
        """A tensor of a single finite number.

        Raises:
            DataError: There is none, or it holds something else.
        """
        found = self._taken(name)
        if found.numel() != 1:
            raise self._place.refused(f"its tensor {name!r} holds {found.numel()} numbers, not one")
        if not math.isfinite(found.item()):
            raise self._place.refused(f"its tensor {name!r} is {found.item()}")
        return float(found.item())

    def whole(self, name: str) -> int:
        """A tensor of a single whole number.

        Raises:
            DataError: There is none, or it holds something else.
        """
        found = self.number(name)
        if not found.is_integer():
            raise self._place.refused(f"its tensor {name!r} is {found}, expected a whole number")
        return int(found)

    def spare(self, *names: str) -> None:
        """Leave out tensors that do not change codes."""
        for name in names:
            self._found.pop(name, None)

    def done(self) -> None:
        """Refuse what is left.

        Raises:
            DataError: There are tensors that no step of the reading used.
        """
        if self._found:
            names = ", ".join(map(repr, sorted(self._found)[:5]))
            raise self._place.refused(f"it has tensors that this form of SAE lacks: {names}")

    def _taken(self, name: str) -> torch.Tensor:
        if name not in self._found:
            raise self._place.refused(f"it has no tensor {name!r}")
        return self._found.pop(name)


def of_safetensors(place: Place, name: str) -> Tensors:
    """The tensors of a safetensors file.

    Raises:
        DataError: It is none, or its header does not fit its content.
    """
    from safetensors import SafetensorError, safe_open

    path = place.file(name)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = list(file.keys())
            if len(names) > _MOST:
                raise place.refused(f"{name!r} holds {len(names)} tensors")
            found = {each: file.get_tensor(each) for each in names}
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise place.refused(f"{name!r} is no safetensors file ({error})") from error
    return Tensors(place, _checked(place, found, path.stat().st_size))


def of_torch(place: Place, name: str, skip: int = 0, hint: str = "") -> dict[str, Any]:
    """What `torch.save` wrote, if it is made of tensors, texts and numbers only.

    Args:
        place: Where the file lies.
        name: Its name.
        skip: How many bytes come before.
        hint: How to convert a file that holds more.

    Raises:
        DataError: It holds objects of other classes, or more than its size.
    """
    path = place.file(name)
    with path.open("rb") as file:
        file.seek(skip)
        source: IO[bytes] = io.BytesIO(file.read()) if skip else file
        size = path.stat().st_size - skip
        _check_archive(place, name, source, size, hint)
        source.seek(0)
        try:
            found = torch.load(source, map_location="cpu", weights_only=True)
        except Exception as error:  # the unpickler of weights raises whatever it stumbles over
            raise place.refused(f"{name!r} is damaged, or holds more than tensors", hint) from error
    if not isinstance(found, dict):
        raise place.refused(f"{name!r} holds a {type(found).__name__}, not tensors by name")
    return found


def tensors_in(place: Place, found: Mapping[str, Any], name: str) -> Tensors:
    """The tensors of a mapping that `of_torch` gave.

    Raises:
        DataError: It holds something else.
    """
    others = [key for key, value in found.items() if not isinstance(value, torch.Tensor)]
    if others or not all(isinstance(key, str) for key in found):
        raise place.refused(f"{name!r} holds more than tensors by name: {others[:3]!r}")
    return Tensors(place, _checked(place, found, place.file(name).stat().st_size))


def _checked(
    place: Place, found: Mapping[str, torch.Tensor], size: int
) -> Mapping[str, torch.Tensor]:
    """The tensors, if each is plain and no larger than the file it comes from."""
    if len(found) > _MOST:
        raise place.refused(f"it holds {len(found)} tensors")
    for name, each in found.items():
        plain = each.layout == torch.strided and each.device.type == "cpu"
        if not plain or each.dtype not in (*_FLOATS, *_WHOLE):
            raise place.refused(f"its tensor {name!r} is of {each.dtype}, {each.layout}")
        if not each.numel():  # a shape without numbers can claim any width
            raise place.refused(f"its tensor {name!r} of shape {tuple(each.shape)} is empty")
        if each.numel() * each.element_size() > size:
            raise place.refused(
                f"its tensor {name!r} of shape {tuple(each.shape)} is larger than the file"
            )
    return found


def _check_archive(place: Place, name: str, source: IO[bytes], size: int, hint: str) -> None:
    """Refuse what is not the archive that `torch.save` makes, before torch looks at it."""
    try:
        with zipfile.ZipFile(source) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > size:
                raise place.refused(f"{name!r} would unpack to more than its size")
            listed = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
            if len(listed) != 1 or listed[0].file_size > _LARGEST_PICKLE:
                raise place.refused(f"{name!r} is not what torch.save writes")
            classes = set(_classes(archive.read(listed[0]))) - _ALLOWED
    except _UNREADABLE as error:
        raise place.refused(
            f"{name!r} is not what torch.save writes since torch 1.6",
            "Load it with the tool that wrote it, and save its state_dict with torch.save.",
        ) from error
    if classes:
        raise place.refused(_more_than_tensors(name, classes), hint or CONVERT)


CONVERT = (
    "Opening it could run code. With the tool that wrote it: load it there, and write "
    "torch.save(sae.state_dict(), FILE)."
)
"""The hint for files that hold objects: they are not opened here."""


def _more_than_tensors(name: str, classes: Collection[str]) -> str:
    shown = ", ".join(repr(each.replace(" ", ".")) for each in sorted(classes)[:3])
    return f"{name!r} holds objects of other classes than tensors ({shown})"


def _classes(text: bytes) -> Iterator[str]:
    """What a pickle would import, as `module name`.

    Raises:
        ValueError: It is no pickle.
    """
    for operation, argument, _ in pickletools.genops(text):
        if operation.name == "GLOBAL":
            yield str(argument)
        elif operation.name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"):
            yield f"pickle {operation.name}"


def mentions(place: Place, name: str, *words: str) -> bool:
    """Whether a file is an archive of `torch.save` whose pickle has all these words."""
    try:
        with zipfile.ZipFile(place.file(name)) as archive:
            listed = [each for each in archive.infolist() if each.filename.endswith("/data.pkl")]
            if len(listed) != 1 or listed[0].file_size > _LARGEST_PICKLE:
                return False
            text = archive.read(listed[0])
    except _UNREADABLE:
        return False
    return all(word.encode() in text for word in words)
