"""The direct readout: what the vision tower's features say, without the language model."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.samples import Sample
from vlmlens_plugins.analysis.bottleneck.tuning.closing import Direct
from vlmlens_plugins.analysis.bottleneck.tuning.snapshot import Snapshot
from vlmlens_plugins.analysis.bottleneck.work import PROJECTOR, TOWER


def direct_readout(before: Snapshot, samples: Sequence[Sample]) -> Direct:
    """What a linear probe of the vision tower reads, on samples that it did not learn from.

    Where questions differ, the tower cannot know which one comes: then it is not known.

    Args:
        before: The model as it is.
        samples: The tested ones.
    """
    if len({sample.prompt for sample in samples}) > 1:
        return Direct((), "questions differ, so the tower alone cannot tell their answers")
    for stage in (TOWER, PROJECTOR):
        if stage in before.read:
            return Direct(before.read[stage], f"a linear probe of the {stage}")
    return Direct((), "the model has no vision tower that can be read")
