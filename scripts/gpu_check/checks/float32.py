"""Check 2: float32 on the GPU, with and without TF32, against the CPU.

On a CPU it is float64 that float32 is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from scripts.gpu_check.columns import all_sites, rows
from scripts.gpu_check.measuring import apart, flags
from scripts.gpu_check.trial import Trial
from vlmlens import Sample

_LIMIT = 1e-4
_SAMPLES = 2


def check(trial: Trial) -> None:
    """Compare all rows at every site."""
    setting = trial.setting
    samples = setting.samples(_SAMPLES)
    reference = _reference(trial, samples)
    vlm = setting.model("float32")
    sites = all_sites(vlm)
    trial.note(sites=len(sites))
    with setting.tested(vlm):
        found = rows(vlm, samples, sites)
        told = {"as_loaded": apart(found, reference)}
        if setting.cuda:
            for name, on in (("tf32_off", False), ("tf32_on", True)):
                with flags(matmul=on, convolutions=on):
                    told[name] = apart(rows(vlm, samples, sites), reference)
    trial.note(**{name: _worst(each) for name, each in told.items()})
    for name in ("as_loaded", "tf32_off"):
        if name in told:
            site = max(told[name], key=told[name].__getitem__)
            trial.at_most(f"{name}_at_{site}", told[name][site], _LIMIT)


def _reference(trial: Trial, samples: Sequence[Sample]) -> Mapping[str, Sequence[torch.Tensor]]:
    """The rows from the CPU; the model there is not kept."""
    setting = trial.setting
    vlm = setting.load("float32", "cpu")
    if not setting.cuda:
        vlm.module.double()
    return rows(vlm, samples, all_sites(vlm))


def _worst(found: Mapping[str, float]) -> float:
    return max(found.values())
