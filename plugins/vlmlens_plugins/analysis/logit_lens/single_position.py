"""Groups with one position per sample: their readings, by task."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._columns import short_names
from vlmlens_plugins.analysis._label_tokens import LabelTokens
from vlmlens_plugins.analysis._results import slug
from vlmlens_plugins.analysis._tasks import rows_by_task
from vlmlens_plugins.analysis.logit_lens.positions import Group, Rows, nothing_finite
from vlmlens_plugins.analysis.logit_lens.readings import Placed, Reader, Readings
from vlmlens_plugins.analysis.logit_lens.vocabulary import Ints


@dataclass(frozen=True)
class Lens:
    """Everything that was read of a group with one position per sample.

    Args:
        group: Its columns.
        samples: The run's samples.
        readings: A position per sample, with its top token only and no probability of that.
        shown: Complete readings of the samples that are shown, by number.
        k: How many top tokens these have.
        words: The chosen words.
        labels: What is known of the samples' labels.
    """

    group: Group
    samples: Sequence[Sample]
    readings: Readings
    shown: Mapping[int, Readings]
    k: int
    words: tuple[str, ...]
    labels: LabelTokens

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns read, in order of depth."""
        return self.group.columns

    @property
    def stem(self) -> str:
        """What names of tables and figures begin with."""
        return "lens" if self.group.name == "last" else f"lens-{slug(self.group.name)}"

    @cached_property
    def tasks(self) -> dict[str, Ints]:
        """Sample numbers per task, in order of appearance."""
        return {task: np.array(rows) for task, rows in rows_by_task(self.samples).items()}

    @cached_property
    def settled(self) -> Ints:
        """int64 `[n]`: the layer from which the answer stays top-1; see `settling`."""
        return self.readings.settled

    def median_settling(self, rows: Ints) -> int:
        """The least layer by which at least half of the samples have settled."""
        return int(np.quantile(self.settled[rows], 0.5, method="inverted_cdf"))

    def layer_name(self, number: int) -> str | None:
        """A layer's short name; None behind the last."""
        names = short_names(self.columns)
        return names[number] if number < len(names) else None

    def labelled(self, rows: Ints) -> Ints:
        """Those of some samples whose label is told by its first token."""
        found: Ints = rows[self.readings.label_rank[0, rows] > 0]
        return found


def finite_lens(lens: Lens) -> tuple[Lens, list[int]]:
    """The samples whose numbers are finite: what was read of them, and their numbers before.

    Raises:
        CompositionError: There is none.
    """
    known = lens.readings.finite
    places = np.flatnonzero(known)
    kept: list[int] = places.tolist()
    if known.all():
        return lens, kept
    if not kept:
        raise nothing_finite(lens.group)
    labels = lens.labels
    found = replace(
        lens,
        samples=[lens.samples[i] for i in kept],
        readings=lens.readings.take(places),
        shown={place: lens.shown[i] for place, i in enumerate(kept) if i in lens.shown},
        labels=LabelTokens(labels.tokens[places], labels.shared[places], labels.longer[places]),
    )
    return found, kept


def read_single(
    reader: Reader,
    parts: Iterable[Rows],
    labels: Ints,
    *,
    same: int | None,
    shown: Collection[int],
    progress: Callable[[int], None],
) -> tuple[Readings, dict[int, Readings]]:
    """Readings of a group with one position per sample: see `Lens.readings` and `Lens.shown`."""
    kept: dict[int, Readings] = {}
    found = Placed(len(labels))
    for part in parts:
        places = np.array(part.samples)
        read = reader.read(part.layers, part.final, labels[places], same=same)
        kept |= {n: read.take(slice(i, i + 1)) for i, n in enumerate(part.samples) if n in shown}
        found.put(places, read.of_top_token())
        progress(found.done)
    return found.readings, kept
