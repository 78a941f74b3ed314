"""Check 9: compiled blocks give the rows of blocks that are not compiled, and every hook is called.

CUDA graphs use the memory of outputs again, and hooks that are registered after the first call may
not run: so rows of a first pass must not change by a second one, and each pass must give all rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from scripts.gpu_check.checks.batches import limits
from scripts.gpu_check.columns import rows, some_sites
from scripts.gpu_check.extracting import POOLED, extracted, extraction
from scripts.gpu_check.measuring import apart, finite, flags, seconds
from scripts.gpu_check.trial import Trial
from vlmlens import Sample
from vlmlens.abc import ModelAdapter

_SAMPLES, _BATCH = 16, 8


def check(trial: Trial) -> None:
    """Compare rows, and count the passes of each site."""
    setting = trial.setting
    samples = setting.samples(_SAMPLES)
    plain = setting.model(setting.dtype)
    sites = some_sites(plain)
    with flags(matmul=False, convolutions=False):
        exact = setting.model("float32")
        reference = rows(exact, samples, sites, batch=_BATCH)
        setting.drop("float32")
    allowed = limits(setting.dtype, apart(rows(plain, samples, sites, batch=_BATCH), reference))
    trial.note(plain_s=_speed(trial, plain, samples))
    vlm = setting.load(setting.dtype, compile=True)
    with setting.tested(vlm):
        trial.note(first_pass_s=seconds(setting.device, lambda: rows(vlm, samples[:2], sites)))
        first = rows(vlm, samples[:_BATCH], sites)
        kept = {name: [each.clone() for each in found] for name, found in first.items()}
        second = rows(vlm, samples[_BATCH:], sites)
    still = all(
        torch.equal(one, other)
        for name in sites
        for one, other in zip(first[name], kept[name], strict=True)
    )
    trial.expect(still, "a second pass changed the rows of the first one")
    found = {name: [*first[name], *second[name]] for name in sites}
    trial.expect(finite(found), "numbers that are not finite")
    distance = apart(found, reference)
    worst = max(distance, key=lambda site: distance[site] / allowed[site])
    trial.at_most("rows_apart", distance[worst], allowed[worst])
    _hooks(trial, vlm, samples)
    trial.note(compiled_s=_speed(trial, vlm, samples))


def _hooks(trial: Trial, vlm: ModelAdapter, samples: Sequence[Sample]) -> None:
    """Extraction has hooks on all blocks: each column must have a row for each sample."""
    found = extracted(extraction(vlm, samples, POOLED, batch_size=_BATCH))
    short = [name for name, kept in found.items() if len(kept) != len(samples)]
    trial.note(columns=len(found))
    trial.expect(not short, f"hooks were not called: {', '.join(short)}")


def _speed(trial: Trial, vlm: ModelAdapter, samples: Sequence[Sample]) -> float:
    """Seconds of a pass over a batch, without logits, the second time."""
    batch = vlm.encode(samples[:_BATCH])
    vlm.forward(batch)
    return seconds(trial.setting.device, lambda: vlm.forward(batch), times=3)
