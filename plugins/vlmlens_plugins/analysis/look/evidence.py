"""Where the evidence lies: parts of the picture are covered, and then all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.abc import AnalysisContext
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._altered import Alteration, Area, Fill, Question, altered, ask
from vlmlens_plugins.analysis._blank_images import image_sizes
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.look.answers import Answer, answers, chance
from vlmlens_plugins.analysis.look.options import BLANKS, COVERS, LookOptions
from vlmlens_plugins.analysis.look.windows import Part, highest, mapped, others, windows

Floats = npt.NDArray[np.float64]
LEAST = 0.5
"""Log-odds; a part that does less is not said to carry anything."""
LESS = 0.5
"""The answer rests on a part without which it has at most this share of its probability."""
_NEARLY = 0.9


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the answer rests on in the pictures of a question. Numbers are log-odds of the answer.

    Args:
        base: With the pictures as they are.
        maps: Per picture, float64 `[steps, steps]`: what each cell adds, see `_maps`.
        part: The cells where the map is highest: the fewest without which the answer falls, or
            else the most that were covered.
        covered: With that part covered, by what stands there instead.
        alone: With everything else covered.
        elsewhere: By how much covering other parts of the same size lowers them.
        blank: With something else in place of all pictures.
        blind: What the model answers then.
    """

    base: float
    maps: tuple[Floats, ...]
    part: Part
    covered: dict[Fill, float]
    alone: dict[Fill, float]
    elsewhere: tuple[float, ...]
    blank: dict[Fill, float]
    blind: dict[Fill, Answer]

    @property
    def drop(self) -> float:
        """By how much covering the part lowers the log-odds, at least."""
        return self.base - max(self.covered.values())

    @property
    def blank_drop(self) -> float:
        """Likewise for the whole picture."""
        return self.base - max(self.blank.values())

    @property
    def local(self) -> bool:
        """Whether the part does something, and more than any other part of its size."""
        return self.drop >= LEAST and all(self.drop > other for other in self.elsewhere)

    @property
    def needed(self) -> bool:
        """Whether the answer loses half of its probability without the part."""
        return self.local and _falls(self.base, self.covered)


def blank(sample: Sample, fill: Fill, seed: int) -> Sample:
    """The sample with something else in place of its pictures, of equal sizes."""
    return altered(sample, Alteration(hide=_whole(sample), fill=fill, seed=seed))


def evidence(
    context: AnalysisContext,
    samples: Sequence[Sample],
    found: Sequence[Answer],
    options: LookOptions,
) -> list[Evidence | None]:
    """What each answer rests on; None where the answer cannot be scored as text.

    Args:
        context: The context of the analysis.
        samples: The questions, with pictures.
        found: Their answers.
        options: Of the analysis.
    """
    usable = [i for i, one in enumerate(found) if one.scored]
    asked = [_Asked(context, samples[i], found[i]) for i in usable]
    bases, maps = _maps(context, asked, options.steps(context.model()))
    parts, covered = _parts(context, asked, bases, maps)
    alone = _alone(context, asked, parts)
    elsewhere = _elsewhere(context, asked, parts, options)
    blanks, blind = _blank(context, asked, options)
    results: list[Evidence | None] = [None] * len(found)
    for n, i in enumerate(usable):
        drops = tuple(bases[n] - odds for odds in elsewhere[n])
        results[i] = Evidence(
            bases[n], maps[n], parts[n], covered[n], alone[n], drops, blanks[n], blind[n]
        )
    return results


def kept(base: float, odds: float) -> bool:
    """Whether an answer keeps nearly all of its probability."""
    return base - odds < LEAST or chance(odds) >= _NEARLY * chance(base)


class _Asked:
    """A question whose answer is followed while its pictures are altered."""

    def __init__(self, context: AnalysisContext, sample: Sample, answer: Answer) -> None:
        self.sample, self.answer, self._seed = sample, answer, context.seed
        self.sizes = image_sizes(sample)

    def hidden(self, area: Area, fill: Fill = "mean") -> Question:
        """With an area covered."""
        return self._with(Alteration(hide=area, fill=fill, seed=self._seed))

    def kept(self, area: Area, fill: Fill = "mean") -> Question:
        """With all but an area covered."""
        return self._with(Alteration(keep=area, fill=fill, seed=self._seed))

    def plain(self) -> Question:
        """As it is."""
        return self._with(None)

    def _with(self, alteration: Alteration | None) -> Question:
        return Question(self.sample, self.answer.scored, alteration)


