"""Pairs: two samples that differ in one thing, each with its own right answer.

The samples of a pair are ordinary samples of a run. Their attributes `pair` (a name, the same for
both) and `role` ("clean" or "corrupted") say that they belong together, and the label of each is
its right answer. `pairs_of` finds pairs and needs no model; `aligned` keeps those of which a model
reads the same rows, so that a row of one sample can take the place of a row of the other.

Example:
    >>> cat = Sample("1", "A cat?", label="yes", attributes={"pair": "cat", "role": "clean"})
    >>> dog = Sample("2", "A dog?", label="no", attributes={"pair": "cat", "role": "corrupted"})
    >>> pairs, dropped = pairs_of([cat, dog])
    >>> pairs[0].answers, dropped
    (('yes', 'no'), [])
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from vlmlens._display import brief
from vlmlens.errors import DataError, MissingAnnotation
from vlmlens.samples import ImageRules, Sample

if TYPE_CHECKING:
    from vlmlens.passes.batch import Batch
    from vlmlens.passes.model import EncodingModel
    from vlmlens.tokens import PatchGrid, TokenLayout

__all__ = ["ROLES", "Dropped", "Pair", "aligned", "pairs_of", "said"]

ROLES: Final = ("clean", "corrupted")
_TOGETHER = 8
_BOX_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Pair:
    """Two samples that differ in one thing, with the right answer of each.

    Args:
        id: The pair's name; where several pairs have it (one per task), the clean sample's id.
        clean: The sample as it is.
        corrupted: The changed one.
    """

    id: str
    clean: Sample
    corrupted: Sample

    @property
    def answers(self) -> tuple[str, str]:
        """The right answers of the clean and of the corrupted sample."""
        return str(self.clean.label), str(self.corrupted.label)

    @property
    def task(self) -> str | None:
        """The type of the question."""
        return self.clean.task

    @property
    def group(self) -> str:
        """What resampling splits by: the clean sample's group, by default its images."""
        return self.clean.split_group

    def __repr__(self) -> str:
        return brief(self, self.id, f"{self.answers[0]!r}, corrupted {self.answers[1]!r}")


@dataclass(frozen=True, slots=True)
class Dropped:
    """A pair that is left out, and why: "same answer", "12 and 13 tokens"."""

    pair: str
    reason: str


def pairs_of(samples: Iterable[Sample]) -> tuple[list[Pair], list[Dropped]]:
    """The pairs among samples, in the order in which they begin.

    Samples without the attribute `pair` are passed over. Of a pair with the same prompts, the
    images are decoded and compared: two files may show the same pixels.

    Args:
        samples: The samples of a run. Where several prompts are asked of a pair, each is a pair of
            its own, told apart by its task.

    Returns:
        The pairs, and those that are left out: a sample or an answer is missing, or the two do not
        differ.

    Raises:
        MissingAnnotation: No sample belongs to a pair.
        DataError: A sample of a pair has another role than "clean" and "corrupted".
        ImageError: An image is missing or cannot be read.
    """
    found = list(_groups(samples))
    if not found:
        raise MissingAnnotation(
            "No sample belongs to a pair, but a clean and a corrupted sample with the right answer "
            "of each are needed.",
            subject="pair",
            hint="Use --data demo:pairs, a file pairs.jsonl, or a table with the columns pair, "
            "role (clean or corrupted) and answer. docs/data.md shows both.",
        )
    pairs, dropped = [], []
    for (_, members), name in zip(found, _names(found), strict=True):
        reason = _fault(members)
        if reason is None:
            clean, corrupted = sorted(members, key=_role)
            pairs.append(Pair(name, clean, corrupted))
        else:
            dropped.append(Dropped(name, reason))
    return pairs, dropped


def aligned(
    vlm: EncodingModel, pairs: Sequence[Pair], *, batch_size: int = _TOGETHER
) -> tuple[list[Pair], list[Dropped]]:
    """The pairs whose samples have the same rows in a model; they are encoded, and not run.

    On every axis, the two samples must have as many rows, of the same kinds, and image rows that
    lie at the same places of their images.

    Args:
        vlm: The model, or its skeleton.
        pairs: The pairs.
        batch_size: How many pairs are encoded together.
    """
    kept, dropped = [], []
    for start in range(0, len(pairs), batch_size):
        some = pairs[start : start + batch_size]
        batch = vlm.encode([sample for pair in some for sample in (pair.clean, pair.corrupted)])
        for number, pair in enumerate(some):
            reason = _misaligned(batch, 2 * number)
            if reason is None:
                kept.append(pair)
            else:
                dropped.append(Dropped(pair.id, reason))
    return kept, dropped


def said(dropped: Sequence[Dropped], of: int | None = None) -> str:
    """What is left out and why, as a sentence; "" where nothing is.

    Args:
        dropped: The pairs that are left out.
        of: How many pairs there were.

    >>> said([Dropped("a", "12 and 13 tokens"), Dropped("b", "9 and 8 tokens")], of=24)
    '2 of 24 pairs are left out: 2 with other token counts.'
    """
    if not dropped:
        return ""
    total = len(dropped) if of is None else of
    number = f"{len(dropped)}" if of is None else f"{len(dropped)} of {of}"
    noun = "pair" if total == 1 else "pairs"
    verb = "is" if len(dropped) == 1 else "are"
    kinds = Counter(_in_words(each.reason) for each in dropped)
    counts = ", ".join(f"{times} {kind}" for kind, times in kinds.most_common())
    return f"{number} {noun} {verb} left out: {counts}."


_Group = tuple[str, list[Sample]]


