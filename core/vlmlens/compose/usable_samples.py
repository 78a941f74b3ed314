"""The samples that a run can use: their images and prompts are checked, or were checked before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vlmlens.abc.observer import SilentObserver
from vlmlens.compose.applicability import check_samples
from vlmlens.compose.image_check import Checked, bad_images_error, check_images, summary, without
from vlmlens.compose.prompt_check import readable_prompts
from vlmlens.compose.recall import Planned
from vlmlens.sample_table import SampleTable
from vlmlens.samples import BadSample

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.abc.extractor import Extractor
    from vlmlens.abc.observer import Observer
    from vlmlens.manifest import Manifest
    from vlmlens.registry import Registry
    from vlmlens.spec.model import RunSpec

_WORTH_A_STAGE = 500


@dataclass(frozen=True)
class Usable:
    """The outcome of the checks.

    Args:
        samples: The samples that can be used, with what was seen of their images.
        skipped: Those that cannot.
        notes: What is done with images that can be read in several ways.
        image_rules: The rules of `ImageRules` that matter to the images.
        states: The digest of the states of the images' files; None if it would not tell.
        said: Notes and warnings about prompts.
    """

    samples: SampleTable
    skipped: Sequence[BadSample] = ()
    notes: Sequence[str] = ()
    image_rules: Mapping[str, Any] = field(default_factory=dict)
    states: str | None = None
    said: tuple[Sequence[str], Sequence[str]] = ((), ())

    @classmethod
    def before(cls, planned: Planned, samples: SampleTable, observer: Observer) -> Usable:
        """What the checks found when the run was planned; the observer hears it again."""
        for note in (*planned.image_notes, *planned.notes):
            observer.note(note)
        for warning in planned.warnings:
            observer.warn(warning)
        said = planned.notes, planned.warnings
        return cls(samples, (), planned.image_notes, planned.image_rules, planned.states, said)

    @classmethod
    def checked(
        cls,
        spec: RunSpec,
        samples: SampleTable,
        skeleton: ModelAdapter,
        extractor: Extractor | None,
        adapter: Manifest,
        registry: Registry,
        observer: Observer,
    ) -> Usable:
        """Check all samples; `extractor` is None where there are no columns.

        Raises:
            ImageError, DataError: Some cannot be used and the user did not ask to skip them, or
                none is left, or the family or a column does not take such samples.
        """
        kept, images = _with_images(spec, samples, skeleton, observer)
        said = _Said()
        kept, unread = readable_prompts(spec, kept, skeleton, adapter, registry, said)
        said.repeat(observer)
        check_samples(skeleton, kept)
        if extractor is not None:
            extractor.check(kept)
        skipped = [*images.bad, *unread]
        states = None if skipped else images.states.digest
        return cls(kept, skipped, images.notes, images.choices, states, (said.notes, said.warnings))

    def planned(
        self, key: str | None, suggested: Mapping[str, Any], guesses: Sequence[str]
    ) -> Planned | None:
        """What the run keeps, so that it need not check them again; None: nothing.

        Args:
            key: From `recall.key_of`.
            suggested: Options of analyses that the data suggests.
            guesses: What was guessed when the data were read.
        """
        if key is None or self.states is None:
            return None
        rest = (guesses, self.notes, self.image_rules, *self.said)
        return Planned(key, self.states, suggested, *rest)


class _Said(SilentObserver):
    """Keeps notes and warnings."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def repeat(self, observer: Observer) -> None:
        """Tell it to another observer."""
        for note in self.notes:
            observer.note(note)
        for warning in self.warnings:
            observer.warn(warning)


def _with_images(
    spec: RunSpec, samples: SampleTable, skeleton: ModelAdapter, observer: Observer
) -> tuple[SampleTable, Checked]:
    """The samples whose images can be used, and what the check of all images found.

    Raises:
        ImageError: Some cannot be used and the user did not ask to skip them, or none is left.
    """
    many = len(samples) >= _WORTH_A_STAGE and any(sample.images for sample in samples)
    if many:
        observer.stage("check images", len(samples))
    checked = check_images(
        samples,
        max_pixels=spec.max_pixels,
        text_only=spec.text_only,
        encode=skeleton.encode,
        advance=observer.advance if many else None,
    )
    samples.seen = checked.seen
    for note in checked.notes:
        observer.note(note)
    bad = checked.bad
    if not bad:
        return samples, checked
    if spec.on_bad_sample == "stop":
        raise bad_images_error(bad, len(samples))
    kept = without(samples, bad)
    observer.warn(f"{summary(bad, len(samples))}\nThey are skipped.")
    return kept, checked
