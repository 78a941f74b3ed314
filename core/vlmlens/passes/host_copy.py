"""Tensors from a device to the host: many in one buffer, with one copy that nobody waits for yet.

On CUDA the buffer is pinned and the copy runs beside the next batch. Its bytes mean nothing until
the copy has ended, so they are not given out before that; and they are given out as a copy in
ordinary memory, so that the buffer is free again.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy.typing as npt
import torch

MOST_BYTES = 2**30
"""Buffers of about this many bytes may wait for their copies; then the oldest one is read first."""


class Done(Protocol):
    """Something to wait for, such as `torch.cuda.Event`."""

    def synchronize(self) -> None:
        """Wait until it has happened."""


class Sent(NamedTuple):
    """Bytes on their way.

    Args:
        buffer: uint8 `[bytes]` on the host.
        done: What to wait for before the buffer is read; None: nothing.
    """

    buffer: torch.Tensor
    done: Done | None


class HostCopy:
    """Tensors of one device on their way to the host.

    The tensors themselves are not needed any more: the device keeps what the copy reads until it
    has ended.

    Args:
        tensors: At least one, each in pieces `[n_i, ...]` that belong one after the other. All are
            on one device; dtypes and widths may differ.
    """

    def __init__(self, tensors: Sequence[Sequence[torch.Tensor]]) -> None:
        self._forms = [_Form.of(pieces) for pieces in tensors]
        self._lock = threading.Lock()
        self._arrays: list[npt.NDArray[Any]] = []
        flat = [_bytes(piece) for pieces in tensors for piece in pieces]
        self._sent: Sent | None = sent(torch.cat(flat))
        _WAITING.add(self)

    @property
    def bytes(self) -> int:
        """Size of the buffer; 0 once it is free."""
        waiting = self._sent
        return 0 if waiting is None else waiting.buffer.numel()

    def wait(self) -> None:
        """Wait until the copy has ended."""
        waiting = self._sent
        if waiting is not None and waiting.done is not None:
            waiting.done.synchronize()

    def arrays(self) -> list[npt.NDArray[Any]]:
        """The tensors' bits in ordinary memory, once the copy has ended; bfloat16 as uint16."""
        with self._lock:
            if self._sent is not None:
                self.wait()
                self._arrays = self._read(self._sent.buffer)
                self._sent = None
            return self._arrays

    def _read(self, buffer: torch.Tensor) -> list[npt.NDArray[Any]]:
        parts = buffer.split([form.bytes for form in self._forms])
        return [
            _bits(part.clone().view(form.dtype).reshape(form.shape))
            for part, form in zip(parts, self._forms, strict=True)
        ]


class _Form(NamedTuple):
    """What bytes mean: `[n, ...]` of a dtype."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    bytes: int

    @classmethod
    def of(cls, pieces: Sequence[torch.Tensor]) -> _Form:
        """Of pieces that are joined along their first dimension."""
        first = pieces[0]
        rows = sum(len(piece) for piece in pieces)
        size = sum(piece.nbytes for piece in pieces)
        return cls(first.dtype, (rows, *first.shape[1:]), size)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def bits_of(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """The bits of a tensor on the CPU, not copied where they lie in order; bfloat16 as uint16."""
    return _bits(tensor.detach().contiguous())


def sent(packed: torch.Tensor) -> Sent:
    """Start to copy bytes to the host.

    Args:
        packed: uint8 `[bytes]`.
    """
    if packed.device.type != "cuda":
        return Sent(packed.cpu(), None)
    buffer = torch.empty(packed.numel(), dtype=torch.uint8, pin_memory=True)
    beside = _stream(packed.device)
    beside.wait_stream(torch.cuda.current_stream(packed.device))
    done = torch.cuda.Event(blocking=True)
    with torch.cuda.stream(beside):
        buffer.copy_(packed, non_blocking=True)
        done.record(beside)
    packed.record_stream(beside)
    return Sent(buffer, done)


class _Waiting:
    """The copies that were started and not read yet, so that their buffers do not pile up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._copies: list[weakref.ref[HostCopy]] = []

    def add(self, copy: HostCopy) -> None:
        """Remember a copy. The oldest ones are read if all of them hold too much."""
        with self._lock:
            alive = [one for ref in self._copies if (one := ref()) is not None and one.bytes]
            alive.append(copy)
            total, late = sum(one.bytes for one in alive), 0
            while total > MOST_BYTES and late < len(alive) - 1:
                total -= alive[late].bytes
                late += 1
            self._copies = [weakref.ref(one) for one in alive[late:]]
        for one in alive[:late]:
            one.arrays()


_WAITING = _Waiting()


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of a device in which copies to the host run."""
    return torch.cuda.Stream(device)


def _bits(tensor: torch.Tensor) -> npt.NDArray[Any]:
    found: npt.NDArray[Any] = (
        tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
    ).numpy()
    return found.astype(found.dtype.newbyteorder("<"), copy=False)
