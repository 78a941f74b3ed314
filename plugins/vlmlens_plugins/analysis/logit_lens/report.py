"""What the logit lens found, as findings, tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.abc import ModelAdapter
from vlmlens.results import Cell, Figure, Finding, Series, Table
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._columns import short_names
from vlmlens_plugins.analysis._names import slug
from vlmlens_plugins.analysis.logit_lens.readings import Ints, LayerReading, settling

Floats = npt.NDArray[Any]


@dataclass(frozen=True)
class Lens:
    """Everything that was read.

    Args:
        samples: The run's samples.
        columns: The columns read, in order of depth.
        layers: A reading per column.
        answers: int64 `[n]`, tokens of the model's final answers.
        error: Largest relative difference between the lens and the model's own logits.
    """

    samples: tuple[Sample, ...]
    columns: tuple[str, ...]
    layers: tuple[LayerReading, ...]
    answers: Ints
    error: float

    @cached_property
    def tasks(self) -> dict[str, Ints]:
        """Sample numbers per task, in order of appearance."""
        found: dict[str, list[int]] = {}
        for i, sample in enumerate(self.samples):
            found.setdefault(sample.task or "all samples", []).append(i)
        return {task: np.array(rows) for task, rows in found.items()}

    @cached_property
    def settled(self) -> Ints:
        """int64 `[n]`: the layer from which the answer stays top-1; see `settling`."""
        return settling(np.stack([layer.top[:, 0] for layer in self.layers]), self.answers)

    def median_settling(self, rows: Ints) -> int:
        """The least layer by which at least half of the samples have settled."""
        return int(np.quantile(self.settled[rows], 0.5, method="inverted_cdf"))


def findings(lens: Lens) -> list[Finding]:
    """One finding per task."""
    return [_finding(lens, task, rows) for task, rows in lens.tasks.items()]


def tables(lens: Lens, shown: Sequence[int], vlm: ModelAdapter) -> list[Table]:
    """Aggregates per task and layer, and top-k tokens of single samples."""
    rows = [
        _row(lens, task, members, i)
        for task, members in lens.tasks.items()
        for i in range(len(lens.columns))
    ]
    aggregate = {name: [row[name] for row in rows] for name in rows[0]}
    return [
        Table("lens-layers", "Answer, label and entropy by task and layer", aggregate),
        _token_table(lens, shown, vlm),
    ]


def figures(lens: Lens, vlm: ModelAdapter) -> list[Figure]:
    """Per task: probabilities over depth, and the top tokens of its first sample."""
    return [
        figure
        for task, rows in lens.tasks.items()
        for figure in (_depth(lens, task, rows), _example(lens, task, int(rows[0]), vlm))
    ]


def notes(lens: Lens, *, norm: bool) -> list[str]:
    """How the numbers were made."""
    normed = "the final norm and the unembedding" if norm else "the unembedding, WITHOUT the norm,"
    return [
        f"Logit lens (nostalgebraist 2020): {normed} of the model applied to each language "
        "block's output at the last prompt position; softmax over the whole vocabulary.",
        "Checked first: the lens at the last block (with the norm) gives the model's own logits "
        f"within {lens.error:.1e} of the largest logit.",
        "The answer is the model's own most probable next token. A label is represented by the "
        "first token that the model would write for it. The settling layer is the first one from "
        "which the answer stays top-1 to the end. Entropy is in nats. Bands are quartiles.",
        "Early blocks write into a space that the unembedding was not trained on: a token that is "
        "not top-1 there may still be encoded.",
    ]


def token_text(vlm: ModelAdapter, token: int) -> str:
    """A token's text with its white space made visible."""
    text = vlm.decode([token])
    return text.replace(" ", "\u2423").replace("\n", "\\n").replace("\t", "\\t") or f"<{token}>"


