"""Check 1: a checkpoint is made, saved in shards, and loaded by the adapter."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import torch
from safetensors import safe_open

from scripts.gpu_check.measuring import gib, weights_of
from scripts.gpu_check.trial import Trial

_LOADS_WITHIN = 60.0
_PEAK = 1.2
_COMPARED = 16
_SAID = ("dtype", "attention", "tf32", "sdpa")
"""Of what the fingerprint of rows holds."""


def check(trial: Trial) -> None:
    """Load it; what was loaded is what the files hold."""
    setting = trial.setting
    begun = time.perf_counter()
    folder = setting.checkpoint()
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    trial.note(made_s=time.perf_counter() - begun, size_gib=gib(size))
    base = 0
    if setting.cuda:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
    begun = time.perf_counter()
    vlm = setting.load("bfloat16")
    spent = time.perf_counter() - begun
    said = vlm.describe()
    trial.note(**{name: said[name] for name in _SAID if name in said})
    with setting.tested(vlm):
        trial.note(compared=_compare(trial, folder, vlm.module))
    if not setting.cuda:
        trial.note(load_s=spent)
        return
    trial.at_most("load_s", spent, _LOADS_WITHIN)
    weights = weights_of(vlm.module)
    trial.note(weights_gib=gib(weights))
    peak = torch.cuda.max_memory_allocated() - base
    trial.at_most("peak_of_weights", peak / weights, _PEAK)


def _compare(trial: Trial, folder: Path, module: torch.nn.Module) -> int:
    """Compare some weights of each file with the model's; how many."""
    own = {_tail(name): weight for name, weight in module.state_dict().items()}
    count = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names = sorted(file.keys())
            for name in names[:: max(1, len(names) // _COMPARED)] + _mlp(names):
                stored = file.get_tensor(name)
                trial.expect(
                    torch.equal(stored, own[_tail(name)].cpu()), f"{name} is not that of the file"
                )
                count += 1
    trial.expect(count > 0, "the checkpoint has no weights")
    return count


def _mlp(names: list[str]) -> list[str]:
    return [name for name in names if name.endswith("layers.0.mlp.down_proj.weight")]


def _tail(name: str) -> str:
    """A weight's name without what differs between the file and the module."""
    parts = [part for part in name.split(".") if part not in ("model", "vision_model")]
    order = [p for p in ("vision_tower", "language_model", "multi_modal_projector") if p in parts]
    return ".".join(parts[parts.index(order[0]) :] if order else parts).replace(
        "language_model.lm_head", "lm_head"
    )
