"""CDH-Bench's metrics: what is gained on common pictures and lost on odd ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.card import Answer, Credit, Floats, Read
from vlmlens_plugins.benchmarks.cdh.parsing import CHOICE, QA
from vlmlens_plugins.benchmarks.counting import ratio, whole_groups

_COUNTS = ("cs_n", "cs_right", "cf_n", "cf_right", "cf_common", "pairs", "pairs_right")


@dataclass(frozen=True)
class CommonAndOdd:
    """The authors' five metrics, and one of our own.

    cs_acc and cf_acc: accuracy on common and on odd pictures, percent. cfad: their difference. ccr:
    the share of wrong answers on odd pictures that are the answer for the common one. rpd: cfad as
    a share of cs_acc. both, our own: the pairs of which both pictures are answered right, percent;
    no constant answer gains by it.

    Args:
        read: The rule's: a wrong answer is read once more, as if the common answer were right.
        credit: The rule's.
    """

    read: Read
    credit: Credit

    def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
        """See `Metrics.counts`."""
        odd = np.array([sample.attributes["side"] == "counterfactual" for sample in samples], bool)
        right = np.array([answer.credit >= 1 for answer in answers], bool)
        common = np.array(
            [
                is_odd and not hit and self._is_common(sample, answer)
                for sample, answer, is_odd, hit in zip(
                    samples, answers, odd.tolist(), right.tolist(), strict=True
                )
            ],
            bool,
        )
        whole, pairs = whole_groups(_pairs(samples), right)
        found = (~odd, ~odd & right, odd, odd & right, common, pairs, whole)
        return {name: each.astype(np.float64) for name, each in zip(_COUNTS, found, strict=True)}

    def _is_common(self, sample: Sample, answer: Answer) -> bool:
        common = replace(sample, label=str(sample.attributes["commonsense"]))
        said = self.read(answer.text, common)
        return said is not None and self.credit(said, common) >= 1

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """See `Metrics.scores`."""
        common = ratio(sums["cs_right"], sums["cs_n"])
        odd = ratio(sums["cf_right"], sums["cf_n"])
        return {
            "both": ratio(sums["pairs_right"], sums["pairs"]),
            "cs_acc": common,
            "cf_acc": odd,
            "cfad": common - odd,
            "ccr": ratio(sums["cf_common"], sums["cf_n"] - sums["cf_right"], 1.0),
            "rpd": ratio(common - odd, common, 1.0),
        }


@dataclass(frozen=True)
class ByKind:
    """The metrics of direct questions (`qa_...`), of those with options (`choice_...`), and both.

    Args:
        inner: What counts them.
    """

    inner: CommonAndOdd

    def counts(self, samples: Sequence[Sample], answers: Sequence[Answer]) -> dict[str, Floats]:
        """See `Metrics.counts`."""
        found = self.inner.counts(samples, answers)
        kind = np.array([str(sample.task).rpartition("/")[2] for sample in samples])
        return {
            f"{name}_{count}": np.where(kind == name, found[count], 0.0)
            for name in (QA, CHOICE)
            for count in _COUNTS
        }

    def scores(self, sums: Mapping[str, Floats]) -> dict[str, Floats]:
        """See `Metrics.scores`."""
        by_kind = {
            f"{kind}_{name}": value
            for kind in (QA, CHOICE)
            for name, value in self.inner.scores(
                {count: sums[f"{kind}_{count}"] for count in _COUNTS}
            ).items()
        }
        pairs, whole = (sums[f"{QA}_{name}"] + sums[f"{CHOICE}_{name}"] for name in _COUNTS[-2:])
        return {"both": ratio(whole, pairs), **by_kind}


def _pairs(samples: Sequence[Sample]) -> list[str | None]:
    """The pair and kind of each sample; None where only one of its pictures is there."""
    keys = [f"{sample.attributes['pair']}/{sample.task}" for sample in samples]
    times = Counter(keys)
    return [key if times[key] > 1 else None for key in keys]
