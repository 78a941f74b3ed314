"""Figures of the runs side by side: over columns as lines, else as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlmlens.comparison._measures import About, Measure
from vlmlens.comparison._sides import Side
from vlmlens.report._text import slug
from vlmlens.results import Figure, Series

Found = Mapping[tuple[str, str, str], Measure]
Point = tuple[float, float | None, float | None]


def figures(sides: Sequence[Side], found: Sequence[Found]) -> list[Figure]:
    """A figure per yes-or-no number, and per first number of a table that has an interval."""
    made: list[Figure] = []
    seen: set[tuple[str, str]] = set()
    names = [side.name for side in sides]
    for key, measure in found[0].items():
        every = [others[key] for others in found if key in others]
        if len(every) < len(found) or not (measure.yes_no or key[:2] not in seen):
            continue
        if measure.known:
            seen.add(key[:2])
        elif not measure.yes_no:
            continue
        made.extend(_figures(key, names, every))
    return made


def _figures(
    key: tuple[str, str, str], names: Sequence[str], found: Sequence[Measure]
) -> list[Figure]:
    points = [_points(measure) for measure in found]
    keys = found[0].keys
    if "column" not in keys:
        abouts = list(dict.fromkeys(about for each in points for about in each))
        return [
            _figure(key, "", names, points, {" / ".join(about) or "all": about for about in abouts})
        ]
    place = keys.index("column")
    subjects: dict[About, dict[str, About]] = {}
    for each in points:
        for about in each:
            rest = (*about[:place], *about[place + 1 :])
            subjects.setdefault(rest, {})[about[place]] = about
    return [
        _figure(key, " / ".join(subject), names, points, columns)
        for subject, columns in subjects.items()
    ]


def _points(measure: Measure) -> dict[About, Point]:
    if measure.known:
        return {about: (n.value, n.low, n.high) for about, n in measure.known.items()}
    means = {about: sum(v.values()) / len(v) for about, v in measure.single.items()}
    return {about: (mean, None, None) for about, mean in means.items()}


def _figure(
    key: tuple[str, str, str],
    subject: str,
    names: Sequence[str],
    points: Sequence[Mapping[About, Point]],
    positions: Mapping[str, About],
) -> Figure:
    analysis, table, measure = key
    of = f" of {subject}" if subject else ""
    return Figure(
        name="-".join(slug(part) for part in (analysis, table, measure, subject) if part),
        title=f"{analysis}: {measure}{of}",
        kind="line" if subject else "bar",
        x=list(positions),
        y_label=measure,
        series=[
            _series(name, [known.get(about) for about in positions.values()])
            for name, known in zip(names, points, strict=True)
        ],
    )


def _series(name: str, points: Sequence[Point | None]) -> Series:
    low = [point[1] if point else None for point in points]
    high = [point[2] if point else None for point in points]
    has = any(value is not None for value in low)
    values = [point[0] if point else None for point in points]
    return Series(name, values, low=low if has else None, high=high if has else None)
