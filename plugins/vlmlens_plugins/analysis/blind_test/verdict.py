"""What the numbers of a task add up to."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from vlmlens.results import Verdict
from vlmlens_plugins.analysis.blind_test.options import KEEPS_SOME, BlindOptions

if TYPE_CHECKING:
    from vlmlens_plugins.analysis.blind_test.exchange import Exchanged
    from vlmlens_plugins.analysis.blind_test.scores import Comparison


class Use(StrEnum):
    """Whether a model uses the image."""

    USES = "uses the image"
    PARTLY = "partly uses the image"
    IGNORES = "ignores the image"
    INCONCLUSIVE = "inconclusive"

    @property
    def verdict(self) -> Verdict:
        """As a finding's verdict."""
        return _VERDICTS[self]


_VERDICTS = {
    Use.USES: Verdict.USES_IMAGE,
    Use.PARTLY: Verdict.PARTLY,
    Use.IGNORES: Verdict.IGNORES_IMAGE,
    Use.INCONCLUSIVE: Verdict.INCONCLUSIVE,
}


def judge(
    comparisons: Sequence[Comparison],
    *,
    p: float,
    follows: bool,
    exchanged: Exchanged | None,
    options: BlindOptions,
) -> Use:
    """Whether the model uses the image for a task.

    Where labels are known:

    - uses the image: the gain in accuracy is significant, and its share of what is answered wrong
      without the image has an interval above `min_use`;
    - partly: the gain is significant, but not surely that large; or it is not significant, but
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
        return Use.USES if min(least) >= options.min_use else Use.PARTLY
    if follows and all(_changed(each, options) for each in decisive):
        return Use.PARTLY if least else Use.USES
    same = all(_same(each, options) for each in comparisons)
    empty = any(each.blank not in KEEPS_SOME for each in comparisons)
    return Use.IGNORES if same and empty else Use.INCONCLUSIVE


def _changed(each: Comparison, options: BlindOptions) -> bool:
    return each.flips.low > options.min_flips or each.tv.low > options.min_distance


def _same(each: Comparison, options: BlindOptions) -> bool:
    return each.flips.high < options.min_flips and each.tv.high < options.min_distance
