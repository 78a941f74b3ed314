"""Figures of steering."""

from __future__ import annotations

from collections.abc import Mapping

from vlmlens.results import Figure, Series
from vlmlens_plugins.analysis._sweeps.pictures import heat_map
from vlmlens_plugins.analysis.steering.measuring import Estimate
from vlmlens_plugins.analysis.steering.steered import Place, Steered


def figures(steered: Steered) -> list[Figure]:
    """What the best site does over strengths; and all sites at all strengths."""
    answer = steered.aim.answer
    found = [
        _strengths(steered),
        heat_map(
            "steering-moved",
            f"Share of answers that move to {answer!r}, by site and strength",
            _shares(steered.moved),
            label="share",
        ),
    ]
    if steered.altered:
        found.append(
            heat_map(
                "steering-untouched",
                "Share of untouched questions with another answer, by site and strength",
                _shares(steered.altered),
                label="share",
            )
        )
    return found


def _strengths(steered: Steered) -> Figure:
    strengths = sorted(steered.options.strengths)
    site, answer = steered.best.site, steered.aim.answer
    series = [_line(f"answers moved to {answer!r}", steered.moved, site, strengths)]
    random = [steered.random_share(each, untouched=False) for each in strengths]
    series.append(Series("the same, random directions", random, dashed=True))
    if steered.altered:
        series.append(_line("untouched answers altered", steered.altered, site, strengths))
        random = [steered.random_share(each, untouched=True) for each in strengths]
        series.append(Series("the same, random directions (untouched)", random, dashed=True))
    return Figure(
        name="steering-strengths",
        title=f"What the direction at {site} does, by strength",
        kind="line",
        x=[f"{each:g}" for each in strengths],
        x_label="times the direction",
        y_label="share",
        series=series,
        y_range=(0.0, 1.0),
    )


def _line(name: str, values: Mapping[Place, Estimate], site: str, strengths: list[float]) -> Series:
    at = [values[site, each] for each in strengths]
    return Series(
        name,
        [float(one.value) for one in at],
        [float(one.low) for one in at],
        [float(one.high) for one in at],
    )


def _shares(values: Mapping[Place, Estimate]) -> dict[tuple[str, str], float]:
    return {(site, f"{strength:g}"): float(one.value) for (site, strength), one in values.items()}
