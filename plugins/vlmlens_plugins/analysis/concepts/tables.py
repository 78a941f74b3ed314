"""What was found, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vlmlens.results import Cell, Table
from vlmlens_plugins.analysis._results import joined, table
from vlmlens_plugins.analysis.concepts.measuring import Found, Placed
from vlmlens_plugins.analysis.concepts.projecting import Projected
from vlmlens_plugins.analysis.concepts.scores import Controlled, Score

Saved = Mapping[tuple[str, str, str], str]


def tables(found: Sequence[Found], projected: Sequence[Projected], saved: Saved) -> list[Table]:
    """The complete numbers."""
    columns = [
        {"set": each.given.name, **_column(score), **_shares(placed)}
        for each in found
        for score, placed in zip(each.scores, each.placed, strict=True)
    ]
    made = [
        ("columns", "How near samples of a concept are, by column", columns, ("set", "column")),
        ("directions", "Directions of concepts", [r for e in found for r in _directions(e, saved)],
         ("set", "column", "concept")),
        ("alike", "Cosines between the means of concepts, less their mean",
         [row for each in found for row in _alike(each)], ("set", "column", "concept", "other")),
        ("sets", "What was compared", [row for each in found for row in _set(each)],
         ("set", "concept")),
    ]  # fmt: skip
    plain = [
        table(f"concepts-{name}", title, rows, keys) for name, title, rows, keys in made if rows
    ]
    title = "Samples on directions: 0 is the mean of others, 1 that of the concept"
    parts = [_projected(each) for each in projected]
    return [
        *plain,
        *[joined("concepts-projected", title, parts, ("file", "sample"))] * bool(parts),
    ]


def _column(score: Score) -> dict[str, Cell]:
    return {
        "column": score.column,
        "verdict": score.verdict.value,
        **_controlled("knn", score.knn),
        "majority": score.majority,
        "gap": score.gap.value,
        "gap_low": score.gap.low,
        "gap_high": score.gap.high,
        "knn_p_corrected": score.corrected,
        "samples": score.tested,
        "groups": score.knn.found.groups,
        **_controlled("separation", score.pairs.separation),
        "cosine_within": score.pairs.within,
        "cosine_between": score.pairs.between,
        **_controlled("silhouette", score.pairs.silhouette),
        "samples_of_pairs": score.pairs.samples,
    }


def _controlled(name: str, value: Controlled) -> dict[str, Cell]:
    return {
        name: value.found.value,
        f"{name}_low": value.found.low,
        f"{name}_high": value.found.high,
        f"{name}_shuffled": value.shuffled,
        f"{name}_p": value.p,
    }


def _shares(placed: Placed) -> dict[str, Cell]:
    shares = [*placed.components.shares.tolist(), None, None, None]
    return {f"variance_{i + 1}": shares[i] for i in range(3)}


def _directions(each: Found, saved: Saved) -> list[dict[str, Cell]]:
    counts = each.drawn.counts()
    return [
        {
            "set": each.given.name,
            "column": learned.column,
            "concept": concept,
            "samples": int(counts[number]),
            "distance": None if direction is None else direction.norm,
            "halves": float(halves) if np.isfinite(halves := learned.halves[number]) else None,
            "file": saved.get((each.given.name, learned.column, concept)),
        }
        for learned in each.learned
        for number, (concept, direction) in enumerate(
            zip(each.given.concepts, learned.directions, strict=True)
        )
    ]


def _alike(each: Found) -> list[dict[str, Cell]]:
    names = each.given.concepts
    return [
        {
            "set": each.given.name,
            "column": learned.column,
            "concept": names[i],
            "other": names[j],
            "cosine": float(learned.alike[i, j]),
        }
        for learned in each.learned
        for i in range(len(names))
        for j in range(i + 1, len(names))
    ]


def _set(each: Found) -> list[dict[str, Cell]]:
    given = each.given
    everything, drawn = given.counts(), each.drawn.counts()
    kept: list[dict[str, Cell]] = [
        {"set": given.name, "concept": name, "samples": int(everything[i]), "used": int(drawn[i])}
        for i, name in enumerate(given.concepts)
    ]
    left: list[dict[str, Cell]] = [
        {"set": given.name, "concept": name, "samples": None, "used": 0} for name in given.left_out
    ]
    return [*kept, *left]


def _projected(each: Projected) -> dict[str, Sequence[Cell]]:
    count = len(each.samples)
    return {
        "file": [each.file] * count,
        "sample": [sample.id for sample in each.samples],
        "concept": [each.direction.aim.towards] * count,
        "column": [each.column] * count,
        "projection": each.values.tolist(),
        "has_it": each.has,
        "learned_from": each.seen,
    }
