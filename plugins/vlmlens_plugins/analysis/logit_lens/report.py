"""What the logit lens found at one position per sample, as findings, tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.abc import ModelAdapter
from vlmlens.results import Cell, Figure, Finding, Glance, Series, Table
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._columns import short_names
from vlmlens_plugins.analysis._names import slug
from vlmlens_plugins.analysis._tasks import rows_by_task
from vlmlens_plugins.analysis.logit_lens.maps import Texts, single_sheet
from vlmlens_plugins.analysis.logit_lens.positions import Group
from vlmlens_plugins.analysis.logit_lens.readings import Readings
from vlmlens_plugins.analysis.logit_lens.vocabulary import Ints

Floats = npt.NDArray[Any]


@dataclass(frozen=True)
class Lens:
    """Everything that was read of a group with one position per sample.

    Args:
        group: Its columns.
        samples: The run's samples.
        readings: A position per sample.
        words: The chosen words.
        error: Largest relative difference between the lens and the model's own logits.
    """

    group: Group
    samples: tuple[Sample, ...]
    readings: Readings
    words: tuple[str, ...]
    error: float

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns read, in order of depth."""
        return self.group.columns

    @property
    def stem(self) -> str:
        """What names of tables and figures begin with."""
        return "lens" if self.group.name == "last" else f"lens-{slug(self.group.name)}"

    @cached_property
    def tasks(self) -> dict[str, Ints]:
        """Sample numbers per task, in order of appearance."""
        return {task: np.array(rows) for task, rows in rows_by_task(self.samples).items()}

    @cached_property
    def settled(self) -> Ints:
        """int64 `[n]`: the layer from which the answer stays top-1; see `settling`."""
        return self.readings.settled

    def median_settling(self, rows: Ints) -> int:
        """The least layer by which at least half of the samples have settled."""
        return int(np.quantile(self.settled[rows], 0.5, method="inverted_cdf"))

    def layer_name(self, number: int) -> str | None:
        """A layer's short name; None behind the last."""
        names = short_names(self.columns)
        return names[number] if number < len(names) else None

    def labelled(self, rows: Ints) -> Ints:
        """Those of some samples that have a label."""
        found: Ints = rows[self.readings.label_rank[0, rows] > 0]
        return found


def findings(lens: Lens) -> list[Finding]:
    """One finding per task."""
    return [_finding(lens, task, rows) for task, rows in lens.tasks.items()]


def overview(lens: Lens) -> list[Glance]:
    """Per task, the layer at which the answer settles, and its probability over depth."""
    return [
        Glance(
            task,
            "answer settles",
            lens.layer_name(lens.median_settling(rows)) or "does not settle",
            curve=[_median(layer) for layer in lens.readings.answer_probability[:, rows]],
        )
        for task, rows in lens.tasks.items()
    ]


def tables(lens: Lens, shown: Sequence[int], vlm: ModelAdapter) -> list[Table]:
    """Aggregates per task and layer, chosen words, and top-k tokens of single samples."""
    rows = [
        _row(lens, task, members, i)
        for task, members in lens.tasks.items()
        for i in range(len(lens.columns))
    ]
    made = [
        _by_name(f"{lens.stem}-layers", "Answer, label and entropy by task and layer", rows),
        _token_table(lens, shown, Texts(vlm)),
    ]
    if lens.words:
        made.append(_word_table(lens))
    return made


def figures(lens: Lens, shown: Sequence[int], vlm: ModelAdapter) -> list[Figure]:
    """Per task, probabilities over depth; and the top tokens of single samples."""
    texts = Texts(vlm)
    k = lens.readings.top.shape[-1]
    tokens = Figure(
        name=f"{lens.stem}-tokens",
        title=f"Top tokens of single samples by layer and rank ({lens.group.name} position)",
        kind="lens",
        x=[str(rank) for rank in range(1, k + 1)],
        x_label="rank",
        y_label="probability",
        y=short_names(lens.columns),
        sheets=[
            single_sheet(lens.samples[n], lens.readings.take(slice(n, n + 1)), texts) for n in shown
        ],
        y_range=(0.0, 1.0),
    )
    return [*(_depth(lens, task, rows) for task, rows in lens.tasks.items()), tokens]


