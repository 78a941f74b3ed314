"""Check 15: bitsandbytes in 4 and 8 bit, beside bfloat16, and how far rows depend on the batch.

In 8 bit, outliers are found in the whole batch, so the rows of a sample depend on the others.
"""

from __future__ import annotations

import torch

from scripts.gpu_check.columns import last_block, rows, some_sites
from scripts.gpu_check.measuring import apart, finite, gib, typical, weights_of
from scripts.gpu_check.trial import Trial

_SAMPLES = 8
_FAR = 0.5


def check(trial: Trial) -> None:
    """Load both, and compare rows at some sites."""
    setting = trial.setting
    samples = setting.samples(_SAMPLES)
    plain = setting.model("bfloat16")
    sites, last = some_sites(plain), last_block(plain)
    reference = rows(plain, samples, sites, batch=1)
    setting.drop("bfloat16")
    del plain
    torch.cuda.empty_cache()
    for name in ("8bit", "4bit"):
        vlm = setting.load("bfloat16", quantization=name)
        alone = rows(vlm, samples, sites, batch=1)
        together = rows(vlm, samples, sites)
        trial.expect(finite(alone) and finite(together), f"{name}: numbers that are not finite")
        far = typical(alone, reference)
        trial.note(
            **{
                f"{name}_weights_gib": gib(weights_of(vlm.module)),
                f"{name}_from_bfloat16": far,
                f"{name}_batch_dependence": apart(together, alone),
                f"{name}_dtype": str(alone[last][0].dtype).removeprefix("torch."),
            }
        )
        trial.at_most(f"{name}_last_block", far[last], _FAR)
        del vlm, alone, together
        torch.cuda.empty_cache()
