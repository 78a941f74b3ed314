"""Check 11: `kill -9` in the middle of an extraction, then --resume: the bits stay the same."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from importlib import import_module
from typing import Any

from scripts.gpu_check.equal_runs import different, rows_stored, settings_of
from scripts.gpu_check.trial import Trial

_SAMPLES = {"cuda": 96, "cpu": 12}
_BATCH = {"cuda": 8, "cpu": 2}


def check(trial: Trial) -> None:
    """Make an unbroken run and a broken one that is resumed, and compare them."""
    import vlmlens

    setting = trial.setting
    folder = setting.folder / "killing"
    shutil.rmtree(folder, ignore_errors=True)
    count, batch = _SAMPLES[setting.device], _BATCH[setting.device]
    given = settings_of(setting, count, batch_size=batch)
    order = {"given": given, "out": str(folder / "broken"), "after": count // 2}
    ending = ended(order)
    trial.note(ended_by=ending)
    trial.expect(ending == -signal.SIGKILL, "the process was not killed in the middle")
    kept = rows_stored(folder / "broken")
    trial.note(samples=count, stored_when_killed=kept)
    trial.expect(0 < kept < count, f"{kept} of {count} samples were stored when it was killed")
    with _wrong(trial):
        resumed = vlmlens.extract(**given, out=folder / "broken", mode="resume")
    whole = vlmlens.extract(**given, out=folder / "whole")
    bad = different(resumed, whole)
    trial.note(columns=len(list(whole.activations)), different=bad)
    trial.expect(not bad, f"other bits in {len(bad)} columns, for example {bad[:1]}")


def ended(order: dict[str, Any]) -> int:
    """How a process ends that extracts and kills itself: its exit code, or minus the signal."""
    killed = subprocess.run(
        [sys.executable, "-m", "scripts.gpu_check.killed"],
        input=json.dumps(order), text=True, stdout=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return killed.returncode


def _wrong(trial: Trial) -> Any:
    """With the mistake "weight", every model that is loaded inside has a wrong one."""
    from contextlib import ExitStack
    from unittest.mock import patch

    stack = ExitStack()
    if trial.setting.mistake != "weight":
        return stack
    adapter: Any = import_module("vlmlens_adapter_llava.adapter").LlavaAdapter
    load = adapter.load

    def spoiled(request: Any) -> Any:
        vlm = load(request)
        stack.enter_context(trial.setting.tested(vlm))
        return vlm

    stack.enter_context(patch.object(adapter, "load", spoiled))
    return stack
