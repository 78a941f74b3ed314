"""What removal says: findings, tables, a figure, the overview."""

from __future__ import annotations

from vlmlens.results import Cell, Figure, Finding, Glance, Table
from vlmlens_plugins.analysis._results import table
from vlmlens_plugins.analysis.removal.asked import object_of
from vlmlens_plugins.analysis.removal.measured import Effect, Estimate, Measured, Place

_WORDS = {"random": "random directions", "other": "other objects' directions"}


def findings(found: Measured) -> list[Finding]:
    """What the chosen edit does to absent and present objects, and to other questions."""
    said = [_answers(found), _logits(found)]
    altered = found.altered()
    if altered is not None and found.untouched is not None:
        beside = found.altered("random")
        assert beside is not None  # noqa: S101
        said.append(
            Finding(
                f"Of {len(found.untouched.items)} other questions about the same pictures, "
                f"{altered.value:.1%} get another answer ({_interval(altered)}); with random "
                f"directions {beside.value:.1%}.",
                subject="other questions",
                values={**_ends("altered", altered), "random_altered": beside.value},
            )
        )
    return said


def _answers(found: Measured) -> Finding:
    own = found.own
    absent, present = own.said(False), own.said(True)
    absent_before, present_before = own.said(False, before=True), own.said(True, before=True)
    beside = "; ".join(
        f"with {_WORDS[kind]} {each.said(False).value:.0%} and {each.said(True).value:.0%}"
        for kind, each in found.controls.items()
    )
    text = (
        f"Removed {_where(found)}: the model says yes to {absent.value:.0%} of absent objects, "
        f"before {absent_before.value:.0%}, and to {present.value:.0%} of present ones, before "
        f"{present_before.value:.0%}; {beside}."
    )
    if found.hallucinated == 0:
        text = f"{text[:-1]}; no absent object was hallucinated before."
    values: dict[str, Cell] = {
        "site": found.best.site,
        "source": found.best.source,
        "strength": found.best.strength,
        "hallucinated": found.hallucinated,
        **_ends("absent", absent),
        **_ends("present", present),
        "absent_before": absent_before.value,
        "present_before": present_before.value,
        **_ends("gone", own.gone(False)),
        **_ends("lost", own.gone(True)),
        "p": found.p,
    }
    return Finding(text, found.verdict, subject=_task(found), values=values)


def _logits(found: Measured) -> Finding:
    absent, present = found.own.moved(False), found.own.moved(True)
    controls = {kind: float(each.gains().mean()) for kind, each in found.controls.items()}
    beside = ", ".join(f"{_WORDS[kind]} {value:+.2f}" for kind, value in controls.items())
    how = "further than any control" if found.specific else "no further than the controls"
    text = (
        f"It moves the logit of yes less that of no by {absent.value:+.2f} where the object is "
        f"absent ({_interval(absent, '+.2f')}) and by {present.value:+.2f} where it is present "
        f"({_interval(present, '+.2f')}): {found.gain:+.2f} towards the truth, {how} ({beside})."
    )
    values: dict[str, Cell] = {
        **_ends("absent_change", absent),
        **_ends("present_change", present),
        "gain": found.gain,
        **{f"{kind}_gain": value for kind, value in controls.items()},
    }
    return Finding(text, subject=_task(found), values=values)


def tables(found: Measured) -> list[Table]:
    """The chosen edit beside its controls, all that was tried, and single questions."""
    made = [
        table("removal-reported", "The chosen edit and its controls", _reported(found), ("what",)),
        table(
            "removal-tried",
            "All that was tried, on the half of the groups on which the edit was chosen",
            _tried(found),
            ("site", "source", "strength"),
        ),
        table("removal-objects", "Objects, in the reported half", _objects(found), ("object",)),
        table("removal-samples", "Questions, in the reported half", _samples(found)),
    ]
    return [each for each in made if len(each)]


def _reported(found: Measured) -> list[dict[str, Cell]]:
    rows: list[dict[str, Cell]] = []
    for what, each in {"own object": found.own, **found.controls}.items():
        row: dict[str, Cell] = {"what": _WORDS.get(what, what), "cells": len(each.swept.cells)}
        for name, side in (("absent", False), ("present", True)):
            row[f"{name}_before"] = each.said(side, before=True).value
            row |= _ends(f"{name}_yes", each.said(side))
            row |= _ends(f"{name}_gone", each.gone(side))
            row |= _ends(f"{name}_change", each.moved(side))
        row["gain"] = float(each.gains().mean())
        altered = found.altered("" if what == "own object" else what) if what != "other" else None
        rows.append(row | _ends("others_altered", altered))
    return rows


