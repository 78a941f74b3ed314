"""All numbers of a look."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmlens.results import Cell, Table
from vlmlens_plugins.analysis._results import table
from vlmlens_plugins.analysis.look.answers import chance
from vlmlens_plugins.analysis.look.evidence import Evidence
from vlmlens_plugins.analysis.look.looked import Looked

Rows = list[dict[str, Cell]]


def tables(found: Sequence[Looked]) -> list[Table]:
    """Answers, pictures, layers, components and the comparison; those that have rows."""
    made = [
        table("answers", "The answer and its alternatives", _answers(found), ("rank",)),
        table("pictures", "The answer to altered pictures", _pictures(found), ("shown", "fill")),
        table("layers", "What every block would answer", _layers(found), ("block",)),
        table("components", "What heads and MLPs carry", _components(found), ("site", "rows")),
        table("difference", "What rows carry of the difference", _rows(found), ("site", "rows")),
    ]
    return [one for one in made if len(one)]


def _answers(found: Sequence[Looked]) -> Rows:
    rows: Rows = []
    for one in found:
        for rank, (text, logp) in enumerate(one.answer.options, 1):
            whole = one.answer.text if rank == 1 else None
            rows.append(
                {
                    "sample": one.sample.id,
                    "question": one.sample.prompt,
                    "rank": rank,
                    "text": text,
                    "probability": float(np.exp(logp)),
                    "answer": whole,
                }
            )
    return rows


def _pictures(found: Sequence[Looked]) -> Rows:
    return [
        {"sample": one.sample.id, **row}
        for one in found
        if one.evidence is not None
        for row in _altered(one.evidence)
    ]


def _altered(found: Evidence) -> Rows:
    several = {"part covered": found.covered, "part alone": found.alone, "blank": found.blank}
    rows: Rows = [_row("as it is", "", found.base, found.base, None)]
    for shown, by_fill in several.items():
        for fill, odds in by_fill.items():
            said = found.blind[fill].text if shown == "blank" else None
            rows.append(_row(shown, fill, odds, found.base, said))
    for number, drop in enumerate(found.elsewhere, 1):
        rows.append(
            _row(f"other part {number} covered", "mean", found.base - drop, found.base, None)
        )
    return rows


def _row(shown: str, fill: str, odds: float, base: float, answer: str | None) -> dict[str, Cell]:
    return {
        "shown": shown,
        "fill": fill,
        "probability": chance(odds),
        "effect": base - odds,
        "answer": answer,
    }


def _layers(found: Sequence[Looked]) -> Rows:
    return [
        {
            "sample": one.sample.id,
            "block": name,
            "probability": chance(score),
            "reads": ", ".join(f"{text} {p:.2f}" for text, p in top),
            "formed": number == one.layers.formed,
        }
        for one in found
        if one.layers is not None
        for number, (name, score, top) in enumerate(
            zip(one.layers.names, one.layers.scores, one.layers.tops, strict=True)
        )
    ]


def _components(found: Sequence[Looked]) -> Rows:
    rows: Rows = []
    for one in found:
        if one.components is None:
            continue
        known = one.components
        real = dict(zip(known.strongest, known.drops, strict=True))
        rows += [
            {
                "sample": one.sample.id,
                "site": node.site,
                "rows": node.rows,
                "estimate": float(known.estimates[number]),
                "effect": real.get(number),
            }
            for number, node in enumerate(known.nodes)
        ]
    return rows


def _rows(found: Sequence[Looked]) -> Rows:
    return [
        {"sample": one.sample.id, "site": site, "rows": rows, "share": share}
        for one in found
        if one.traced is not None
        for (site, rows), share in one.traced.shares.items()
    ]
