"""The conformance kit for benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from vlmlens.manifest import Manifest
from vlmlens.samples import Sample
from vlmlens.testing import AnalysisTests, Planted, Signal
from vlmlens.testing.planting import in_columns
from vlmlens_plugins.analysis.manifests import BENCHMARK
from vlmlens_plugins.benchmarks import Benchmark, BenchmarkOptions, Card, Found, Prompt, Rule
from vlmlens_plugins.benchmarks.counting import YesNo
from vlmlens_plugins.benchmarks.own_answers import ANSWER
from vlmlens_plugins.benchmarks.reading import first_yes_no

PLANTED = Card(
    name="planted-questions",
    title="Planted questions",
    paper="of this kit",
    licence="that of vlmlens",
    prompts={"official": Prompt()},
    rules={"strict": Rule(first_yes_no)},
    metrics=YesNo(),
    headline="accuracy",
    task_metrics=YesNo(),
)


class PlantedQuestions(Benchmark):
    """A benchmark of samples in memory."""

    card: ClassVar[Card] = PLANTED
    asked: Sequence[Sample] = ()

    def found(self) -> Found:
        """See `Benchmark.found`."""
        return Found(self.asked, "samples in memory", f"{len(self.asked)} questions")


def planted_set(samples: Sequence[Sample]) -> list[Sample]:
    """The samples as those of the planted benchmark."""
    dataset = PlantedQuestions("memory", BenchmarkOptions())
    dataset.asked = samples
    return list(dataset.samples(()))


class BenchmarkChecks(AnalysisTests):
    """Whether answers are better than the best constant answer.

    - present: nine of ten are right.
    - absent: they are drawn at random.
    - confounded: all are "yes", which is right for two thirds of the questions.
    """

    manifest: ClassVar[Manifest] = BENCHMARK
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({"draws": 200})

    def planted(self, signal: Signal) -> Planted:
        """See `AnalysisTests.planted`."""
        rng = np.random.default_rng(0)
        data = replace(in_columns("present", samples=60), model=None)
        labels = np.where(rng.random(60) < (2 / 3 if signal == "confounded" else 0.5), "yes", "no")
        right = rng.random(60) < {"present": 0.9, "absent": 0.5, "confounded": 1.0}[signal]
        said = np.where(right, labels, np.where(labels == "yes", "no", "yes")).tolist()
        if signal == "confounded":
            said = ["yes"] * 60
        samples = [
            replace(sample, label=label, choices=("yes", "no"), attributes={ANSWER: text})
            for sample, label, text in zip(data.samples, labels.tolist(), said, strict=True)
        ]
        return replace(data, samples=planted_set(samples))


BENCHMARK_CHECKS = (BenchmarkChecks,)
