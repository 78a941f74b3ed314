"""Check 8: batches that do not fit in memory are halved, and nothing changes but the time.

On a GPU the process may use 0.15 of the memory, and the first batches are far too large. On a CPU
the error is raised for batches of more than three samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from scripts.gpu_check.checks.batches import limits
from scripts.gpu_check.columns import last_block, some_sites
from scripts.gpu_check.extracting import extracted, extraction
from scripts.gpu_check.measuring import apart, gib, weights_of
from scripts.gpu_check.trial import Trial
from vlmlens.extraction.extraction import Extraction

if TYPE_CHECKING:
    from vlmlens import ModelAdapter

_ROOM = 0.15
_SMALLEST = 1.15
_FITS = 3
_KEPT = 64 * 2**20


class _Large(Extraction):
    """An extraction whose batches are far too large."""

    @property
    def budget(self) -> int:
        """More tokens than fit."""
        return 10**7


def check(trial: Trial) -> None:
    """Extract with batches that fit, and with batches that do not."""
    setting = trial.setting
    vlm = setting.model(setting.dtype)
    samples = setting.samples(256 if setting.cuda else 8)
    fits = 8 if setting.cuda else 2
    columns = [f"{site}/last" for site in some_sites(vlm) if site.startswith("llm.")]
    reference = extracted(extraction(vlm, samples, columns, batch_size=fits))
    alone = extracted(extraction(vlm, samples[:16], columns, batch_size=1))
    drift = apart({name: each[: len(alone[name])] for name, each in reference.items()}, alone)
    warnings: list[str] = []
    work = extraction(
        vlm, samples, columns, batch_size="auto", kind=_Large, warn=warnings.append
    )  # fmt: skip
    before = _cornered(vlm) if setting.cuda else _refusing(work)
    with setting.tested(vlm):
        found = extracted(work)
    trial.note(halved=len(warnings), warning=warnings[:1])
    trial.expect(bool(warnings), "no batch was too large: nothing was checked")
    distance = apart(found, reference)
    allowed = limits(setting.dtype, {name: 2 * each for name, each in drift.items()})
    column = f"{last_block(vlm)}/last"
    trial.at_most("rows_apart", distance[column], allowed[column])
    if setting.cuda:
        del work
        torch.cuda.empty_cache()
        kept = torch.cuda.memory_allocated() - before
        trial.note(peak_gib=gib(torch.cuda.max_memory_allocated()))
        trial.at_most("kept_mib", kept / 2**20, _KEPT / 2**20)


def _cornered(vlm: ModelAdapter) -> int:
    """Leave the process little more memory than the weights need; how much is allocated now."""
    whole = torch.cuda.get_device_properties(0).total_memory
    share = max(_ROOM, _SMALLEST * weights_of(vlm.module) / whole)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, share))
    torch.cuda.reset_peak_memory_stats()
    return int(torch.cuda.memory_allocated())


def _refusing(work: Extraction) -> int:
    """Make batches of more than a few samples fail as a full device does."""
    plain: Any = work.extractor.extract

    def extract(batch: Any) -> Any:
        if len(batch) > _FITS:
            raise torch.OutOfMemoryError("raised on purpose")
        return plain(batch)

    work.extractor.extract = extract  # type: ignore[method-assign]
    return 0
