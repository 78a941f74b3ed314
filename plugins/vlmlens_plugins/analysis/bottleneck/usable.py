"""Which samples the analysis can use."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._tasks import ALL, first_of_tasks
from vlmlens_plugins.analysis.bottleneck.options import BottleneckOptions


def usable(
    samples: Sequence[Sample], options: BottleneckOptions, *, closed: bool = False
) -> tuple[list[Sample], list[str]]:
    """The samples with a label and an image, at most so many of each task; and what is left out.

    Args:
        samples: All samples.
        options: How many of each task.
        closed: Whether only questions with choices can be used.
    """
    asked = [one for one in samples if options.task in (None, one.task or ALL)]
    labelled = [sample for sample in asked if sample.label is not None and sample.images]
    possible = [one for one in labelled if not one.choices or str(one.label) in one.choices]
    known = [sample for sample in possible if sample.choices or not closed]
    said = []
    for kept, before, why in (
        (labelled, asked, "without label or image"),
        (possible, labelled, "their label is not among their choices"),
        (known, possible, "they have no choices, which is all that this model compares"),
    ):
        if len(kept) < len(before):
            lost = len(before) - len(kept)
            said.append(f"{lost} of {len(asked)} samples are left out: {why}.")
    used, unused = first_of_tasks(known, options.samples, "bottleneck")
    return used, said + unused
