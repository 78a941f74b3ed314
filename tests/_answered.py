"""A small benchmark in memory, and the analysis `benchmark` on answers to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from vlmlens.abc import AnalysisContext, ModelAdapter, Options
from vlmlens.abc.analysis import UnitRunner
from vlmlens.results import Result, Table
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.benchmark import BenchmarkScores
from vlmlens_plugins.analysis.benchmark.options import BenchmarkScoreOptions
from vlmlens_plugins.benchmarks import (
    Benchmark,
    BenchmarkOptions,
    Card,
    Found,
    Prompt,
    Reference,
    Rule,
)
from vlmlens_plugins.benchmarks.counting import YesNo
from vlmlens_plugins.benchmarks.own_answers import ANSWER
from vlmlens_plugins.benchmarks.reading import first_yes_no
from vlmlens_plugins.storage.memory import MemoryStore, forget


def no_else_yes(text: str, sample: Sample) -> str:
    """No where the word is anywhere, else yes, whatever is said."""
    del sample
    return "no" if "no" in text.lower().split() else "yes"


CARD = Card(
    name="small-set",
    title="Small set",
    paper="of these tests",
    licence="that of vlmlens",
    prompts={"official": Prompt(), "short": Prompt("\nOne word.")},
    rules={"strict": Rule(first_yes_no), "official": Rule(no_else_yes, about="Never unsure.")},
    metrics=YesNo(),
    headline="f1",
    task_metrics=YesNo(),
    references=(Reference("a model", "f1", 85.9, "greedy", "a paper"),),
    faults=("Some labels are wrong",),
)


class SmallSet(Benchmark):
    """Samples in memory."""

    card: ClassVar[Card] = CARD
    asked: Sequence[Sample] = ()

    def found(self) -> Found:
        """See `Benchmark.found`."""
        return Found(self.asked, "memory", "the only one")


def questions(
    samples: Sequence[Sample], card: Card = CARD, prompts: Sequence[str] = (), **options: Any
) -> list[Sample]:
    """The samples as a benchmark with that card gives them."""
    reader = type("Reader", (SmallSet,), {"card": card, "asked": samples})
    return list(reader("memory", BenchmarkOptions(**options)).samples(prompts))


def answered(labels: Sequence[str | None], texts: Sequence[str], **about: Any) -> list[Sample]:
    """Samples with labels and answers; what is a list in `about` has a value for each."""
    made = []
    for i, (label, text) in enumerate(zip(labels, texts, strict=True)):
        one = {
            name: value[i] if isinstance(value, list) else value for name, value in about.items()
        }
        told = one.pop("attributes", {})
        sample = Sample(f"q{i}", "Is it?", label=label, choices=("yes", "no"))
        made.append(replace(sample, **{**one, "attributes": {**told, ANSWER: text}}))
    return made


def no_model() -> ModelAdapter:
    """Fails: nothing may ask for a model."""
    raise AssertionError("the model is not needed")


def score(
    samples: Sequence[Sample],
    folder: Path | None = None,
    runner: UnitRunner | None = None,
    **options: Any,
) -> Result:
    """The result of the analysis, without a model; `runner` answers in its stead."""
    analysis = BenchmarkScores(BenchmarkScoreOptions(**{"draws": 200, **options}))
    analysis.check(samples, [])
    forget("benchmark")
    heard: list[str] = []
    with MemoryStore.open("benchmark", mode="a", options=Options()) as store:
        context = AnalysisContext(
            samples, store, no_model, warn=heard.append, folder=folder, runner=runner
        )
        found = analysis.run(context)
    assert heard == list(found.warnings)
    return found


def row(table: Table, **wanted: object) -> dict[str, Any]:
    """The only row of a table with these values."""
    rows = [dict(zip(table.columns, values, strict=True)) for values in table.rows()]
    (found,) = [each for each in rows if all(each[name] == v for name, v in wanted.items())]
    return found