def _finding(lens: Lens, task: str, rows: Ints) -> Finding:
    names, total = short_names(lens.columns), len(lens.columns)
    layer = lens.median_settling(rows)
    first, last = lens.layers[0], lens.layers[-1]
    start, end = _median(first.answer_probability[rows]), _median(last.answer_probability[rows])
    where = (
        f"becomes and stays top-1 at {names[layer]} ({layer + 1} of {total} layers read; median)"
        if layer < total
        else "is not top-1 at the last layer read"
    )
    label = _labelled(lens, rows)
    right = ""
    if len(label):
        agree = float((last.label_rank[label] == 1).mean())
        right = f"; it is the label for {agree:.0%}" if total else ""
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
    return Finding(text, subject=task, values=values)


def _row(lens: Lens, task: str, rows: Ints, i: int) -> dict[str, Cell]:
    layer, label = lens.layers[i], _labelled(lens, rows)
    settled = lens.settled[rows]
    return {
        "task": task,
        "column": lens.columns[i],
        "samples": len(rows),
        "answer_probability": _median(layer.answer_probability[rows]),
        "answer_probability_mean": float(layer.answer_probability[rows].mean()),
        "answer_rank": _median(layer.answer_rank[rows]),
        "agreement": float((layer.top[rows, 0] == lens.answers[rows]).mean()),
        "label_probability": _or_none(_median, layer.label_probability[label]),
        "label_probability_mean": _or_none(_mean, layer.label_probability[label]),
        "label_rank": _or_none(_median, layer.label_rank[label]),
        "label_top1": _or_none(_mean, layer.label_rank[label] == 1),
        "entropy": float(layer.entropy[rows].mean()),
        "settled_here": float((settled == i).mean()),
        "settled_by_here": float((settled <= i).mean()),
    }


def _token_table(lens: Lens, shown: Sequence[int], vlm: ModelAdapter) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for n in shown:
        sample = lens.samples[n]
        for column, layer in zip(lens.columns, lens.layers, strict=True):
            pairs = zip(layer.top[n], layer.top_probability[n], strict=True)
            for rank, (token, probability) in enumerate(pairs, 1):
                text = token_text(vlm, int(token))
                rows.append(
                    (sample.id, sample.task, sample.label, column, rank, text, float(probability))
                )
    names = ("sample", "task", "label", "column", "rank", "token", "probability")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    return Table("lens-tokens", "Top tokens of single samples by layer", columns)


def _depth(lens: Lens, task: str, rows: Ints) -> Figure:
    label = _labelled(lens, rows)
    answers = [layer.answer_probability[rows] for layer in lens.layers]
    series = [_banded("the model's answer", answers)]
    if len(label):
        series.append(
            _banded("the label", [layer.label_probability[label] for layer in lens.layers])
        )
    return Figure(
        name=f"lens-{slug(task)}",
        title=f"How the answer to {task} forms over depth",
        kind="line",
        x=short_names(lens.columns),
        x_label="layer",
        y_label="probability (median and quartiles)",
        series=series,
        y_range=(0.0, 1.0),
    )


def _example(lens: Lens, task: str, n: int, vlm: ModelAdapter) -> Figure:
    k = lens.layers[0].top.shape[1]
    return Figure(
        name=f"lens-{slug(task)}-example",
        title=f"Top tokens by layer for sample {lens.samples[n].id} ({lens.samples[n].prompt})",
        kind="heatmap",
        x=[str(rank) for rank in range(1, k + 1)],
        x_label="rank",
        y_label="layer",
        y=short_names(lens.columns),
        cells=[[float(p) for p in layer.top_probability[n]] for layer in lens.layers],
        texts=[[token_text(vlm, int(t)) for t in layer.top[n]] for layer in lens.layers],
        y_range=(0.0, 1.0),
    )


def _banded(name: str, layers: Sequence[Floats]) -> Series:
    quartiles = [np.quantile(values, [0.25, 0.5, 0.75]) for values in layers]
    low, middle, high = ([float(q[i]) for q in quartiles] for i in range(3))
    return Series(name, middle, low=low, high=high)


def _labelled(lens: Lens, rows: Ints) -> Ints:
    return rows[lens.layers[0].label_rank[rows] > 0]


def _median(values: Floats) -> float:
    return float(np.median(values))


def _mean(values: Floats) -> float:
    return float(values.mean())


def _or_none(summary: Callable[[Floats], float], values: Floats) -> float | None:
    return summary(values) if len(values) else None
