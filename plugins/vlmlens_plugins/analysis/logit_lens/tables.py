"""The logit lens at one position per sample, as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmlens.abc import ModelAdapter
from vlmlens.results import Cell, Table
from vlmlens_plugins.analysis._results import joined, table
from vlmlens_plugins.analysis._statistics import generator, interval, resampled_means
from vlmlens_plugins.analysis.logit_lens.sheets import Texts
from vlmlens_plugins.analysis.logit_lens.single_position import Lens
from vlmlens_plugins.analysis.logit_lens.vocabulary import Ints

Floats = npt.NDArray[Any]
_DRAWS = 1000


def tables(lens: Lens, shown: Sequence[int], vlm: ModelAdapter, seed: int) -> list[Table]:
    """Means per task and layer, top tokens of single samples, chosen words, settling by task."""
    rows = [
        _row(lens, task, members, i)
        for task, members in lens.tasks.items()
        for i in range(len(lens.columns))
    ]
    made = [
        table(f"{lens.stem}-layers", "Answer, label and entropy by task and layer", rows),
        _token_table(lens, shown, Texts(vlm)),
    ]
    if lens.words:
        made.append(_word_table(lens))
    if len(lens.tasks) > 1:
        made.append(_task_table(lens, seed))
    made.append(_settling_table(lens))
    return made


def _settling_table(lens: Lens) -> Table:
    """Of every sample, the number of the layer at which its answer settles; the first is 0."""
    parts: list[dict[str, Sequence[Cell]]] = [
        {
            "sample": [lens.samples[i].id for i in members],
            "task": [task] * len(members),
            "settling": lens.settled[members].tolist(),
        }
        for task, members in lens.tasks.items()
    ]
    return joined(f"{lens.stem}-settling", "Settling depth of every sample", parts)


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
            found = lens.shown[n]
            pairs = zip(found.top[i, 0], found.top_probability[i, 0], strict=True)
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
    return table(f"{lens.stem}-tokens", "Top tokens of single samples by layer", rows)


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
    return table(f"{lens.stem}-words", "Chosen words by task and layer", rows)


def _task_table(lens: Lens, seed: int) -> Table:
    """One row per task: quartiles of the settling layer, and the mean of its number.

    The first layer read has the number 0. The 95 % interval of the mean resamples whole groups.
    """
    rows = [_task_row(lens, task, members, seed) for task, members in lens.tasks.items()]
    return table(f"{lens.stem}-tasks", "Settling depth by task", rows)


def _task_row(lens: Lens, task: str, rows: Ints, seed: int) -> dict[str, Cell]:
    settled, total = lens.settled[rows], len(lens.columns)
    early, middle, late = (
        int(q) for q in np.quantile(settled, [0.25, 0.5, 0.75], method="inverted_cdf")
    )
    low, high = _mean_interval(lens, task, rows, seed)
    return {
        "task": task,
        "samples": len(rows),
        "layers": total,
        "settling_layer": lens.layer_name(middle),
        "settling_layer_p25": lens.layer_name(early),
        "settling_layer_p75": lens.layer_name(late),
        "settling_mean": float(settled.mean()),
        "settling_mean_low": low,
        "settling_mean_high": high,
        "never": float((settled == total).mean()),
    }


def _mean_interval(lens: Lens, task: str, rows: Ints, seed: int) -> tuple[float, float]:
    owners = [lens.samples[i].split_group for i in rows]
    number = {name: i for i, name in enumerate(sorted(set(owners)))}
    place = np.array([number[name] for name in owners])
    sums, counts = np.bincount(place, lens.settled[rows]), np.bincount(place)
    rng = generator(seed, "settling", task)
    low, high = interval(resampled_means(sums, counts, _DRAWS, rng))
    return float(low), float(high)


def _median(values: Floats) -> float:
    return float(np.median(values))


def _mean(values: Floats) -> float:
    return float(values.mean())


def _or_none(summary: Callable[[Floats], float], values: Floats) -> float | None:
    return summary(values) if len(values) else None
