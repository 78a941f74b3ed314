"""Check 7: ways of copying the columns of a batch to the CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch

from scripts.gpu_check.measuring import seconds
from scripts.gpu_check.trial import Trial

_COLUMNS, _ROWS, _WIDTH = 33, 25, 4096
_LARGE = 2**28


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
    }
    for name, way in ways.items():
        found = way()
        same = all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        trial.expect(same, f"{name}: other bits than were on the device")
        trial.note(**{f"{name}_us": 1e6 * seconds("cuda", way, times=20)})
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


def _pinned(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Copies into pinned memory, after the event that says they are whole."""
    found = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
    for host, tensor in zip(found, tensors, strict=True):
        host.copy_(tensor, non_blocking=True)
    done = torch.cuda.Event()
    done.record()
    done.synchronize()
    return found
