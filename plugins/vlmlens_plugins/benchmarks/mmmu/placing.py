"""Images of MMMU where the question and its options name them: `<image 2>`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from vlmlens._display import count
from vlmlens.errors import DataError
from vlmlens.question_text import IMAGE_MARK
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.mmmu.asked import NUMBERS

_NAMED = re.compile(r"<image (\d+)>")


@dataclass
class Placing:
    """Puts images where prompts name them, and counts what it did.

    Args:
        between: Whether images stand between the words; else they stand before the prompt, each
            once, and `<image 2>` stays as text.
    """

    between: bool
    named: int = 0
    nowhere: list[str] = field(default_factory=list)
    left_out: int = 0

    def placed(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """The samples with their images in the order in which the prompt sees them.

        Raises:
            DataError: A prompt names an image that the sample does not have.
        """
        for sample in samples:
            yield self._one(sample)

    def _one(self, sample: Sample) -> Sample:
        images = dict(zip(_numbers(sample), sample.images, strict=True))
        named = [int(number) for number in _NAMED.findall(sample.prompt)]
        if not named:
            if images:
                self.nowhere.append(sample.id)
            return sample
        self.named += 1
        self.left_out += len(set(images) - set(named))
        lacking = [number for number in named if number not in images]
        if lacking:
            raise DataError(
                f"{sample.id!r} names <image {lacking[0]}>, but has {len(images)} images.",
                subject=sample.id,
                hint="The image's column is empty, or the question belongs to another row.",
            )
        order = named if self.between else sorted(set(named))
        prompt = _NAMED.sub(IMAGE_MARK, sample.prompt) if self.between else sample.prompt
        return replace(sample, prompt=prompt, images=tuple(images[number] for number in order))

    def notes(self) -> list[str]:
        """What was done, in sentences."""
        said = []
        if self.named and self.between:
            said.append(
                f"in {count(self.named, 'prompt')} the images stand where <image 1>, ... names "
                "them; for a family whose images always stand before the prompt: "
                "--set options.dataset.images_at=before"
            )
        elif self.named:
            said.append(
                f"in {count(self.named, 'prompt')} <image 1>, ... stays as text: all images stand "
                "before it"
            )
        if self.nowhere:
            said.append(
                f"{count(len(self.nowhere), 'prompt')} without a place for images, for example "
                f"{self.nowhere[0]!r}: these stand before the prompt"
            )
        if self.left_out:
            said.append(f"left out: {count(self.left_out, 'image')} that no prompt names")
        return said


def _numbers(sample: Sample) -> list[int]:
    given = sample.attributes.get(NUMBERS)
    if isinstance(given, str):
        return [int(number) for number in json.loads(given)]
    return list(range(1, len(sample.images) + 1))
