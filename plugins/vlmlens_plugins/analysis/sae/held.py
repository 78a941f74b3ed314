"""Samples to learn from and samples to judge: one for each picture where pictures are all."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from vlmlens._display import count
from vlmlens.errors import MissingAnnotation
from vlmlens.samples import Sample
from vlmlens.tokens import Column, TokenKind
from vlmlens_plugins.analysis._statistics import generator

_PICTURED = ("vision", "qformer", "projector")


@dataclass(frozen=True, slots=True)
class Split:
    """Numbers of samples. No group of samples stands in both.

    Args:
        learn: Samples whose rows SAEs are trained on, and features are chosen by.
        held: Samples on which everything is measured.
        alike: By the number of such a sample, all samples about the same picture, itself included.
    """

    learn: tuple[int, ...]
    held: tuple[int, ...]
    alike: dict[int, tuple[int, ...]]


def split(samples: Sequence[Sample], column: str, share: float, seed: int) -> Split:
    """Divide samples by group.

    Rows of the vision side are the same for every question about a picture, and so are image rows
    of a language model that reads the picture first: of such columns one sample per picture counts.

    Args:
        samples: The run's samples.
        column: The column.
        share: Of the groups that are held out; at least one group is in either part.
        seed: Of the division.

    Raises:
        MissingAnnotation: There are fewer than two groups of samples.
    """
    once = only_pictures(column)
    kept: dict[Hashable, list[int]] = {}
    for number, sample in enumerate(samples):
        if once and not sample.images:
            continue
        key = pictures_of(sample) if once else number
        kept.setdefault(key, []).append(number)
    alike = {numbers[0]: tuple(numbers) for numbers in kept.values()}
    groups = sorted({samples[number].split_group for number in alike})
    if len(groups) < 2:
        raise MissingAnnotation(
            f"An SAE is judged on other samples than it learns from, and the run has "
            f"{count(len(groups), 'group')} of samples with rows of {column!r}.",
            subject="samples",
            hint="Give more pictures, or name a column with rows of text (llm.block.2/text). By "
            "default samples on one image are a group.",
        )
    order = generator(seed, "sae", "split").permutation(len(groups))
    many = min(len(groups) - 1, max(1, round(share * len(groups))))
    out = {groups[i] for i in order[:many]}
    held = tuple(i for i in alike if samples[i].split_group in out)
    return Split(tuple(i for i in alike if i not in set(held)), held, alike)


def only_pictures(column: str) -> bool:
    """Whether the rows of a column are rows of images alone.

    >>> [only_pictures(name) for name in ("vision.block.1/all", "llm.norm/image", "llm.norm/all")]
    [True, True, False]
    """
    parsed = Column.parse(column)
    return parsed.site.split(".")[0] in _PICTURED or parsed.selector.kind == TokenKind.IMAGE


def pictures_of(sample: Sample) -> Hashable:
    """What tells the pictures of a sample from those of others."""
    images = tuple(image if isinstance(image, str) else id(image) for image in sample.images)
    return images if sample.video is None else (*images, sample.video.as_seen())
