"""Benchmarks: question sets whose questions, prompts, answer rules and metrics are their authors'.

A benchmark is a dataset with a card. The dataset (`Benchmark`) reads every form in which people
have the set; the card (`Card`) says how it is asked, read and scored. The analysis `benchmark`
scores the answers of samples by their card.

To add a set: a package here with a subclass of `Benchmark`, a `Card`, and a manifest. This room
uses `vlmlens`, `vlmlens_plugins.data` and the statistics that analyses share; analyses use it.
"""

from vlmlens_plugins.benchmarks.benchmark import Benchmark, BenchmarkOptions, Found, card_of
from vlmlens_plugins.benchmarks.card import Answer, Card, Metrics, Prompt, Reference, Rule
from vlmlens_plugins.benchmarks.scoring import answered, intervals, resampled, scored

__all__ = [
    "Answer",
    "Benchmark",
    "BenchmarkOptions",
    "Card",
    "Found",
    "Metrics",
    "Prompt",
    "Reference",
    "Rule",
    "answered",
    "card_of",
    "intervals",
    "resampled",
    "scored",
]