def _tried(found: Measured) -> list[dict[str, Cell]]:
    rows = []
    for number, place in enumerate(found.places):
        each = Effect(found.tried.take([number]), found.seed, found.options.draws)
        row: dict[str, Cell] = {
            "site": place.site,
            "source": place.source,
            "strength": place.strength,
            "chosen": place == found.best,
        }
        for name, side in (("absent", False), ("present", True)):
            row[f"{name}_before"] = each.said(side, before=True).value
            row[f"{name}_yes"] = each.said(side).value
            row[f"{name}_change"] = each.moved(side).value
        rows.append(row | {"gain": float(each.gains().mean())})
    return rows


def _objects(found: Measured) -> list[dict[str, Cell]]:
    by_name: dict[str, list[int]] = {}
    for number, item in enumerate(found.own.swept.items):
        by_name.setdefault(object_of(item.target), []).append(number)
    own = found.own
    rows: list[dict[str, Cell]] = []
    for name, numbers in sorted(by_name.items()):
        row: dict[str, Cell] = {"object": name}
        for side, there in (("absent", False), ("present", True)):
            chosen = [i for i in numbers if own.there[i] == there]
            row[side] = len(chosen)
            row[f"{side}_yes_before"] = int(own.before[chosen].sum())
            row[f"{side}_yes"] = int(own.after[chosen].sum())
        rows.append(row)
    return rows


def _samples(found: Measured) -> list[dict[str, Cell]]:
    own = found.own
    base, edited = own.swept.difference("base")[0], own.swept.difference()[0]
    return [
        {
            "sample": item.target.id,
            "object": object_of(item.target),
            "there": bool(own.there[i]),
            "before": "yes" if base[i] > 0 else "no",
            "after": "yes" if edited[i] > 0 else "no",
            "difference_before": float(base[i]),
            "difference": float(edited[i]),
        }
        for i, item in enumerate(own.swept.items)
    ]


def figures(found: Measured) -> list[Figure]:
    """The gain of everything that was tried."""
    sites = list(dict.fromkeys(each.site for each in found.places))
    columns = list(dict.fromkeys(_column(found, each) for each in found.places))
    cells: list[list[float | None]] = [[None] * len(columns) for _ in sites]
    for place, row in zip(found.places, _tried(found), strict=True):
        value = row["gain"]
        assert isinstance(value, float)  # noqa: S101
        cells[sites.index(place.site)][columns.index(_column(found, place))] = value
    return [
        Figure(
            "removal-tried",
            "Change of logits towards the truth, on the half on which the edit was chosen",
            "heatmap",
            x=columns,
            x_label="where the direction is from, and the strength",
            y_label="edited image rows",
            y=sites,
            cells=cells,
        )
    ]


def _column(found: Measured, place: Place) -> str:
    strength = f"{place.strength:g}"
    source = place.source
    return strength if found.options.method == "steer" else f"{source}, {strength}"


def overview(found: Measured) -> list[Glance]:
    """What became of the absent objects."""
    own = found.own
    before = own.said(False, before=True).value
    return [
        Glance(
            subject=_task(found),
            question="absent objects can be removed",
            text=f"said of {before:.0%}, then of {own.said(False).value:.0%}",
            verdict=found.verdict,
            value=own.said(False).value,
            beside=f"present {own.said(True).value:.0%}",
        )
    ]


def notes(found: Measured) -> list[str]:
    """How the numbers were made."""
    sides = [int((found.own.there == side).sum()) for side in (True, False)]
    method = (
        "project-out: t is the state of the last token of the object's word, run as text alone; "
        "image rows x with x.t > 0 become x - strength (x.t) / (t.t) t (Jiang et al. 2024, arXiv "
        "2410.02762)."
        if found.options.method == "project-out"
        else "steer: the mean image row of pictures with the object less that of pictures without "
        "it, learnt on the first half, is subtracted from every image row; strength 1 is the "
        "whole difference."
    )
    return [
        method,
        f"The edit was chosen among {len(found.places)} on half of the groups. All findings are "
        f"about the other half: {sides[0]} questions about present objects and {sides[1]} about "
        "absent ones.",
        "An answer is yes if the logit of yes is above that of no, at the token where they differ.",
        f"Controls: {found.options.controls} random directions of equal length, and as many "
        "exchanges of the objects' directions: words have much in common, and only what is beyond "
        "another word's effect is about the object.",
        "A change towards the truth is the mean of the change where the object is present and of "
        "the negative change where it is absent, so that saying no to everything gains nothing.",
    ]


def _where(found: Measured) -> str:
    best = found.best
    read = "" if best.source == best.site else f" (words read at {best.source})"
    return f"at {best.site}{read} with strength {best.strength:g}"


def _task(found: Measured) -> str:
    return found.own.swept.items[0].task or "presence"


def _interval(one: Estimate, form: str = ".0%") -> str:
    return f"95 % interval {one.low:{form}} to {one.high:{form}}"


def _ends(name: str, one: Estimate | None) -> dict[str, Cell]:
    if one is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
