"""Independent units of samples and labels, for one column: a group with one label counts once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._separating import Target, usual
from vlmlens_plugins.analysis.sae.peaks import Peaks


@dataclass(frozen=True, slots=True)
class Units:
    """The units of one target in some samples.

    Args:
        target: What features may separate.
        labels: The label of each unit; rare ones are left out.
        means: float64 sparse `[units, samples]`: makes the mean over a unit's samples.
    """

    target: Target
    labels: tuple[str, ...]
    means: csr_array

    @property
    def names(self) -> list[str]:
        """The labels that there are."""
        return usual(self.labels)

    def values(self, largest: csr_array) -> csr_array:
        """float64 sparse `[units, features]`: the largest code of a sample, over its units.

        Args:
            largest: Sparse `[samples, features]`, of `Peaks`, or some columns of it.
        """
        found: csr_array = self.means @ largest.astype(np.float64)
        return found


def units_of(
    peaks: Peaks,
    samples: Sequence[Sample],
    alike: Mapping[int, Sequence[int]],
    targets: Sequence[Target],
) -> list[Units]:
    """The units of each target that has two labels.

    Args:
        peaks: Of the samples.
        samples: All samples of the run.
        alike: By the number of a sample, all samples with the same rows, whose labels it has.
        targets: What features may separate.
    """
    made = [_units(peaks, samples, alike, target) for target in targets]
    return [each for each in made if len(each.names) > 1]


def _units(
    peaks: Peaks,
    samples: Sequence[Sample],
    alike: Mapping[int, Sequence[int]],
    target: Target,
) -> Units:
    found: dict[tuple[str, str], set[int]] = {}
    for place, number in enumerate(peaks.samples):
        for each in alike.get(number, (number,)):
            label = target.labels[each]
            if label is not None and peaks.rows[place]:
                found.setdefault((samples[each].split_group, label), set()).add(place)
    kept = set(usual([label for _, label in found]))
    found = {key: places for key, places in found.items() if key[1] in kept}
    rows = [i for i, places in enumerate(found.values()) for _ in places]
    columns = [place for places in found.values() for place in sorted(places)]
    weights = [1 / len(places) for places in found.values() for _ in places]
    shape = len(found), len(peaks.samples)
    means = csr_array((np.array(weights), (rows, columns)), shape=shape)
    return Units(target, tuple(label for _, label in found), means)
