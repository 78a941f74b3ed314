"""Check 13: a patching sweep over blocks and rows by replay, against whole passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from scripts.gpu_check.measuring import flags, seconds
from scripts.gpu_check.questions import PROMPTS
from scripts.gpu_check.trial import Trial
from vlmlens.abc import Batch, ModelAdapter
from vlmlens.passes.replay import Replay

_PAIRS = 4
_ROWS = ("image", "question", "last")
_GOAL = 0.6
_APART = {"float32": 1e-4, "bfloat16": 5e-2}


def check(trial: Trial) -> None:
    """Patch the rows of other pictures into every block, in both ways, in turn."""
    setting = trial.setting
    vlm = setting.model(setting.dtype)
    samples = setting.samples(PROMPTS + _PAIRS)
    target, donor = vlm.encode(samples[:_PAIRS]), vlm.encode(samples[PROMPTS:])
    cells = [
        f"{name}/{rows} = patch"
        for name in vlm.sites.canonical
        if name.startswith("llm.block.") and name.rpartition(".")[2].isdigit()
        for rows in _ROWS
    ]
    trial.note(cells=len(cells), pairs=_PAIRS)
    kept: dict[str, list[torch.Tensor]] = {}
    with flags(matmul=False, convolutions=False):
        donors = vlm.replay(donor)
        replayed = seconds(
            setting.device, lambda: kept.update(replay=_replayed(vlm, target, donors, cells))
        )
        with setting.tested(vlm):
            whole = seconds(
                setting.device, lambda: kept.update(whole=_whole(vlm, target, donors, cells))
            )
    distance, spread = _compared(kept["replay"], kept["whole"])
    trial.note(replay_s=replayed, whole_s=whole, moved=spread)
    trial.expect(spread > _APART[setting.dtype], "the patches moved no logit")
    trial.at_most("logits_apart", distance, _APART[setting.dtype])
    equal = sum(map(torch.equal, kept["replay"], kept["whole"]))
    trial.note(bit_equal_cells=equal, of_whole=replayed / whole)
    if setting.fast:
        trial.at_most("of_whole", replayed / whole, _GOAL)


def _replayed(
    vlm: ModelAdapter, batch: Batch, donors: Replay, cells: Sequence[str]
) -> list[torch.Tensor]:
    """The logits of each cell; the pass that is recorded is part of it."""
    record = vlm.replay(batch)
    return _each(cells, lambda cell: record.edited([cell], donors=donors))


def _whole(
    vlm: ModelAdapter, batch: Batch, donors: Replay, cells: Sequence[str]
) -> list[torch.Tensor]:
    """Likewise, by passes that compute everything."""

    def run(cell: str) -> torch.Tensor | None:
        with vlm.edited([cell], donors=donors):
            return vlm.forward(batch, logits="last").logits

    return _each(cells, run)


def _each(cells: Sequence[str], run: Callable[[str], torch.Tensor | None]) -> list[torch.Tensor]:
    found = []
    for cell in cells:
        logits = run(cell)
        assert logits is not None
        found.append(logits.float())
    return found


def _compared(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> tuple[float, float]:
    """How far logits are apart, and how far cells move them, as shares of their norm."""
    a, b = torch.stack(list(one)), torch.stack(list(other))
    size = b.norm(dim=-1).clamp_min(1e-30)
    moved = (b - b.mean(0)).norm(dim=-1) / size
    return float(((a - b).norm(dim=-1) / size).max()), float(moved.max())
