"""Whole runs through the Python API, and whether two of them hold the same bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.gpu_check.setting import Setting

if TYPE_CHECKING:
    from vlmlens import Run

SITES = ("projector/image.mean", "llm.block.*/last")


def settings_of(setting: Setting, count: int, *, batch_size: int) -> dict[str, Any]:
    """Keywords of `vlmlens.extract`, as JSON-ready data.

    The table of samples lies above the pictures: tables name files of their own folder only.

    Args:
        setting: Device, checkpoint and pictures.
        count: How many samples.
        batch_size: Samples per batch.
    """
    table = setting.folder / f"samples-{count}.jsonl"
    lines = [
        json.dumps({"id": sample.id, "image": sample.images[0], "prompt": sample.prompt})
        for sample in setting.samples(count)
    ]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {
        "adapter": "llava", "model": str(setting.checkpoint()), "device": setting.device,
        "dtype": setting.dtype, "data": str(table), "sites": list(SITES),
        "batch_size": batch_size, "share_prefix": False, "progress": False,
    }  # fmt: skip


def rows_stored(folder: Path) -> int:
    """How many samples of a run are stored, though it never ended."""
    import vlmlens

    with vlmlens.Run(folder).store(mode="r") as store:
        return min((info.samples for info in store.columns()), default=0)


def different(one: Run, other: Run) -> list[str]:
    """The columns in which two runs do not hold the same bits."""
    names = sorted(set(one.activations) | set(other.activations))
    return [name for name in names if not _equal(one, other, name)]


def _equal(one: Run, other: Run, name: str) -> bool:
    if name not in one.activations or name not in other.activations:
        return False
    a, b = np.asarray(one.activations[name]), np.asarray(other.activations[name])
    return a.shape == b.shape and a.tobytes() == b.tobytes()
