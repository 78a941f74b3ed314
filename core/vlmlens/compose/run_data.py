"""The data of a run: its samples, as the run in the spec's folder knows them, or read anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmlens.compose.applicability import Asked
from vlmlens.compose.given import Given
from vlmlens.compose.recall import Planned, key_of, recall
from vlmlens.compose.sample_reading import samples_for
from vlmlens.compose.usable_samples import Usable
from vlmlens.compose.uses import may_use_model
from vlmlens.compose.video_reading import Framed, framed
from vlmlens.errors import DataError
from vlmlens.manifest import Manifest
from vlmlens.spec.model import RunSpec

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.abc.observer import Observer
    from vlmlens.registry import Registry


@dataclass(frozen=True)
class RunData:
    """What the data give.

    Args:
        spec: The spec, with the prompt that stands in where the data have none.
        clips: The samples, with the frames of their videos.
        suggests: Options of analyses that the data suggests.
        guesses: What was guessed or noted when the data were read.
        unasked: The error that there would be without the prompt that stands in.
        key: Of what the samples depend on; None if it is not known.
        planned: What the run in the spec's folder knows of them; None if they were read anew.
    """

    spec: RunSpec
    clips: Framed
    suggests: Asked
    guesses: Sequence[str]
    unasked: DataError | None = None
    key: str | None = None
    planned: Planned | None = None

    def to_keep(self, usable: Usable) -> Planned | None:
        """What a resumed run need not find out again; None: nothing."""
        if self.unasked or self.clips.skipped:
            return None
        return usable.planned(self.key, self.suggests, self.guesses)


def read_data(
    spec: RunSpec,
    registry: Registry,
    adapter: Manifest,
    data: Given | None,
    asked: Callable[[RunSpec, Asked], Asked],
    skeleton: Callable[[], ModelAdapter],
    observer: Observer,
    *,
    trust: bool,
) -> RunData:
    """The samples of a run. Videos are read unless nothing in the run looks at them.

    Args:
        spec: What the user asked for.
        registry: The installed plugins.
        adapter: The adapter's manifest.
        data: Samples in memory, instead of those that the spec names.
        asked: The analyses that a spec asks for, with what the data suggests.
        skeleton: Returns the model without weights; called if a sample has a video.
        observer: Told of the progress, and of samples that are left out.
        trust: See `compose`.

    Raises:
        DataError: Samples cannot be read; `framed` has the rest.
    """
    key = key_of(spec, adapter, registry) if data is None else None
    recalled = recall(spec, key, registry)
    if recalled is not None:
        planned, samples = recalled
        clips = Framed(samples)
        return RunData(spec, clips, planned.suggested, planned.guesses, key=key, planned=planned)
    spec, (suggests, samples, guesses), unasked = samples_for(spec, adapter, registry, data, trust)
    clips = Framed(samples)
    if not samples.videos or may_use_model(spec, asked(spec, suggests), registry, samples):
        clips = framed(spec, samples, skeleton, observer)
    return RunData(spec, clips, suggests, [*guesses, *clips.notes], unasked, key)
