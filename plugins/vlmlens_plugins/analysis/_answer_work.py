"""Model work of analyses that ask for answers: scores of choices, first tokens, written answers."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from vlmlens.abc import ModelAdapter, ModelWork, Options, WorkUnit
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._blank_images import ONE_FOR_ALL, shown, video_of, without_regions
from vlmlens_plugins.analysis._scoring import AnswerScorer
from vlmlens_plugins.analysis._statistics import jensen_shannon, total_variation

Floats = npt.NDArray[np.float64]
_REMEMBERED = 64


class ScoreOptions(Options):
    """Options of `ChoiceScores`."""

    mean: bool = Field(False, description="The mean over a choice's tokens, instead of the sum.")


class WriteOptions(Options):
    """Options of `WrittenAnswers`."""

    max_new_tokens: int = Field(16, ge=1, description="The most tokens of an answer.")


class ChoiceScores(ModelWork):
    """The log-probability of each choice, a list per unit; see `AnswerScorer.choices`.

    Arguments: "choices", and those of `_blank_images.shown`.
    """

    Options: ClassVar[type[Options]] = ScoreOptions
    options: ScoreOptions
    version: ClassVar[int | None] = 1
    _scorer: AnswerScorer | None = None

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[list[float]]:
        """See `ModelWork.run`."""
        if self._scorer is None or self._scorer.vlm is not vlm:
            self._scorer = AnswerScorer(vlm, mean=self.options.mean)
        asked = [
            replace(_question(unit), choices=tuple(unit.arguments["choices"])) for unit in units
        ]
        return [logs.tolist() for logs in self._scorer.choices(asked)]


class WrittenAnswers(ModelWork):
    """The text that the model writes. Arguments: those of `_blank_images.shown`."""

    Options: ClassVar[type[Options]] = WriteOptions
    options: WriteOptions
    version: ClassVar[int | None] = 1

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[str]:
        """See `ModelWork.run`."""
        batch = vlm.encode([_question(unit) for unit in units])
        made = vlm.generate(batch, max_new_tokens=self.options.max_new_tokens)
        return [each.text for each in made]


class FirstTokens(ModelWork):
    """The first token of an answer with the image and with blanks, and how far apart they are.

    The distances are over the whole vocabulary, which is too large to be kept, so all passes of a
    question are one unit. The sample's first images are its own; those of the blank "other" follow.

    Arguments: "own", the number of its own images; "blanks", a list of arguments for
    `_blank_images.shown`, or {"images": [FROM, TO]} for other images. Result: "token", and for each
    blank "token", "tv" and "js".
    """

    version: ClassVar[int | None] = 1

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        self._known: OrderedDict[str, Floats] = OrderedDict()

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, Any]]:
        """See `ModelWork.run`."""
        scorer = AnswerScorer(vlm)
        samples = [
            replace(unit.sample, images=unit.sample.images[: unit.arguments["own"]])
            for unit in units
        ]
        p = np.exp(scorer.first_token(samples))
        results: list[dict[str, Any]] = [{"token": int(row.argmax()), "blanks": []} for row in p]
        most = max(len(unit.arguments["blanks"]) for unit in units)
        for k in range(most):
            having = [i for i, unit in enumerate(units) if k < len(unit.arguments["blanks"])]
            q = np.exp(np.stack(self._blind(scorer, [(units[i], samples[i]) for i in having], k)))
            tv, js = total_variation(p[having], q), jensen_shannon(p[having], q)
            for row, i in enumerate(having):
                told = {"token": int(q[row].argmax()), "tv": float(tv[row]), "js": float(js[row])}
                results[i]["blanks"].append(told)
        return results

    def _blind(
        self, scorer: AnswerScorer, asked: Sequence[tuple[WorkUnit, Sample]], k: int
    ) -> list[Floats]:
        """Log-probabilities with a blank; those of equal questions are computed once."""
        edited = bool(scorer.vlm.active_edits)
        keys = [_same_for_all(unit, k, edited) or str(i) for i, (unit, _) in enumerate(asked)]
        new = {key: pair for key, pair in zip(keys, asked, strict=True) if key not in self._known}
        made = [_blind_question(*pair, k) for pair in new.values()]
        fresh = dict(zip(new, scorer.first_token(made), strict=True)) if made else {}
        found = {**self._known, **fresh}
        self._known.update((key, fresh[key]) for key in fresh if key.startswith("["))
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return [found[key] for key in keys]


def _question(unit: WorkUnit) -> Sample:
    return shown(unit.sample, unit.arguments)


def _blind_question(unit: WorkUnit, own: Sample, k: int) -> Sample:
    arguments = unit.arguments["blanks"][k]
    if "images" not in arguments:
        return shown(own, arguments)
    start, stop = arguments["images"]
    return replace(own, images=unit.sample.images[start:stop], video=video_of(arguments))


def _same_for_all(unit: WorkUnit, k: int, regions: bool) -> str:
    """A text in brackets that is equal for equal blank questions; empty if there is no other."""
    arguments: Mapping[str, Any] = unit.arguments["blanks"][k]
    if arguments.get("blank") not in ONE_FOR_ALL:
        return ""
    seen = dict(unit.sample.attributes)
    return json.dumps([unit.sample.prompt, seen if regions else without_regions(seen), arguments])
