"""Benchmarks: question sets whose questions, prompts, answer rules and metrics are their authors'.

A benchmark is a dataset with a card. The dataset (`Benchmark`) reads every form in which people
have the set; the card (`Card`) says how it is asked, read and scored. The analysis `benchmark`
scores the answers of samples by their card.

To add a set: a package here with a subclass of `Benchmark`, a `Card`, and a manifest. What sets
share:

- `card.py`, `benchmark.py`: what a card and a dataset with one are; `own_answers.py`: answers from
  elsewhere;
- `sources.py`, `forms.py`, `json_items.py`: reading files, folders and the hub; images that tables
  hold; large JSON files;
- `reading.py`, `toolkits.py`: rules that read answers, strict ones and those of toolkits;
- `counting.py`, `scoring.py`: metrics, scores and intervals;
- `text_lists.py`, `_nltk.py`: lists in attributes; what needs NLTK or spaCy;
- `kit.py`: the conformance kit of benchmarks.

This room uses `vlmlens`, `vlmlens_plugins.data` and the statistics that analyses share; analyses
use it. Each name is imported when it is first asked for, so that listing the manifests stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmlens._rooms import hand_out

if TYPE_CHECKING:
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

_ROOM = "vlmlens_plugins.benchmarks"
__getattr__, __dir__ = hand_out(
    __name__,
    {
        "Answer": f"{_ROOM}.card",
        "Benchmark": f"{_ROOM}.benchmark",
        "BenchmarkOptions": f"{_ROOM}.benchmark",
        "Card": f"{_ROOM}.card",
        "Found": f"{_ROOM}.benchmark",
        "Metrics": f"{_ROOM}.card",
        "Prompt": f"{_ROOM}.card",
        "Reference": f"{_ROOM}.card",
        "Rule": f"{_ROOM}.card",
        "answered": f"{_ROOM}.scoring",
        "card_of": f"{_ROOM}.benchmark",
        "intervals": f"{_ROOM}.scoring",
        "resampled": f"{_ROOM}.scoring",
        "scored": f"{_ROOM}.scoring",
    },
)
