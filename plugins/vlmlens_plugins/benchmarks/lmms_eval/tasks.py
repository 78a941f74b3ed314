"""Which benchmark a task of lmms-eval is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Task(NamedTuple):
    """A task.

    Args:
        benchmark: The name of the benchmark's dataset; "" where none is known.
        part: Its part of the benchmark: the samples' `split`, or their task.
    """

    benchmark: str = ""
    part: str = ""


_EXACT: Final = {
    "mme": Task("mme"),
    "pope": Task("pope"),
    "pope_random": Task("pope", "random"),
    "pope_pop": Task("pope", "popular"),
    "pope_adv": Task("pope", "adversarial"),
}
_STARTS: Final[Mapping[str, str]] = {
    "hallusion_bench": "hallusionbench",
    "mmmu_pro": "",
    "mmmu_": "mmmu",
    "chartqapro": "",
    "chartqa": "chartqa",
    "videomme_v2": "",
    "videomme": "videomme",
    "vqav2": "vqav2",
    "amber_g": "amber",
    "coco_cap_chair": "chair",
}
"""By the beginning of a task's name; the first that fits counts."""


def task_of(name: str) -> Task:
    """The task of that name.

    >>> task_of("pope_adv").part, task_of("mmmu_val").benchmark, task_of("mme_sci").benchmark
    ('adversarial', 'mmmu', '')
    """
    if name in _EXACT:
        return _EXACT[name]
    start = next((each for each in _STARTS if name.startswith(each)), "")
    return Task(_STARTS.get(start, ""))