def _groups(samples: Iterable[Sample]) -> Iterator[_Group]:
    """What belongs together: the pair's name, and its samples of one task."""
    by_name: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        name = sample.attributes.get("pair")
        if name is not None and name != "":
            by_name[str(name)].append(sample)
    for name, members in by_name.items():
        if len(members) == len(ROLES) == len({_role(sample) for sample in members}):
            yield name, members
            continue
        by_task: dict[str | None, list[Sample]] = defaultdict(list)
        for sample in members:
            by_task[sample.task].append(sample)
        yield from ((name, some) for some in by_task.values())


def _names(groups: Sequence[_Group]) -> list[str]:
    """A name per pair, each once."""
    times = Counter(name for name, _ in groups)
    ids = [min(members, key=_role).id for _, members in groups]
    names = [name if times[name] == 1 else one for (name, _), one in zip(groups, ids, strict=True)]
    return names if len(set(names)) == len(names) else ids


def _role(sample: Sample) -> str:
    role = sample.attributes.get("role")
    if role not in (*ROLES, None, ""):
        raise DataError(
            f"Sample {sample.id!r} of the pair {sample.attributes['pair']!r} has the role "
            f"{role!r}.",
            subject=sample.id,
            hint="The roles are 'clean' and 'corrupted'.",
        )
    return str(role or "")


def _fault(members: Sequence[Sample]) -> str | None:
    """Why samples with the name of one pair are no pair; None where they are one."""
    roles = Counter(map(_role, members))
    if roles[""]:
        return "no role"
    for role in ROLES:
        if roles[role] != 1:
            return f"{roles[role]} {role} samples" if roles[role] else f"no {role} sample"
    return _likeness(*members)


def _likeness(one: Sample, other: Sample) -> str | None:
    """Why two samples differ in too little or too much, if they do."""
    for name in ("task", "choices"):
        if getattr(one, name) != getattr(other, name):
            return f"other {name}"
    if not one.label or not other.label:
        return "no answer"
    if one.label == other.label:
        return "same answer"
    return "same pixels and prompt" if _look_alike(one, other) else None


def _look_alike(one: Sample, other: Sample) -> bool:
    """Whether a model would see no difference."""
    if one.prompt != other.prompt or len(one.images) != len(other.images):
        return False
    if one.attributes.get("boxes") != other.attributes.get("boxes"):
        return False
    if one.images == other.images and one.rules == other.rules:
        return True
    files = (_files(one), _files(other))
    if files[0] is None or files[1] is None:
        return same_pixels(one, other)
    return _same_pixels_of_files(files[0], files[1])


class _Files(NamedTuple):
    """The image files of a sample; another time or size means that a file was changed."""

    sample: str
    images: tuple[str, ...]
    stamps: tuple[tuple[int, int], ...]
    rules: ImageRules


def _files(sample: Sample) -> _Files | None:
    """The files that are compared once only; None where an image is in memory, or missing."""
    paths = tuple(image for image in sample.images if isinstance(image, str))
    if len(paths) < len(sample.images) or not all(map(os.path.isfile, paths)):
        return None
    found = [Path(path).stat() for path in paths]
    stamps = tuple((each.st_mtime_ns, each.st_size) for each in found)
    return _Files(sample.id, paths, stamps, sample.rules)


@lru_cache(maxsize=100_000)
def _same_pixels_of_files(one: _Files, other: _Files) -> bool:
    samples = (Sample(each.sample, "", each.images, rules=each.rules) for each in (one, other))
    return same_pixels(*samples)


def same_pixels(one: Sample, other: Sample) -> bool:
    """Whether two samples with as many images show the same, pixel by pixel.

    Raises:
        ImageError: An image is missing or cannot be read.
    """
    shown = zip(one.open_images(), other.open_images(), strict=True)
    return all(a.size == b.size and a.tobytes() == b.tobytes() for a, b in shown)


def _misaligned(batch: Batch, first: int) -> str | None:
    """Why the samples `first` and `first + 1` of a batch differ in their rows, if they do."""
    for axis in sorted(batch.layouts, key=lambda axis: axis.value != "llm"):
        one, other = batch.layout(first, axis), batch.layout(first + 1, axis)
        if len(one) != len(other):
            rows = "tokens" if axis.value == "llm" else f"rows of the {axis.value} axis"
            return f"{len(one)} and {len(other)} {rows}"
        if (one.kinds != other.kinds).any():
            return "other kinds of tokens"
        if not _same_grid(one, other):
            return "other grid"
    return None


def _same_grid(one: TokenLayout, other: TokenLayout) -> bool:
    if one.patches is None or other.patches is None:
        return one.patches is other.patches
    return _equal_grids(one.patches, other.patches)


def _equal_grids(one: PatchGrid, other: PatchGrid) -> bool:
    import numpy as np

    places = ("image", "row", "col", "rows", "cols")
    return (
        one.view == other.view
        and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in places)
        and np.allclose(one.box, other.box, rtol=0, atol=_BOX_TOLERANCE, equal_nan=True)
    )


_WORDS = (
    (r"\d+ and \d+ .*", "with other token counts"),
    (r"\d+ (clean|corrupted) samples", r"with several \1 samples"),
    (r"no (clean|corrupted) sample", r"without a \1 sample"),
    (r"no role", "with a sample without a role"),
    (r"no answer", "without an answer"),
    (r"(same .*)", r"with the \1"),
    (r"other (grid|task)", r"with another \1"),
    (r"(other .*)", r"with \1"),
)
"""Reasons, and how they are said of several pairs."""


def _in_words(reason: str) -> str:
    for pattern, words in _WORDS:
        if found := re.fullmatch(pattern, reason):
            return found.expand(words)
    return f"({reason})"
