"""What the probe found, as figures."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.results import Figure, Series
from vlmlens_plugins.analysis._columns import short_names
from vlmlens_plugins.analysis._results import slug
from vlmlens_plugins.analysis.probe.learning_curve import figure
from vlmlens_plugins.analysis.probe.prober import Probed


def figures(probed: Sequence[Probed]) -> list[Figure]:
    """Per target, accuracy over depth with controls, majority and the model's own answers."""
    curves = [
        figure(item.target.name, item.curve, numbers=item.target.numbers)
        for item in probed
        if item.curve is not None
    ]
    return [*(_figure(item) for item in probed), *curves]


def _figure(item: Probed) -> Figure:
    scores = item.scored.scores
    series = [
        Series(
            "probe",
            [score.accuracy for score in scores],
            low=[score.accuracy_low for score in scores],
            high=[score.accuracy_high for score in scores],
        ),
        _level("control (shuffled labels)", [score.control for score in scores]),
    ]
    if item.trial.by_type:
        series.append(_level("control task (by type)", [score.control_task for score in scores]))
    series.append(_level("majority", [score.majority for score in scores]))
    if item.answered is not None:
        series.append(_level("the model's answers", [item.answered.accuracy] * len(scores)))
    numbers = item.target.numbers
    return Figure(
        name=f"probe-{slug(item.target.name)}",
        title=f"How well {item.target.name} can be read from each layer",
        kind="line",
        x=short_names([score.column for score in scores]),
        x_label="layer, from the picture to the answer",
        y_label=f"held-out {'R2' if numbers else 'accuracy'} (band: 95 % interval)",
        series=series,
        y_range=None if numbers else (0.0, 1.0),
    )


def _level(name: str, values: Sequence[float | None]) -> Series:
    return Series(name, list(values), dashed=True)
