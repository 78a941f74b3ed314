"""HallusionBench's metrics: by question, by figure, by pair, and what its errors look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.card import Answer, Floats
from vlmlens_plugins.benchmarks.counting import ratio, whole_groups
from vlmlens_plugins.benchmarks.hallusionbench.blame import BLAMES, UNKNOWN, blamed, outcomes

Bools = npt.NDArray[np.bool_]


def is_blank(sample: Sample) -> bool:
    """Whether a question comes without a figure that would only supplement it (VS, figure 0)."""
    return sample.attributes["category"] == "VS" and _figure(sample) == "0"


@dataclass(frozen=True)
class AccuracyBy:
    """aAcc (questions), fAcc (figures all right), qAcc (pairs all right) and their mean, percent.

    Args:
        blank: Whether questions without a figure count. For them an answer that says neither yes
            nor no is right, as the authors have it; fAcc never counts them.
    """

    blank: bool = True

    def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
        """See `Metrics.counts`."""
        blank = np.array([is_blank(sample) for sample in samples], bool)
        return self._counts(samples, right_of(answers, blank), blank)

    def _counts(self, samples: Sequence[Sample], right: Bools, blank: Bools) -> dict[str, Floats]:
        used = np.ones(len(samples), bool) if self.blank else ~blank
        figures = _keys(samples, "figure", ~blank)
        figures_right, figures_all = whole_groups(figures, right)
        pairs_right, pairs_all = whole_groups(_keys(samples, "pair", used), right)
        return {
            "right": (right & used).astype(np.float64),
            "n": used.astype(np.float64),
            "figures_right": figures_right,
            "figures": figures_all,
            "pairs_right": pairs_right,
            "pairs": pairs_all,
        }

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """See `Metrics.scores`."""
        questions = ratio(sums["right"], sums["n"])
        figures = ratio(sums["figures_right"], sums["figures"])
        pairs = ratio(sums["pairs_right"], sums["pairs"])
        mean = (questions + figures + pairs) / 3
        return {"aAcc": questions, "fAcc": figures, "qAcc": pairs, "mean": mean}


@dataclass(frozen=True)
class Everything(AccuracyBy):
    """All figures of the authors' script.

    Beside `AccuracyBy`: easy and hard (pairs all right on the original figure or none, and on
    edited ones, in percent; the authors call them aAcc, but they go by pair), yes_diff (share of
    answers yes minus that of labels yes, where a wrong answer counts as the opposite of its label),
    fp_ratio (share of wrong answers whose label is no), and the errors by cause (`blamed`) in
    percent: language, visual, mixed. Where originals are missing, the causes are not known.
    """

    def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
        """See `Metrics.counts`."""
        blank = np.array([is_blank(sample) for sample in samples], bool)
        right = right_of(answers, blank)
        counts = self._counts(samples, right, blank)
        for name, seen in (("easy", ("none", "original")), ("hard", ("edited",))):
            used = np.array([sample.attributes["seen"] in seen for sample in samples], bool)
            hits, groups = whole_groups(_keys(samples, "pair", used), right)
            counts |= {f"{name}_right": hits, name: groups}
        return {**counts, **_bias(samples, right), **_causes(samples, answers)}

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """See `Metrics.scores`."""
        errors = sum((sums[name] for name in BLAMES), start=np.zeros_like(sums["n"]))
        known = np.where(sums[UNKNOWN] > 0, 0.0, errors)
        return {
            **super().scores(sums),
            "easy": ratio(sums["easy_right"], sums["easy"]),
            "hard": ratio(sums["hard_right"], sums["hard"]),
            "yes_diff": ratio(sums["yes"] - sums["label_yes"], sums["n"], 1.0),
            "fp_ratio": ratio(sums["wrong_no"], sums["wrong"], 1.0),
            **{name: ratio(sums[name], known) for name in BLAMES},
        }


def right_of(answers: Sequence[Answer], blank: Bools) -> Bools:
    """Whether each answer is right; without a figure, an answer that says nothing is."""
    right: Bools = np.array([answer.credit >= 1 for answer in answers], bool)
    unclear: Bools = np.array([answer.said is None for answer in answers], bool)
    found: Bools = right | (blank & unclear)
    return found


def _bias(samples: Sequence[Sample], right: Bools) -> dict[str, Floats]:
    yes = np.array([sample.label == "yes" for sample in samples], bool)
    return {
        "yes": (right == yes).astype(np.float64),
        "label_yes": yes.astype(np.float64),
        "wrong": (~right).astype(np.float64),
        "wrong_no": (~right & ~yes).astype(np.float64),
    }


def _causes(samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
    found = np.array(blamed(samples, answers, outcomes(answers)), dtype=object)
    return {name: (found == name).astype(np.float64) for name in (*BLAMES, UNKNOWN)}


def _keys(samples: Sequence[Sample], name: str, used: Bools) -> list[str | None]:
    return [
        str(sample.attributes[name]) if use else None
        for sample, use in zip(samples, used.tolist(), strict=True)
    ]


def _figure(sample: Sample) -> str:
    return str(sample.attributes["figure"]).rsplit("/", 1)[-1]
