"""Check 3: bfloat16 against float32, block by block."""

from __future__ import annotations

from scripts.gpu_check.columns import all_sites, last_block, rows
from scripts.gpu_check.measuring import apart, finite, flags, typical
from scripts.gpu_check.trial import Trial

_LIMIT = 3e-2
_SAMPLES = 2


def check(trial: Trial) -> None:
    """Compare all rows at every site."""
    setting = trial.setting
    samples = setting.samples(_SAMPLES)
    exact = setting.model("float32")
    sites = all_sites(exact)
    with flags(matmul=False, convolutions=False):
        reference = rows(exact, samples, sites)
    vlm = setting.model("bfloat16")
    with setting.tested(vlm):
        found = rows(vlm, samples, sites)
    trial.expect(finite(found), "bfloat16 gave numbers that are not finite")
    trial.note(drift=typical(found, reference), drift_of_farthest_row=apart(found, reference))
    last = last_block(vlm)
    trial.at_most("last_block", typical(found, reference)[last], _LIMIT)
