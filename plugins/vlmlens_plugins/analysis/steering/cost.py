"""What steering costs, before it starts."""

from __future__ import annotations

from vlmlens.errors import SpecError
from vlmlens_plugins.analysis.steering.aims import Parts
from vlmlens_plugins.analysis.steering.options import SteeringOptions


def check_passes(
    options: SteeringOptions, parts: Parts, *, sites: int, kinds: int, batch_size: int
) -> int:
    """How many passes over a batch all of it takes.

    Args:
        options: Strengths and controls.
        parts: The samples.
        sites: How many sites there are.
        kinds: How many kinds of controls.
        batch_size: Samples in a batch.

    Raises:
        SpecError: More than the options allow.
    """
    wanted, untouched = len(parts.wanted), len(parts.untouched)
    strengths, draws = len(options.strengths), options.controls
    stages = [
        (1, len(parts.learn)),
        (sites * (strengths + kinds * draws), wanted),
        (sites * strengths, untouched),
        (len(options.acting) * draws, wanted + untouched),
    ]
    passes = sum(cells * -(-items // batch_size) for cells, items in stages)
    if passes > options.max_passes:
        raise SpecError(
            f"Steering needs {passes:,} passes over a batch of at most {batch_size} samples. "
            f"max_passes is {options.max_passes:,}.",
            subject="max_passes",
            hint="Name fewer sites or strengths, set samples, learn or controls lower, or "
            "--batch-size or max_passes higher.",
        )
    return passes
