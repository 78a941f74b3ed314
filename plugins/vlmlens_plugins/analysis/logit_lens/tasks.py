"""Tasks side by side: which attribute settles at which depth."""

from __future__ import annotations

import numpy as np

from vlmlens.results import Cell, Figure, Series, Table
from vlmlens_plugins.analysis._columns import short_names
from vlmlens_plugins.analysis._statistics import bootstrap_weights, generator, interval
from vlmlens_plugins.analysis.logit_lens.report import Lens
from vlmlens_plugins.analysis.logit_lens.vocabulary import Ints

_DRAWS = 1000


def table(lens: Lens, seed: int) -> Table:
    """One row per task: settling layer with its spread, and a 95 % interval of its mean.

    The mean counts layers read before the answer is top-1 to stay (so an answer that is top-1
    from the first layer on counts 0); the interval resamples whole groups.
    """
    rows = [_row(lens, task, members, seed) for task, members in lens.tasks.items()]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return Table(f"{lens.stem}-tasks", "Settling depth by task", columns)


def figure(lens: Lens) -> Figure:
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


def _row(lens: Lens, task: str, rows: Ints, seed: int) -> dict[str, Cell]:
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
        "settling_layer_quarter": lens.layer_name(early),
        "settling_layer_three_quarters": lens.layer_name(late),
        "settling_mean": float(settled.mean()),
        "settling_mean_low": low,
        "settling_mean_high": high,
        "never": float((settled == total).mean()),
    }


def _mean_interval(lens: Lens, task: str, rows: Ints, seed: int) -> tuple[float, float]:
    owners = np.array([lens.samples[i].split_group for i in rows])
    _, place = np.unique(owners, return_inverse=True)
    sums, counts = np.bincount(place, lens.settled[rows]), np.bincount(place)
    weights = bootstrap_weights(len(counts), _DRAWS, generator(seed, "settling", task))
    low, high = interval((weights @ sums) / (weights @ counts))
    return float(low), float(high)
