"""Each question with its image and with each kind of blank, as units of model work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._blank_images import handed_over, others, video_said, with_images_of
from vlmlens_plugins.analysis.blind_test.options import Blank, BlindOptions

Asked = tuple[Sample, dict[str, Any]]
"""A question as a unit has it: a sample, and arguments of `_blank_images.shown`."""


class Conditions:
    """Makes blank questions.

    Args:
        samples: All samples of the run that have images.
        options: Which blanks.
        seed: Of noise, of orders, and of whose image is another's.
        regions: Whether blank questions keep the regions of their images, as edits may need.

    Raises:
        MissingAnnotation: A sample can be shown no other's image.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        options: BlindOptions,
        seed: int,
        *,
        regions: bool = False,
    ) -> None:
        self.kinds = options.blank
        self._options = options
        self._seed = seed
        self._regions = regions
        self._others = others(samples, seed) if "other" in self.kinds else {}

    def asked(self, sample: Sample, blank: Blank | None) -> Asked:
        """The sample's question with that blank, or None: with its image."""
        if blank is None:
            return sample, {}
        if blank == "other":
            return with_images_of(sample, self._others[sample.id]), {}
        chosen = self._options
        return handed_over(
            sample,
            blank,
            self._seed,
            blur=chosen.blur,
            grid=chosen.grid,
            regions=self._regions,
        )

    def together(self, sample: Sample) -> Asked:
        """The sample's question with its image and every blank in turn, for `FirstTokens`."""
        images, blanks = sample.images, []
        for blank in self.kinds:
            if blank == "other":
                other = self._others[sample.id]
                place = {"images": [len(images), len(images) + len(other.images)]}
                blanks.append(place | video_said(other))
                images += other.images
            else:
                blanks.append(self.asked(sample, blank)[1])
        return replace(sample, images=images), {"own": len(sample.images), "blanks": blanks}
