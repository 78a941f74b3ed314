"""What texts say, and what is there: the counts behind CHAIR."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from vlmlens.errors import DataError, MissingAnnotation
from vlmlens.regions import ATTRIBUTE, regions_of
from vlmlens.samples import Sample
from vlmlens_plugins.object_names import Mention, ObjectNames

OBJECTS = "objects"
"""The attribute with a sample's true objects, a JSON list of names."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Caption:
    """A text about a sample.

    Args:
        sample: The sample.
        text: The text.
        there: The objects that are there.
        names: The table of names.
    """

    sample: Sample
    text: str
    there: frozenset[str]
    names: ObjectNames

    @cached_property
    def mentions(self) -> list[Mention]:
        """All objects that the text names, in order; repeated ones, too."""
        return self.names.mentions(self.text)

    @cached_property
    def hallucinated(self) -> list[Mention]:
        """The mentions of objects that are not there."""
        return [one for one in self.mentions if not self.names.is_true(one.object, self.there)]

    @cached_property
    def named(self) -> frozenset[str]:
        """The objects that are there and are named."""
        said = {one.object for one in self.mentions}
        return frozenset(one for one in self.there if self.names.is_named(one, said))

    @property
    def counts(self) -> list[int]:
        """Hallucinated mentions, mentions, texts with a hallucination, 1, named, there."""
        wrong = len(self.hallucinated)
        return [wrong, len(self.mentions), int(wrong > 0), 1, len(self.named), len(self.there)]


def true_objects(
    samples: Sequence[Sample], names: ObjectNames
) -> tuple[dict[str, frozenset[str]], list[str]]:
    """The objects that are there, by sample id; and what to tell the user.

    They are those of the attribute `objects`, else the names of its regions. Samples with neither
    are left out.

    Raises:
        MissingAnnotation: No sample has any.
        DataError: The attribute is no JSON list of names.
    """
    found: dict[str, frozenset[str]] = {}
    strange: dict[str, int] = {}
    for sample in samples:
        listed = _listed(sample)
        if listed is None:
            continue
        known = [names.object_of(name) for name in listed]
        for name, one in zip(listed, known, strict=True):
            if one is None:
                strange[name] = strange.get(name, 0) + 1
        found[sample.id] = frozenset(filter(None, known))
    if not any(found.values()):
        some = f", for example {next(iter(strange))!r}" if strange else ""
        raise MissingAnnotation(
            "No sample says which objects of the table are there"
            + (f": their names are not in the table{some}." if strange else "."),
            subject=OBJECTS,
            hint=f'Give the samples an attribute {OBJECTS}, a JSON list such as ["dog", "cup"], or '
            "regions with the objects' names; and name your objects with "
            "analysis.captions.objects=FILE.",
        )
    told = []
    if len(found) < len(samples):
        missing = len(samples) - len(found)
        told.append(
            f"{missing} of {len(samples)} samples are left out: they say nothing of their objects."
        )
    if strange:
        often = max(strange, key=lambda name: (strange[name], name))
        told.append(
            f"{len(strange)} names of true objects are not in the table and count for nothing, "
            f"for example {often!r} of {strange[often]} samples."
        )
    return found, told


def _listed(sample: Sample) -> list[str] | None:
    value = sample.attributes.get(OBJECTS)
    if value is None or value == "":
        regions = sample.attributes.get(ATTRIBUTE)
        return None if not regions else list(regions_of(regions, sample.id))
    try:
        data = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, list) or not all(isinstance(one, str) for one in data):
        raise DataError(
            f"The objects of the sample {sample.id!r} are no JSON list of names: {value!r}.",
            subject=sample.id,
            hint='Write, for example, ["dog", "cup"].',
        )
    return data
