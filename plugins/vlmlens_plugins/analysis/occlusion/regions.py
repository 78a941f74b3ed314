"""Where the peak of each sample's map should lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlmlens.errors import MissingAnnotation
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._maps.pointing import Region
from vlmlens_plugins.analysis.evidence.regions import check_regions, key_regions, regions_in


def regions_for(
    samples: Sequence[Sample], wanted: str | Mapping[str, str] | None
) -> list[Region | None]:
    """The key region of each sample; None where it is not known. See `key_regions`.

    Args:
        samples: The samples.
        wanted: A name, several joined by +, or `*` for all; or such a text by task.

    Raises:
        MissingAnnotation: A region is wanted, and no sample has any.
        SpecError: The wanted region is in no sample of the task.
        DataError: The regions of a sample cannot be used, or it names one that it does not have.
        ImageError: An image or a mask cannot be read.
    """
    if not any(regions_in(sample) for sample in samples):
        if wanted is None:
            return [None] * len(samples)
        raise MissingAnnotation(
            f"The peak should lie in the region {wanted!r}, and no sample has any regions.",
            subject="region",
            hint='Give samples an attribute `regions`: {"NAME": [left, top, right, bottom]}, in '
            "pixels; see docs/extraction.md. Or leave region out.",
        )
    names = key_regions(samples, wanted)
    for sample, own in zip(samples, names, strict=True):
        check_regions(sample, own)
    return [
        Region.of(sample, own) if own else None for sample, own in zip(samples, names, strict=True)
    ]
