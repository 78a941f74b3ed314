"""What the answers under all conditions say: numbers per sample, and per task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis._estimates import Estimate, Resampled
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis._sweeps.effects import sign_flip_p
from vlmlens_plugins.analysis.evidence.cases import Case
from vlmlens_plugins.analysis.evidence.conditions import (
    BACKGROUND,
    CONDITIONS,
    DIFFERENT,
    FULL,
    HIDDEN,
    HINT,
    KEPT,
    NONE,
    RANDOM,
    RIGHT_HINT,
    SAME,
    WRONG_HINT,
    Answers,
)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scores:
    """One sample under all conditions.

    Args:
        score: By condition, how much likelier the right answer is than its strongest rival with
            the full image, in nats (without choices: its log-probability), the mean over fills
            and places; NaN where the sample lacks the condition.
        says: By condition, the numbers of the answers that are most probable, one for each fill
            or place; empty where the sample lacks the condition, or there is only one answer.
        places: The score with each random region hidden.
        rival: The number of the strongest rival; None without choices.
    """

    score: Mapping[str, float]
    says: Mapping[str, Sequence[int]]
    places: Sequence[float]
    rival: int | None

    def of(self, condition: str) -> float:
        """The score under a condition; NaN where there is none."""
        return self.score.get(condition, np.nan)

    def share(self, condition: str, answer: int | None) -> float:
        """The share of fills with which an answer is given; NaN where the condition is lacking."""
        said = self.says.get(condition, ())
        return np.nan if not said or answer is None else float(np.mean([s == answer for s in said]))


def scores(case: Case, answers: Answers) -> Scores:
    """The scores of one sample."""
    label, rival = case.label, None
    if case.known.sample.choices:
        others = np.delete(np.arange(len(case.answers)), label)
        rival = int(others[answers[FULL][0][others].argmax()]) if len(others) else None
    found = {name: [_score(logs, label, rival) for logs in each] for name, each in answers.items()}
    return Scores(
        score={name: float(np.mean(values)) for name, values in found.items()},
        says={
            name: [int(logs.argmax()) for logs in each if len(logs) > 1]
            for name, each in answers.items()
        },
        places=found.get(RANDOM, ()),
        rival=rival,
    )


def _score(logs: Floats, label: int, rival: int | None) -> float:
    return float(logs[label] if rival is None else logs[label] - logs[rival])


@dataclass(frozen=True, slots=True)
class Quantities:
    """Numbers of some samples, float64 `[samples]` each; NaN where a sample lacks a condition.

    Scores are in nats, the rest are shares from 0 to 1.

    Args:
        effect: What the image does: s(full) - s(none).
        prior: s(none).
        need: s(full) - s(region hidden).
        enough: s(only the region) - s(none).
        random: s(full) - s(random region hidden), the mean over places.
        specificity: need - random.
        background: s(full) - s(other background).
        right: 1 where the answer to the full image is right.
        blind: 1 where it is right without an image.
        follows: Of those right: 1 where the answer to the image with another answer is its.
        flips: 1 where the image with another answer changes the answer.
        keeps: Of those right: 1 where the image with the same answer leaves it.
        to_background: 1 where the answer is the one of the sample whose background it is.
        pull: 1 where a wrong hint moves the answer to it; NaN where it was that one before.
        hint_alone: 1 where a hint alone is followed.
        vision: Share of the two conflicts of image and hint that the image wins; `text` those
            that the hint wins, `neither` the rest.
    """

    effect: Floats
    prior: Floats
    need: Floats
    enough: Floats
    random: Floats
    specificity: Floats
    background: Floats
    right: Floats
    blind: Floats
    follows: Floats
    flips: Floats
    keeps: Floats
    to_background: Floats
    pull: Floats
    hint_alone: Floats
    vision: Floats
    text: Floats
    neither: Floats

    @classmethod
    def of(cls, cases: Sequence[Case], every: Sequence[Scores]) -> Quantities:
        """The numbers of some samples."""
        rows = [_quantities(*pair) for pair in zip(cases, every, strict=True)]
        return cls(
            **{one.name: np.array([row[one.name] for row in rows], float) for one in fields(cls)}
        )


def _quantities(case: Case, found: Scores) -> dict[str, float]:
    label, other, wrong = case.label, case.other, case.wrong
    full, none, before = found.of(FULL), found.of(NONE), next(iter(found.says[FULL]), None)
    need, random = full - found.of(HIDDEN), full - found.of(RANDOM)
    right = before == label
    conflicts: list[tuple[str, int | None, int | None]] = [(WRONG_HINT, label, wrong)]
    if RIGHT_HINT in found.says:
        conflicts.append((RIGHT_HINT, other, label))
    vision, text = (
        float(np.mean([found.share(name, pair[k]) for name, *pair in conflicts])) for k in (0, 1)
    )
    from_background = None
    if case.background is not None and case.background.label in case.answers:
        from_background = case.answers.index(case.background.label)
    return {
        "effect": full - none,
        "prior": none,
        "need": need,
        "enough": found.of(KEPT) - none,
        "random": random,
        "specificity": need - random,
        "background": full - found.of(BACKGROUND),
        "right": found.share(FULL, label),
        "blind": found.share(NONE, label),
        "follows": found.share(DIFFERENT, other) if right else np.nan,
        "flips": 1 - found.share(DIFFERENT, before),
        "keeps": found.share(SAME, label) if right else np.nan,
        "to_background": found.share(BACKGROUND, from_background)
        if from_background not in (label, None)
        else np.nan,
        "pull": found.share(WRONG_HINT, wrong) if before != wrong else np.nan,
        "hint_alone": found.share(HINT, wrong),
        "vision": vision,
        "text": text,
        "neither": 1 - vision - text,
    }


@dataclass(frozen=True, slots=True)
class TaskNumbers:
    """The numbers of one task.

    Args:
        name: The task.
        rows: The numbers of its samples.
        scores: Their scores.
        quantities: Of its samples.
        means: Each quantity's mean.
        shares: `need`, `enough`, `random`, `specificity` and `background` as shares of the mean
            effect of the image over the same samples; empty where that is not above 0.
        p: Two-sided, of no difference between the region and random ones, by flipping signs of
            groups; NaN without regions. `corrected`: by Holm over tasks.
        conditions: By condition, the mean score and the accuracy, with the number of samples.
        left: By condition, (s - s(none)) / (s(full) - s(none)) of the mean scores of those samples
            that have it; empty where the image does nothing for them.
    """

    name: str
    rows: Sequence[int]
    scores: Sequence[Scores]
    quantities: Quantities
    means: Mapping[str, Estimate]
    shares: Mapping[str, Estimate]
    p: float
    conditions: Mapping[str, tuple[Estimate, Estimate]]
    left: Mapping[str, float]
    corrected: float = np.nan

    @property
    def preference(self) -> float:
        """(vision - text) / (vision + text): 1 is the image, -1 the hint; NaN where neither is."""
        vision, text = self.means["vision"].value, self.means["text"].value
        return (vision - text) / (vision + text) if vision + text > 0 else np.nan


_SHARES = ("need", "enough", "random", "specificity", "background")
_RATES = frozenset(
    {
        "right", "blind", "follows", "flips", "keeps", "to_background", "pull", "hint_alone",
        "vision", "text", "neither",
    }
)  # fmt: skip


def numbers(
    name: str,
    rows: Sequence[int],
    cases: Sequence[Case],
    every: Sequence[Scores],
    *,
    draws: int,
    seed: int,
) -> TaskNumbers:
    """The numbers of a task.

    Args:
        name: The task.
        rows: Its samples, as numbers of `cases`.
        cases: All cases.
        every: Their scores.
        draws: Bootstrap resamples.
        seed: Of these, and of the test.
    """
    own, found = [cases[i] for i in rows], [every[i] for i in rows]
    quantities = Quantities.of(own, found)
    groups = [case.known.sample.split_group for case in own]
    resampled = Resampled(groups, draws, generator(seed, "evidence-intervals", name))
    means = {
        one.name: (resampled.share if one.name in _RATES else resampled.mean)(
            getattr(quantities, one.name)
        )
        for one in fields(quantities)
    }
    values = {quantity: getattr(quantities, quantity) for quantity in _SHARES}
    left = {each: np.array([one.of(each) for one in found]) - quantities.prior
            for each in CONDITIONS}  # fmt: skip
    differences = resampled.sums(quantities.specificity)
    tested = np.isfinite(quantities.specificity).any()
    p = sign_flip_p(differences[None], generator(seed, "evidence-signs", name))[0]
    return TaskNumbers(
        name,
        rows,
        found,
        quantities,
        means,
        _of_effect(values, quantities.effect, resampled),
        float(p) if tested else np.nan,
        {name: _condition(name, own, found, resampled) for name in CONDITIONS},
        {k: v.value for k, v in _of_effect(left, quantities.effect, resampled).items()},
    )


def _of_effect(
    several: Mapping[str, Floats], effect: Floats, resampled: Resampled
) -> dict[str, Estimate]:
    """Values `[samples]` as shares of what the image does for the same samples.

    Left out are those of samples for which it is not shown to do anything.
    """
    found = {}
    for name, values in several.items():
        scale = np.where(np.isfinite(values), effect, np.nan)
        whole = resampled.mean(scale)
        if (whole.low if whole.groups > 1 else whole.value) > 0:
            found[name] = resampled.ratio(values, scale)
    return found


def _condition(
    name: str, cases: Sequence[Case], every: Sequence[Scores], resampled: Resampled
) -> tuple[Estimate, Estimate]:
    score = np.array([one.of(name) for one in every])
    right = [one.share(name, case.label) for case, one in zip(cases, every, strict=True)]
    return resampled.mean(score), resampled.share(np.array(right, float))
