"""The logit lens at one position per sample, as figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.abc import ModelAdapter
from vlmlens.results import Figure, Series
from vlmlens_plugins.analysis._columns import short_names
from vlmlens_plugins.analysis._results import slug
from vlmlens_plugins.analysis.logit_lens.sheets import Texts, single_sheet
from vlmlens_plugins.analysis.logit_lens.single_position import Lens
from vlmlens_plugins.analysis.logit_lens.vocabulary import Ints

Floats = npt.NDArray[Any]


def figures(lens: Lens, shown: Sequence[int], vlm: ModelAdapter) -> list[Figure]:
    """Per task, probabilities over depth; top tokens of single samples; all tasks together."""
    texts = Texts(vlm)
    tokens = Figure(
        name=f"{lens.stem}-tokens",
        title=f"Top tokens of single samples by layer and rank ({lens.group.name} position)",
        kind="lens",
        x=[str(rank) for rank in range(1, lens.k + 1)],
        x_label="rank",
        y_label="probability",
        y=short_names(lens.columns),
        sheets=[single_sheet(lens.samples[n], lens.shown[n], texts) for n in shown],
        y_range=(0.0, 1.0),
    )
    made = [*(_depth(lens, task, rows) for task, rows in lens.tasks.items()), tokens]
    return [*made, _settling(lens)] if len(lens.tasks) > 1 else made


def _depth(lens: Lens, task: str, rows: Ints) -> Figure:
    label, found = lens.labelled(rows), lens.readings
    series = [_banded("the model's answer", found.answer_probability[:, rows])]
    if len(label):
        series.append(_banded("the label", found.label_probability[:, label]))
    series += [
        _banded(f'the word "{word}"', found.word_probability[:, rows, w])
        for w, word in enumerate(lens.words)
    ]
    return Figure(
        name=f"{lens.stem}-{slug(task)}",
        title=f"How the answer to {task} forms over depth",
        kind="line",
        x=short_names(lens.columns),
        x_label="layer",
        y_label="probability (median and quartiles)",
        series=series,
        y_range=(0.0, 1.0),
    )


def _settling(lens: Lens) -> Figure:
    """Share of settled answers over depth, a line per task."""
    layers = range(len(lens.columns))
    return Figure(
        name=f"{lens.stem}-tasks",
        title="Share of answers that have settled, by layer and task",
        kind="line",
        x=short_names(lens.columns),
        x_label="layer",
        y_label="share of samples settled",
        series=[
            Series(task, [float((lens.settled[rows] <= i).mean()) for i in layers])
            for task, rows in lens.tasks.items()
        ],
        y_range=(0.0, 1.0),
    )


def _banded(name: str, values: Floats) -> Series:
    """Median and quartiles of `[layers, samples]`, layer by layer."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=1).tolist()
    return Series(name, middle, low=low, high=high)
