"""Answers to one edition, for the questions of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlmlens.errors import DataError
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.pope.questions import same_question

_Key = tuple[str, str, str]


def carried_over(
    answers: Mapping[str, str], asked: Sequence[Sample], wanted: Sequence[Sample]
) -> dict[str, str]:
    """Answers by the ids of another edition, joined by split, image and question.

    Args:
        answers: By the ids of `asked`.
        asked: The questions that were answered.
        wanted: The questions that answers are wanted for.

    Returns:
        By the ids of `wanted`.

    Raises:
        DataError: An answer is missing, or two answers to the same question differ.
    """
    found: dict[_Key, str] = {}
    for sample in asked:
        if sample.id in answers:
            own = found.setdefault(key_of(sample), answers[sample.id])
            if own != answers[sample.id]:
                raise DataError(
                    f"{sample.id}: the question was asked twice and answered in two ways.",
                    subject=sample.id,
                    hint="Give one answer for each image and question.",
                )
    missing = [sample.id for sample in wanted if key_of(sample) not in found]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(wanted)} questions have no answer in the other edition, for "
            f"example {missing[0]}.",
            subject=missing[0],
            hint="The first edition lacks 90 of the random questions: take the questions that both "
            "have.",
        )
    return {sample.id: found[key_of(sample)] for sample in wanted}


def key_of(sample: Sample) -> _Key:
    """Split, image and question, without what differs between editions."""
    return (
        str(sample.attributes.get("split") or ""),
        sample.split_group,
        same_question(sample.prompt),
    )
