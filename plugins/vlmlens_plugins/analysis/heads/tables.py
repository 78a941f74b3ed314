"""Tables of the analysis of heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vlmlens.abc.model_work import JSON
from vlmlens.results import Cell, Table
from vlmlens_plugins.analysis._results import table
from vlmlens_plugins.analysis.heads.measured import INDUCTION, Floats, Measured, by_head

Condition = tuple[str, Sequence[Measured], Mapping[str, Sequence[Mapping[str, JSON]]], Floats]
"""Its name, its roles, the results by order of the tokens, the copying scores."""

Image = tuple[Measured, Sequence[Mapping[str, JSON]]]
_KEYS = ("condition", "block", "head")


def tables(conditions: Sequence[Condition], image: Image | None) -> list[Table]:
    """All heads with all scores; all heads and the image; and a list of heads by role."""
    rows = [row for each in conditions for row in _heads(*each)]
    made = [table("heads", "Scores of every head", rows, _KEYS)]
    if image is not None:
        seen = list(_looks(*image))
        made.append(table("heads-image", "What the last row reads of the image", seen, _KEYS))
    named = [row for _, roles, _, copied in conditions for row in _named(roles, copied)]
    named += _named([image[0]], None) if image is not None else []
    if named:
        made.append(table("heads-by-role", "Heads by role", named, ("role", "condition", "site")))
    return made


def _heads(
    condition: str,
    roles: Sequence[Measured],
    results: Mapping[str, Sequence[Mapping[str, JSON]]],
    copied: Floats,
) -> Iterator[dict[str, Cell]]:
    reordered = by_head(results["reordered"], "induction").mean(1)
    for i, (block, number) in enumerate(roles[0].heads):
        row: dict[str, Cell] = {"condition": condition, "block": block, "head": number}
        row["sequences"] = roles[0].groups
        for one in roles:
            row |= _of(one, i)
            if one.role == INDUCTION:
                row["induction_reordered"] = float(reordered[i])
        row["copying"] = _number(copied[i])
        row["roles"] = ", ".join(one.role for one in roles if one.has[i]) or None
        yield row


def _looks(one: Measured, results: Sequence[Mapping[str, JSON]]) -> Iterator[dict[str, Cell]]:
    whole, sinks = (by_head(results, name).mean(1) for name in ("image", "sinks"))
    for i, (block, number) in enumerate(one.heads):
        yield {
            "condition": one.condition,
            "block": block,
            "head": number,
            "samples": len(results),
            "with_sinks": float(whole[i]),
            **_of(one, i),
            "sinks": float(sinks[i]),
            "looks": bool(one.has[i]),
        }


def _of(one: Measured, head: int) -> dict[str, Cell]:
    """The score of a head in a role, under the role's name."""
    effect, name = one.effect, one.role.replace("-", "_")
    return {
        name: float(effect.value[head]),
        f"{name}_low": float(effect.low[head]),
        f"{name}_high": float(effect.high[head]),
        f"{name}_control": float(effect.control[head]),
        f"{name}_p_holm": float(effect.p[head]),
    }


def _named(roles: Sequence[Measured], copied: Floats | None) -> list[dict[str, Cell]]:
    return [
        {
            "role": one.role,
            "condition": one.condition,
            "site": f"{one.heads[i][0]}.attn.heads[{one.heads[i][1]}]",
            "score": float(one.effect.value[i]),
            "control": float(one.effect.control[i]),
            "p_holm": float(one.effect.p[i]),
            "copying": None if copied is None else _number(copied[i]),
        }
        for one in roles
        for i in one.best_first
    ]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
