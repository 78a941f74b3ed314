"""Where the peak of each sample's map should lie."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._key_regions import Wanted, check_regions, key_regions
from vlmlens_plugins.analysis._maps.pointing import Region


def regions_for(samples: Sequence[Sample], wanted: Wanted) -> list[Region | None]:
    """The key region of each sample; None where it is not known. See `key_regions`.

    Args:
        samples: The samples.
        wanted: See `Wanted`.

    Raises:
        MissingAnnotation: A region is wanted, and no sample has any.
        SpecError: The wanted region is in no sample of the task.
        DataError: The regions of a sample cannot be used, or it names one that it does not have.
        ImageError: An image or a mask cannot be read.
    """
    names = key_regions(samples, wanted)
    for sample, own in zip(samples, names, strict=True):
        check_regions(sample, own)
    return [
        Region.of(sample, own) if own else None for sample, own in zip(samples, names, strict=True)
    ]