def _finding(lens: Lens, task: str, rows: Ints) -> Finding:
    names, total = short_names(lens.columns), len(lens.columns)
    layer, found = lens.median_settling(rows), lens.readings
    start, end = (_median(found.answer_probability[i, rows]) for i in (0, -1))
    where = (
        f"becomes and stays top-1 at {names[layer]} ({layer + 1} of {total} layers read; median)"
        if layer < total
        else "is not top-1 at the last layer read"
    )
    label = lens.labelled(rows)
    right = ""
    if len(label):
        agree = float((found.label_rank[-1, label] == 1).mean())
        right = f"; it is the label for {agree:.0%}"
    text = (
        f"{task}: the final answer {where} for {len(rows)} samples, its median probability going "
        f"from {start:.2f} at {names[0]} to {end:.2f} at {names[-1]}{right}."
    )
    values: dict[str, Cell] = {
        "settling_layer": names[layer] if layer < total else None,
        "settling_index": layer,
        "layers": total,
        "answer_probability_first": start,
        "answer_probability_last": end,
        "label_top1_last": agree if len(label) else None,
    }
    subject = task if lens.stem == "lens" else f"{task} ({lens.group.name})"
    return Finding(text, subject=subject, values=values)


def _row(lens: Lens, task: str, rows: Ints, i: int) -> dict[str, Cell]:
    found, label = lens.readings, lens.labelled(rows)
    settled = lens.settled[rows]
    answer, rank = found.answer_probability[i, rows], found.label_rank[i, label]
    probability = found.label_probability[i, label]
    return {
        "task": task,
        "column": lens.columns[i],
        "samples": len(rows),
        "answer_probability": _median(answer),
        "answer_probability_mean": float(answer.mean()),
        "answer_rank": _median(found.answer_rank[i, rows]),
        "agreement": float((found.top[i, rows, 0] == found.answers[rows]).mean()),
        "label_probability": _or_none(_median, probability),
        "label_probability_mean": _or_none(_mean, probability),
        "label_rank": _or_none(_median, rank),
        "label_top1": _or_none(_mean, rank == 1),
        "entropy": float(found.entropy[i, rows].mean()),
        "divergence": float(found.divergence[i, rows].mean()),
        "settled_here": float((settled == i).mean()),
        "settled_by_here": float((settled <= i).mean()),
    }


def _token_table(lens: Lens, shown: Sequence[int], texts: Texts) -> Table:
    rows: list[dict[str, Cell]] = []
    for n in shown:
        sample = lens.samples[n]
        for i, column in enumerate(lens.columns):
            pairs = zip(lens.readings.top[i, n], lens.readings.top_probability[i, n], strict=True)
            rows += [
                {
                    "sample": sample.id,
                    "task": sample.task,
                    "label": sample.label,
                    "column": column,
                    "rank": rank,
                    "token": texts[int(token)],
                    "probability": float(probability),
                }
                for rank, (token, probability) in enumerate(pairs, 1)
            ]
    return _by_name(f"{lens.stem}-tokens", "Top tokens of single samples by layer", rows)


def _word_table(lens: Lens) -> Table:
    rows: list[dict[str, Cell]] = [
        {
            "task": task,
            "word": word,
            "column": column,
            "samples": len(members),
            "probability": _median(lens.readings.word_probability[i, members, w]),
            "probability_mean": _mean(lens.readings.word_probability[i, members, w]),
            "rank": _median(lens.readings.word_rank[i, members, w]),
        }
        for task, members in lens.tasks.items()
        for w, word in enumerate(lens.words)
        for i, column in enumerate(lens.columns)
    ]
    return _by_name(f"{lens.stem}-words", "Chosen words by task and layer", rows)


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


def _by_name(name: str, title: str, rows: Sequence[dict[str, Cell]]) -> Table:
    headers = list(rows[0]) if rows else []
    return Table(name, title, {header: [row[header] for row in rows] for header in headers})


def _banded(name: str, values: Floats) -> Series:
    """Median and quartiles of `[layers, samples]`, layer by layer."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=1).tolist()
    return Series(name, middle, low=low, high=high)


def _median(values: Floats) -> float:
    return float(np.median(values))


def _mean(values: Floats) -> float:
    return float(values.mean())


def _or_none(summary: Callable[[Floats], float], values: Floats) -> float | None:
    return summary(values) if len(values) else None
