"""Checks 12 and 16: two workers on one GPU are refused; a worker beside this process is right.

This process uses CUDA already. Were the worker a fork of it, CUDA could not be used there.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from scripts.gpu_check.equal_runs import different, settings_of
from scripts.gpu_check.trial import CheckFailed, Trial
from vlmlens.errors import CompositionError

_SAMPLES, _BATCH = 16, 8


def check(trial: Trial) -> None:
    """Ask for too many workers, then for one."""
    setting = trial.setting
    folder = setting.folder / "workers"
    shutil.rmtree(folder, ignore_errors=True)
    given = settings_of(setting, _SAMPLES, batch_size=_BATCH)
    torch.zeros(1, device="cuda")
    trial.note(cards=torch.cuda.device_count())
    many = torch.cuda.device_count() + 1
    trial.note(refused=_refusal(given, workers=many, out=folder / "many"))
    _compared(trial, given, folder, "processes")


def ray(trial: Trial) -> None:
    """The same columns from a worker of Ray."""
    setting = trial.setting
    folder = setting.folder / "ray"
    shutil.rmtree(folder, ignore_errors=True)
    _compared(trial, settings_of(setting, _SAMPLES, batch_size=_BATCH), folder, "ray")


def _compared(trial: Trial, given: dict[str, Any], folder: Path, engine: str) -> None:
    """A worker of an engine gives the bits that this process gives."""
    import vlmlens

    here = vlmlens.extract(**given, out=folder / "here")
    there = vlmlens.extract(**{**given, "engine": engine}, workers=1, out=folder / "there")
    bad = different(here, there)
    trial.note(columns=len(list(here.activations)), different=bad)
    trial.expect(not bad, f"other bits in {len(bad)} columns, for example {bad[:1]}")


def _refusal(given: dict[str, Any], **more: Any) -> str:
    """What vlmlens says to workers that would share a GPU."""
    import vlmlens

    try:
        vlmlens.extract(**given, **more)
    except CompositionError as error:
        if error.subject != "workers":
            raise
        return f"{error.message} {error.hint}"
    raise CheckFailed(f"{more['workers']} workers on one GPU fewer were not refused")
