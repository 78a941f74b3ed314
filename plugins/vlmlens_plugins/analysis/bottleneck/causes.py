"""The cause of each error: where the fact is lost, or what outweighs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from vlmlens_plugins.analysis.bottleneck.reading import Question, StageRead, Status
from vlmlens_plugins.analysis.bottleneck.work import STAGES


class Cause(StrEnum):
    """Where an error comes from."""

    EYE = "eye"
    ALIGNMENT = "alignment"
    LANGUAGE = "language"
    REASONING = "reasoning"
    PRIOR = "prior"
    UNTOLD = "not told apart"

    @property
    def meaning(self) -> str:
        """What it says."""
        return _MEANINGS[self]


_MEANINGS = {
    Cause.EYE: "the fact is not readable in the vision tower",
    Cause.ALIGNMENT: "the fact is readable in the vision tower and not after the projector",
    Cause.LANGUAGE: "the fact is readable after the projector and is not said",
    Cause.REASONING: "the answer is wrong from a true description, too",
    Cause.PRIOR: "the image moves the answer towards the label, and the blind answer outweighs it",
    Cause.UNTOLD: "several causes are possible",
}

NOT_CARRIED = "not readable in the last row"
NOT_SAID = "readable in the last row"

_LOST_AFTER: Mapping[int, tuple[Cause, str]] = {
    0: (Cause.EYE, ""),
    1: (Cause.ALIGNMENT, ""),
    2: (Cause.LANGUAGE, NOT_CARRIED),
    3: (Cause.LANGUAGE, NOT_CARRIED),
    4: (Cause.LANGUAGE, NOT_SAID),
}
"""By the number of stages that the fact reaches."""


@dataclass(frozen=True, slots=True)
class Attributed:
    """The cause of an error.

    Args:
        cause: The cause.
        detail: Of language: whether the last row holds the fact. Of errors that are not told
            apart: the causes that are left.
    """

    cause: Cause
    detail: str = ""


def lost_at(seen: Mapping[str, bool | None]) -> Attributed:
    """Where a fact is lost, from what is known of it at each stage.

    What is there at a stage was there at all earlier ones, since nothing but the image tells it.

    Args:
        seen: By stage, whether the fact is there; None: not known. A stage that the model does not
            have is missing.

    >>> lost_at(dict(zip(STAGES, [True, False, False, False]))).cause.value
    'alignment'
    >>> lost_at(dict(zip(STAGES, [True, None, None, False]))).detail
    'alignment or language'
    """
    known = [seen.get(stage) for stage in STAGES]
    reached = max((k + 1 for k, there in enumerate(known) if there), default=0)
    absent = [k for k, there in enumerate(known) if there is False and k >= reached]
    most = min(absent, default=len(STAGES))
    left = [_LOST_AFTER[number] for number in range(reached, most + 1) if _told(number, seen)]
    causes = list(dict.fromkeys(cause for cause, _ in left))
    if len(causes) > 1:
        return Attributed(Cause.UNTOLD, " or ".join(cause.value for cause in causes))
    details = {detail for _, detail in left}
    return Attributed(causes[0], details.pop() if len(details) == 1 else "")


def _told(number: int, seen: Mapping[str, bool | None]) -> bool:
    """Whether a fact that reaches so many stages differs from one that reaches fewer.

    It does not where the last of these is one that the model lacks, and later ones are known.
    """
    lacks = number > 0 and STAGES[number - 1] not in seen
    return not lacks or not any(stage in seen for stage in STAGES[number:])


def seen_in(question: Question, row: int) -> dict[str, bool | None]:
    """What is known of one sample's fact at each stage.

    A stage at which the fact is readable has it where the probe reads it right. At a stage at which
    it is not readable, a right prediction is luck.

    Args:
        question: Probed or not.
        row: One of its rows.
    """
    if question.stages is None:
        return dict.fromkeys(STAGES)
    place = question.rows.index(row)
    if place not in question.probed:
        return dict.fromkeys(question.stages)
    k = question.probed.index(place)
    return {stage: _there(read, k) for stage, read in question.stages.items()}


def _there(read: StageRead, k: int) -> bool | None:
    if read.status is Status.OPEN:
        return None
    return bool(read.hits[k]) if read.status is Status.READ else False


def attributed(
    lost: Attributed, *, prior: bool | None, reasoning: bool | None, derived: bool
) -> Attributed:
    """The cause of an error.

    Args:
        lost: From `lost_at`.
        prior: Whether the image moves the answer towards the label and the blind answer outweighs
            it.
        reasoning: Whether a description that the model understands does not help, either; None:
            not known.
        derived: Whether the answer is more than the fact that probes look for. Then a fact that
            is there and is not said can lack reasoning.
    """
    if prior:
        return Attributed(Cause.PRIOR)
    if reasoning:
        return Attributed(Cause.REASONING)
    if derived and reasoning is None and lost.cause is Cause.LANGUAGE:
        return Attributed(Cause.UNTOLD, f"{Cause.LANGUAGE} or {Cause.REASONING}")
    if derived and reasoning is None and lost.cause is Cause.UNTOLD:
        return Attributed(Cause.UNTOLD, f"{lost.detail} or {Cause.REASONING}")
    return lost
