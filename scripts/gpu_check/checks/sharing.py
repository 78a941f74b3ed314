"""Check 5: samples that share their beginning, or their pictures only, against plain batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scripts.gpu_check.checks.batches import limits
from scripts.gpu_check.columns import some_sites
from scripts.gpu_check.extracting import extracted, extraction
from scripts.gpu_check.measuring import apart, finite, flags
from scripts.gpu_check.setting import Dtype
from scripts.gpu_check.trial import Trial

_QUESTIONS = 4


def check(trial: Trial) -> None:
    """Extract the same columns in three ways."""
    setting = trial.setting
    samples = setting.samples(4 * _QUESTIONS if setting.cuda else 2 * _QUESTIONS, questions=4)
    exact = setting.model("float32")
    columns = [f"{site}/all" for site in some_sites(exact)]
    dtypes: tuple[Dtype, ...] = ("float32", "bfloat16")
    with flags(matmul=False, convolutions=False):
        reference = extracted(extraction(exact, samples, columns, batch_size=1))
        for dtype in dtypes:
            vlm = setting.model(dtype)
            plain = extracted(extraction(vlm, samples, columns, batch_size=1))
            allowed = limits(dtype, apart(plain, reference))
            for name in ("beginnings", "images"):
                with setting.tested(vlm), _sharing(vlm, name):
                    work = extraction(vlm, samples, columns, batch_size=8, share=True)
                    found = extracted(work)
                trial.note(**{f"{dtype}_{name}_shared": work.shared[name]})
                trial.expect(work.shared[name] == len(samples), f"not all samples shared {name}")
                trial.expect(finite(found), f"{dtype}, {name}: numbers that are not finite")
                distance = apart(found, reference)
                worst = max(distance, key=lambda at: distance[at] / allowed[at])
                trial.at_most(f"{dtype}_{name}", distance[worst], allowed[worst])


@contextmanager
def _sharing(vlm: Any, what: str) -> Iterator[None]:
    """Let the model share only pictures, if so asked."""
    if what == "beginnings":
        yield
        return
    vlm.shares_prefix = False
    try:
        yield
    finally:
        del vlm.shares_prefix
