"""AMBER's metrics: those of captions, those of yes and no, and the score of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.amber.captions import Judged, Reader
from vlmlens_plugins.benchmarks.card import Answer, Floats
from vlmlens_plugins.benchmarks.counting import ratio

CAPTION = "generative"
DIMENSIONS = ("existence", "attribute", "relation")
KINDS = ("state", "number", "action")
PARTS = (*DIMENSIONS, *KINDS)
_YES_NO = ("n", "right", "no", "said_no", "right_no")
_OF_CAPTIONS = ("chair", "cover", "hal", "cog")
_OF_QUESTIONS = ("accuracy", "precision", "recall", "f1")
_CAPTIONS = ("captions", "having", *Judged._fields)


@dataclass(frozen=True)
class Amber:
    """All metrics, in percent; the score `amber` is in points, 100 at best.

    `score` is `amber` where there are captions and questions, else the half that there is.

    Captions: CHAIR = unsupported nouns / counted nouns, cover = truths that are named / truths,
    hal = captions with an unsupported noun / captions, cog = listed hallucinations that are named /
    listed ones; all pooled. Questions: "no" is the positive class. Score = (100 - CHAIR + F1) / 2.

    Args:
        reader: How captions are read.
        printed: As the authors' script prints it: denominators begin at 0.001, F1 is of rounded
            precision and recall with 0.0001 (existence: 0.001) below, all is rounded to 0.1.
    """

    reader: Reader
    printed: bool = False

    def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
        """See `Metrics.counts`."""
        found = {name: np.zeros(len(samples)) for name in _names()}
        for i, (sample, answer) in enumerate(zip(samples, answers, strict=True)):
            if sample.task == CAPTION:
                one = self.reader.judged(answer.text, sample)
                row = {"captions": 1, "having": int(one.wrong > 0), **one._asdict()}
                for name, value in row.items():
                    found[name][i] = value
            else:
                self._question(found, i, sample, answer)
        return found

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """See `Metrics.scores`."""
        captions = sums["captions"]
        chair = self._share(sums["wrong"], sums["kept"], captions)
        chair = np.where((np.asarray(captions) > 0) & np.isnan(chair), 0.0, chair)
        found: dict[str, Floats] = {
            "chair": chair,
            "cover": self._share(sums["covered"], sums["truths"], captions),
            "hal": self._hal(sums),
            "cog": self._share(sums["hit"], sums["listed"], captions),
        }
        whole = self._yes_no(sums, "", 0.0001)
        found |= whole
        for part in PARTS:
            below = 0.001 if part == "existence" else 0.0001
            scores = self._yes_no(sums, f"{part}_", below)
            found |= {f"{part}_{name}": scores[name] for name in ("accuracy", "f1")}
        found["mean_accuracy"] = _mean([found[f"{part}_accuracy"] for part in DIMENSIONS])
        found["amber"] = (100 - chair + whole["f1"]) / 2
        return {"score": _score(found), **found}

    def _question(
        self, found: Mapping[str, Floats], i: int, sample: Sample, answer: Answer
    ) -> None:
        no, said = sample.label == "no", answer.said == "no"
        row = (1, answer.credit, no, said, no and said)
        dimension, _, kind = str(sample.task).partition("/")
        for part in ("", f"{dimension}_", *([f"{kind}_"] if kind else [])):
            for name, value in zip(_YES_NO, row, strict=True):
                found[part + name][i] = value

    def _yes_no(self, sums: Mapping[str, Floats], part: str, below: float) -> dict[str, Floats]:
        n, right, no, said_no, right_no = (sums[part + name] for name in _YES_NO)
        precision, recall = self._share(right_no, said_no, n), self._share(right_no, no, n)
        return {
            "accuracy": self._share(right, n),
            "precision": precision,
            "recall": recall,
            "f1": self._f1(precision, recall, below)
            if self.printed
            else ratio(2 * right_no, said_no + no),
        }

    def _share(self, part: Floats, whole: Floats, asked: Floats | None = None) -> Floats:
        """A share in percent; as it is printed, 0 where nothing but the denominator is missing."""
        if not self.printed:
            return ratio(part, whole)
        share = np.round(100 * np.asarray(part, np.float64) / (np.asarray(whole) + 0.001), 1)
        return np.where(np.asarray(whole if asked is None else asked) > 0, share, np.nan)

    def _hal(self, sums: Mapping[str, Floats]) -> Floats:
        captions, having = np.asarray(sums["captions"]), np.asarray(sums["having"])
        if not self.printed:
            return ratio(having, captions)
        free = 100 * (captions - having) / (captions + 0.001)
        return np.where(captions > 0, np.round(100 - free, 1), np.nan)

    def _f1(self, precision: Floats, recall: Floats, below: float) -> Floats:
        p, r = precision / 100, recall / 100
        return np.round(100 * 2 * p * r / (p + r + below), 1)


def _score(found: Mapping[str, Floats]) -> Floats:
    """AMBER's score; where there are captions alone, or questions alone, their half of it."""
    half = np.where(np.isnan(found["f1"]), 100 - found["chair"], found["f1"])
    return np.where(np.isnan(found["amber"]), half, found["amber"])


def _names() -> list[str]:
    parts = ("", *(f"{part}_" for part in PARTS))
    return [*_CAPTIONS, *(part + name for part in parts for name in _YES_NO)]


def _mean(parts: Sequence[Floats]) -> Floats:
    """The mean of the dimensions that have questions; NaN where none has."""
    known = np.isfinite(np.stack([np.asarray(one, np.float64) for one in parts]))
    total = np.where(known, np.stack(parts), 0.0).sum(0)
    count = known.sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


@dataclass(frozen=True)
class OfTask:
    """The metrics of one task: those of captions, or of questions of one dimension.

    `score` is the half of AMBER's score that is the task's: 100 - CHAIR, or F1.

    Args:
        whole: All metrics.
    """

    whole: Amber

    def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
        """See `Metrics.counts`."""
        return self.whole.counts(samples, answers)

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """See `Metrics.scores`."""
        found = self.whole.scores(sums)
        names = _OF_CAPTIONS if np.any(np.asarray(sums["captions"]) > 0) else _OF_QUESTIONS
        return {name: found[name] for name in ("score", *names)}
