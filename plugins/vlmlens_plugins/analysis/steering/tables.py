"""Tables of steering."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from vlmlens.abc import ModelAdapter
from vlmlens.results import Cell, Table
from vlmlens_plugins.analysis._results import table
from vlmlens_plugins.analysis._sweeps import Swept
from vlmlens_plugins.analysis.steering.measuring import Estimate, cells_of
from vlmlens_plugins.analysis.steering.steered import Place, Steered, times


def tables(steered: Steered, vlm: ModelAdapter, saved: Sequence[str]) -> list[Table]:
    """Sites with their controls, all strengths, and single samples at the best site."""
    at = times(steered.options.stated)
    found = [
        table(
            "steering-sites",
            f"Directions and their controls, added {at}",
            list(_sites(steered, saved)),
            keys=("site", "rows"),
        ),
        table(
            "steering-strengths",
            "What the directions do, by site and strength",
            [_place(steered, place) for place in steered.places],
            keys=("site", "strength"),
        ),
        table(
            "steering-samples",
            f"Answers without and with the direction at {steered.best.site}, added {at}",
            [*_samples(steered, steered.wanted, vlm), *_samples(steered, steered.untouched, vlm)],
            keys=("task",),
        ),
    ]
    if steered.untouched is not None:
        found.append(
            table(
                "steering-untouched",
                f"Untouched questions by task, direction at {steered.best.site}",
                list(_tasks(steered, steered.untouched)),
                keys=("task", "strength"),
            )
        )
    return found


def _sites(steered: Steered, saved: Sequence[str]) -> Iterator[dict[str, Cell]]:
    at = steered.options.stated
    for number, each in enumerate(steered.directions):
        place = each.site, at
        row: dict[str, Cell] = {
            "site": each.site,
            "rows": each.rows,
            "norm": each.norm,
            "samples": len(steered.wanted.items),
            **_named("change", steered.change[place]),
            **_named("moved", steered.moved[place]),
        }
        for beside in steered.besides[each.site]:
            means = beside.change.mean(1)
            row[f"{beside.kind}_change"] = float(means.mean())
            row[f"{beside.kind}_change_most"] = float(means.max())
            row[f"{beside.kind}_moved"] = float(beside.moved.mean())
        row["p_holm"] = steered.p[each.site]
        if saved:
            row["file"] = saved[number]
        yield row


def _place(steered: Steered, place: Place) -> dict[str, Cell]:
    row: dict[str, Cell] = {
        "site": place[0],
        "strength": place[1],
        **_named("change", steered.change[place]),
        **_named("moved", steered.moved[place]),
        "kl": steered.kl(place, untouched=False),
    }
    if steered.untouched is not None:
        row |= _named("untouched_altered", steered.altered[place])
        row |= _named("untouched_lost", steered.lost[place])
        row["untouched_kl"] = steered.kl(place, untouched=True)
    return row


def _samples(steered: Steered, swept: Swept | None, vlm: ModelAdapter) -> Iterator[dict[str, Cell]]:
    if swept is None:
        return
    (cell,) = cells_of(swept, steered.best.site, steered.options.stated)
    for item, one in zip(swept.items, swept.results[cell], strict=True):
        yield {
            "sample": item.target.id,
            "task": item.task,
            "steered": swept is steered.wanted,
            "right": item.target.label,
            "before": vlm.decode([one["base"]["top"]]).strip(),
            "after": vlm.decode([one["edited"]["top"]]).strip(),
            "kl": one["kl_base"],
        }


def _tasks(steered: Steered, swept: Swept) -> Iterator[dict[str, Cell]]:
    kept, right, before = swept.kept(), swept.says(0), swept.says(0, "base")
    divergence = swept.divergence("base")
    for task in dict.fromkeys(item.task for item in swept.items):
        rows = [i for i, item in enumerate(swept.items) if item.task == task]
        for strength in steered.options.strengths:
            (cell,) = cells_of(swept, steered.best.site, strength)
            yield {
                "task": task,
                "strength": strength,
                "samples": len(rows),
                "kept": float(kept[cell, rows].mean()),
                "right_before": float(before[cell, rows].mean()),
                "right": float(right[cell, rows].mean()),
                "kl": float(divergence[cell, rows].mean()),
            }


def _named(name: str, one: Estimate) -> Mapping[str, Cell]:
    return {name: float(one.value), f"{name}_low": float(one.low), f"{name}_high": float(one.high)}
