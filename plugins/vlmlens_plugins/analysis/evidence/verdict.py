"""The verdict on a task: what does the answer rest on?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlmlens.results import Verdict
from vlmlens_plugins.analysis._estimates import NOTHING, Estimate
from vlmlens_plugins.analysis.evidence.measured import TaskNumbers
from vlmlens_plugins.analysis.evidence.options import EvidenceOptions

_FEWEST = 6
"""Groups with which a difference can be significant at 5 %; intervals of fewer are too narrow."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict, and what it rests on. Each part is True, False, or None: not decided.

    Args:
        verdict: The verdict.
        follows: Whether answers follow an exchanged image.
        ignores: Whether they stay as they are when it is exchanged.
        specific: Whether hiding the region does more than hiding random regions.
        moved: Whether another background moves the answers.
    """

    verdict: Verdict
    follows: bool | None
    ignores: bool | None
    specific: bool | None
    moved: bool | None


def judge(found: TaskNumbers, options: EvidenceOptions) -> Judged:
    """What the answers of a task rest on.

    - the region: answers follow an exchanged image; hiding the region does more than hiding random
      regions of equal area, significantly and by `min_specificity` of what the image does; and
      another background does less than `max_background` of it.
    - the image, not on the region: answers follow an exchanged image, and one of the other two is
      refuted: the interval is on the other side of its threshold.
    - the text: exchanged images change less than `max_flips` of the answers.
    - inconclusive: anything else.

    Args:
        found: The numbers of the task, with the corrected p-value.
        options: The thresholds.
    """
    follows = _above(found.means["follows"], options.min_following)
    ignores = _below(found.means["flips"], options.max_flips)
    specificity = found.shares.get("specificity", NOTHING)
    specific = _above(specificity, options.min_specificity)
    if specific is not False:
        enough = specificity.value >= options.min_specificity
        specific = True if enough and found.corrected <= options.alpha else None
    moved = _above(found.shares.get("background", NOTHING), options.max_background)
    return Judged(_verdict(follows, ignores, specific, moved), follows, ignores, specific, moved)


def _verdict(
    follows: bool | None, ignores: bool | None, specific: bool | None, moved: bool | None
) -> Verdict:
    if ignores:
        return Verdict.RESTS_ON_TEXT
    if follows and specific and moved is False:
        return Verdict.RESTS_ON_REGION
    if follows and (specific is False or moved):
        return Verdict.RESTS_ON_IMAGE
    return Verdict.INCONCLUSIVE


def _above(found: Estimate, threshold: float) -> bool | None:
    """Whether a number is above a threshold.

    None where its interval holds it, or there is none, or too few groups are behind it.
    """
    if np.isnan(found.value) or found.groups < _FEWEST:
        return None
    if found.low > threshold:
        return True
    return False if found.high < threshold else None


def _below(found: Estimate, threshold: float) -> bool | None:
    above = _above(found, threshold)
    return None if above is None else not above
