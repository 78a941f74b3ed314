"""What occlusion costs, before it starts."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.errors import SpecError
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._maps.curves import units_of_curves
from vlmlens_plugins.analysis._maps.sliding import units_of_windows
from vlmlens_plugins.analysis.occlusion.measured import OCCLUSION, ROWS, chosen, methods_of
from vlmlens_plugins.analysis.occlusion.options import OcclusionOptions


def check_cost(samples: Sequence[Sample], options: OcclusionOptions, sites: int = 1) -> int:
    """How many samples pass through the model at most; of long answers, each choice counts.

    Args:
        samples: The samples of the run.
        options: The options.
        sites: At how many sites rows are replaced.

    Raises:
        SpecError: More than the options allow.
    """
    methods = methods_of(options)
    total = 0
    for sample in chosen(samples, options.samples):
        images = len(sample.images)
        total += 2 + units_of_curves(len(methods) + 1 + options.controls, options.steps)
        for method in methods:
            if method in (OCCLUSION, ROWS):
                times = sites if method == ROWS else 1
                total += times * units_of_windows(images, options.grid, options.window)
            else:
                total += 1
    if total > options.max_units:
        raise SpecError(
            f"Occlusion needs up to {total:,} passes of a sample through the model, and max_units "
            f"is {options.max_units:,}.",
            subject="max_units",
            hint="Set samples, grid or steps lower, name fewer methods or sites, or set max_units "
            "higher.",
        )
    return total