def _odds(
    context: AnalysisContext, asked: Sequence[_Asked], several: Sequence[Sequence[Question]]
) -> list[list[float]]:
    """The log-odds of the answer in several questions about each sample."""
    logs = iter(ask(context, [question for questions in several for question in questions]))
    return [
        [one.answer.score(next(logs).tolist()) for _ in questions]
        for one, questions in zip(asked, several, strict=True)
    ]


def _maps(
    context: AnalysisContext, asked: Sequence[_Asked], steps: int
) -> tuple[list[float], list[tuple[Floats, ...]]]:
    """The log-odds of the answer as it is, and a map for each picture.

    A window does something where the answer falls without it, or rises with it alone. Its value is
    the mean of the two: what it adds to the rest of the picture, and to nothing.
    """
    several = []
    for one in asked:
        areas = [window.pixels for window in _windows(one, steps)]
        covered = [one.hidden(area) for area in areas]
        alone = [one.kept(area) for area in areas]
        several.append([one.plain(), one.hidden(_whole(one.sample)), *covered, *alone])
    bases, maps = [], []
    for one, (base, empty, *rest) in zip(asked, _odds(context, asked, several), strict=True):
        covered_odds, alone_odds = np.array(rest).reshape(2, len(one.sizes), -1)
        values = ((base - covered_odds) + (alone_odds - empty)) / 2
        bases.append(base)
        maps.append(tuple(mapped(each, steps) for each in values))
    return bases, maps


def _windows(one: _Asked, steps: int) -> Iterator[Part]:
    for image, size in enumerate(one.sizes):
        yield from windows(size, steps, image)


def _parts(
    context: AnalysisContext,
    asked: Sequence[_Asked],
    bases: Sequence[float],
    maps: Sequence[tuple[Floats, ...]],
) -> tuple[list[Part], list[dict[Fill, float]]]:
    """The fewest cells without which each answer falls, and its log-odds then."""
    tried = [_highest(one, several) for one, several in zip(asked, maps, strict=True)]
    questions = [
        [one.hidden(part.pixels, fill) for part in parts for fill in COVERS]
        for one, parts in zip(asked, tried, strict=True)
    ]
    chosen, covered = [], []
    for base, parts, odds in zip(bases, tried, _odds(context, asked, questions), strict=True):
        found = [
            dict(zip(COVERS, odds[i : i + len(COVERS)], strict=True))
            for i in range(0, len(odds), len(COVERS))
        ]
        falls = [i for i, one in enumerate(found) if _falls(base, one)]
        best = falls[0] if falls else len(parts) - 1
        chosen.append(parts[best])
        covered.append(found[best])
    return chosen, covered


def _highest(one: _Asked, maps: Sequence[Floats]) -> list[Part]:
    image = int(np.argmax([values.max() for values in maps]))
    return highest(maps[image], one.sizes[image], image)


def _falls(base: float, covered: dict[Fill, float]) -> bool:
    return chance(max(covered.values())) <= LESS * chance(base)


def _alone(
    context: AnalysisContext, asked: Sequence[_Asked], parts: Sequence[Part]
) -> list[dict[Fill, float]]:
    questions = [
        [one.kept(part.pixels, fill) for fill in COVERS]
        for one, part in zip(asked, parts, strict=True)
    ]
    return [dict(zip(COVERS, odds, strict=True)) for odds in _odds(context, asked, questions)]


def _elsewhere(
    context: AnalysisContext,
    asked: Sequence[_Asked],
    parts: Sequence[Part],
    options: LookOptions,
) -> list[list[float]]:
    questions = []
    for one, part in zip(asked, parts, strict=True):
        rng = generator(context.seed, "look", one.sample.id)
        drawn = others(part, options.controls, rng)
        questions.append([one.hidden(other.pixels) for other in drawn])
    return _odds(context, asked, questions)


def _blank(
    context: AnalysisContext, asked: Sequence[_Asked], options: LookOptions
) -> tuple[list[dict[Fill, float]], list[dict[Fill, Answer]]]:
    """The log-odds of the answer without pictures, and what the model answers then."""
    questions = [[one.hidden(_whole(one.sample), fill) for fill in BLANKS] for one in asked]
    odds = _odds(context, asked, questions)
    shown = [blank(one.sample, fill, context.seed) for one in asked for fill in BLANKS]
    said = iter(answers(context, shown, options.max_new_tokens))
    return (
        [dict(zip(BLANKS, each, strict=True)) for each in odds],
        [{fill: next(said) for fill in BLANKS} for _ in asked],
    )


def _whole(sample: Sample) -> Area:
    """All pixels of all pictures."""
    sizes = enumerate(image_sizes(sample))
    return Area(boxes=tuple((i, 0.0, 0.0, float(w), float(h)) for i, (w, h) in sizes))
