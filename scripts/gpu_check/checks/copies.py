"""Check 7: ways of copying the columns of a batch to the CPU, that of vlmlens among them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from scripts.gpu_check.measuring import seconds
from scripts.gpu_check.trial import Trial
from vlmlens.abc.pending import columns_on_host
from vlmlens.abc.storage import Array

_COLUMNS, _ROWS, _WIDTH = 33, 25, 4096
_LARGE = 2**28
_SIDE, _PRODUCTS, _TRIES = 8192, 16, 3


def check(trial: Trial) -> None:
    """Copy the pooled columns of a batch one by one, pinned, and stacked; and one large block."""
    columns = [
        torch.randn(_ROWS, _WIDTH, device="cuda", dtype=torch.bfloat16) for _ in range(_COLUMNS)
    ]
    expected = [column.cpu() for column in columns]
    ways: dict[str, Callable[[], list[torch.Tensor]]] = {
        "one_by_one": lambda: [column.to("cpu") for column in columns],
        "pinned": lambda: _pinned(columns),
        "stacked": lambda: list(torch.stack(columns).cpu()),
        "stacked_pinned": lambda: list(_pinned([torch.stack(columns)])[0]),
        "vlmlens": lambda: _own(columns),
    }
    for name, way in ways.items():
        found = way()
        same = all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        trial.expect(same, f"{name}: other bits than were on the device")
        trial.note(**{f"{name}_us": 1e6 * seconds("cuda", way, times=20)})
    right = all(while_busy(torch.device("cuda"), _SIDE) for _ in range(_TRIES))
    trial.expect(right, "vlmlens copied rows before they were computed, or after they were gone")
    large = torch.randint(0, 255, (_LARGE,), dtype=torch.uint8, device="cuda")
    host = torch.empty(_LARGE, dtype=torch.uint8)
    pinned = torch.empty(_LARGE, dtype=torch.uint8, pin_memory=True)
    for name, run in (
        ("to_pageable", lambda: host.copy_(large)),
        ("to_pinned", lambda: pinned.copy_(large, non_blocking=True)),
        ("from_pageable", lambda: large.copy_(host)),
        ("from_pinned", lambda: large.copy_(pinned, non_blocking=True)),
    ):
        seconds("cuda", run)
        trial.note(**{f"{name}_gb_s": _LARGE / seconds("cuda", run, times=3) / 1e9})


def while_busy(device: torch.device, side: int) -> bool:
    """Whether vlmlens gives the bits of a column that is computed last, and dropped at once.

    The device has much to do before it, and writes into memory that is free after it.

    Args:
        device: Where.
        side: Of the square matrices that keep it busy.
    """
    rows = torch.arange(_ROWS * _WIDTH).view(_ROWS, _WIDTH).to(torch.bfloat16)
    there = rows.to(device)
    one = torch.ones(side, side, dtype=torch.bfloat16, device=device)
    for _ in range(_PRODUCTS):
        torch.matmul(one, one)
    column = there + 1
    found = columns_on_host({"column/last": column})
    del column
    over = [torch.zeros_like(there) for _ in range(_PRODUCTS)]
    right = torch.equal(_tensor(found["column/last"].array), rows + 1)
    del over
    return right


def _own(columns: list[torch.Tensor]) -> list[torch.Tensor]:
    """As an extractor gives them: one copy beside what the device computes."""
    found = columns_on_host({f"{i}/last": column for i, column in enumerate(columns)})
    return [_tensor(values.array) for values in found.values()]


def _tensor(bits: Array) -> torch.Tensor:
    """bfloat16 of its bits, uint16."""
    return torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)


def _pinned(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Copies into pinned memory, after the event that says they are whole."""
    found = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
    for host, tensor in zip(found, tensors, strict=True):
        host.copy_(tensor, non_blocking=True)
    done = torch.cuda.Event()
    done.record()
    done.synchronize()
    return found
