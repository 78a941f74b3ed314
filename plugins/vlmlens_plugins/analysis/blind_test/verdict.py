"""The verdict on a task: does the model use the image?"""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.results import Verdict
from vlmlens_plugins.analysis.blind_test.comparison import Comparison
from vlmlens_plugins.analysis.blind_test.exchange_test import Exchanged
from vlmlens_plugins.analysis.blind_test.options import KEEPS_SOME, BlindOptions


def judge(
    comparisons: Sequence[Comparison],
    *,
    p: float,
    follows: bool,
    exchanged: Exchanged | None,
    options: BlindOptions,
) -> Verdict:
    """Whether the model uses the image for a task.

    Where labels are known:

    - uses the image: the gain in accuracy is significant, and its share of what is answered wrong
      without the image has an interval above `min_use`;
    - partly: the gain is significant, but may be smaller; or it is not significant, but
      answers change and follow the image.

    Without labels: uses the image where answers change and follow the image. In any case:

    - ignores the image: with every blank, the intervals of the flip rate and of the mean total
      variation end below `min_flips` and `min_distance`, and one of the blanks leaves nothing of
      the image;
    - inconclusive: anything else, such as answers that change with a blank because it is strange.

    Answers *change* where, with every decisive blank, one of these two intervals lies above its
    threshold.

    Args:
        comparisons: With each kind of blank, or with one.
        p: The corrected p-value of the gain; 1 without labels.
        follows: Whether answers follow the image, see `scores.follows_image`.
        exchanged: Accuracy beside that of answers exchanged between images, where it is known.
        options: Thresholds and level.
    """
    decisive = [each for each in comparisons if each.blank in options.decisive] or comparisons
    least = [each.accuracy.use.low for each in decisive if each.accuracy is not None]
    if p <= options.alpha:
        least += [] if exchanged is None else [exchanged.use]
        return Verdict.USES_IMAGE if min(least) >= options.min_use else Verdict.PARTLY
    if follows and all(_changed(each, options) for each in decisive):
        return Verdict.PARTLY if least else Verdict.USES_IMAGE
    same = all(_same(each, options) for each in comparisons)
    empty = any(each.blank not in KEEPS_SOME for each in comparisons)
    return Verdict.IGNORES_IMAGE if same and empty else Verdict.INCONCLUSIVE


def _changed(each: Comparison, options: BlindOptions) -> bool:
    return each.flips.low > options.min_flips or each.tv.low > options.min_distance


def _same(each: Comparison, options: BlindOptions) -> bool:
    return each.flips.high < options.min_flips and each.tv.high < options.min_distance
