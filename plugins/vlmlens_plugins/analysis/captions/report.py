"""What captions says: findings, tables, a figure, the overview."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import count

from vlmlens.results import Cell, Figure, Finding, Glance, Series, Table, Verdict
from vlmlens_plugins.analysis._results import table
from vlmlens_plugins.analysis._sweeps.effects import ALPHA
from vlmlens_plugins.analysis._tasks import ALL
from vlmlens_plugins.analysis.captions.said import Caption
from vlmlens_plugins.analysis.captions.scores import Scores, Share, corrected
from vlmlens_plugins.object_names import ObjectNames

_BARS = 20
_LONGEST = 300


def findings(found: Sequence[Scores]) -> list[Finding]:
    """One sentence per task, and one about the objects that are most often hallucinated."""
    tasks = len(found)
    said = [_finding(one, p, tasks) for one, p in zip(found, corrected(found), strict=True)]
    wrong = Counter(one.object for c in found[0].captions for one in c.hallucinated)
    if wrong:
        often = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:3]
        names = ", ".join(f"{name!r} ({count})" for name, count in often)
        total = sum(wrong.values())
        said.append(
            Finding(
                f"Of {total} hallucinated mentions, the most frequent are {names}.",
                subject=found[0].task,
                values=dict(often),
            )
        )
    return said


def _finding(one: Scores, p: float, tasks: int) -> Finding:
    wrong, mentions, having, texts, named, there = one.totals
    if not mentions:
        return Finding(
            f"{one.task}: none of {texts} texts names an object of the table.",
            Verdict.INCONCLUSIVE,
            subject=one.task,
            values={"texts": texts, "mentions": 0},
        )
    shares = one.shares
    beside = "" if math.isnan(one.exchanged) else (
        f"; with texts exchanged between images, {one.exchanged:.1%}"
    )  # fmt: skip
    text = (
        f"{one.task}: {wrong} of {mentions} named objects are not there (CHAIR_i "
        f"{_said(shares['chair_i'])}{beside}), in {having} of {texts} texts (CHAIR_s "
        f"{_said(shares['chair_s'])}); {named} of {there} objects that are there are named."
    )
    values: dict[str, Cell] = {"mentions": mentions, "texts": texts, "groups": one.groups}
    for name, share in shares.items():
        values |= _ends(name, share)
    values |= {"exchanged": _number(one.exchanged), "p": p}
    return Finding(text, _verdict(one, p, tasks), subject=one.task, values=values)


def _verdict(one: Scores, p: float, tasks: int) -> Verdict:
    if p < ALPHA:
        return Verdict.DIFFERS
    return Verdict.INCONCLUSIVE if too_few(one, tasks) else Verdict.NO_DIFFERENCE


def too_few(one: Scores, tasks: int) -> str:
    """A warning that with so few groups, no exchange can be significant; "" if one can.

    Args:
        one: Of a task.
        tasks: How many tasks are tested.
    """
    needed = next(n for n in count(2) if math.factorial(n) > tasks / ALPHA)
    if one.groups >= needed:
        return ""
    few = "1 group of samples is" if one.groups == 1 else f"{one.groups} groups of samples are"
    return f"{one.task}: {few} too few to exchange texts between; {needed} are needed."


def tables(found: Sequence[Scores], examples: int) -> list[Table]:
    """The scores by task, the objects, and texts with the words that are hallucinated."""
    captions = found[0].captions
    made = [
        table("captions-scores", "CHAIR and recall", [_row(one) for one in found], ("task",)),
        table("captions-objects", "Objects, named or there", _objects(captions), ("object",)),
        table(
            "captions-examples",
            "Texts and their hallucinated objects, the most first",
            _examples(captions, examples),
            ("task",),
        ),
    ]
    return [one for one in made if len(one)]


def _row(one: Scores) -> dict[str, Cell]:
    wrong, mentions, having, texts, named, there = one.totals
    row: dict[str, Cell] = {"task": one.task, "texts": texts, "groups": one.groups}
    row |= {"mentions": mentions, "hallucinated": wrong, "texts_with_one": having}
    row |= {"there": there, "named": named}
    for name, share in one.shares.items():
        row |= _ends(name, share)
    return row | {"exchanged": _number(one.exchanged), "p": one.p}


def _objects(captions: Sequence[Caption]) -> list[dict[str, Cell]]:
    said = Counter(one.object for c in captions for one in c.mentions)
    wrong = Counter(one.object for c in captions for one in c.hallucinated)
    there = Counter(name for c in captions for name in c.there)
    named = Counter(name for c in captions for name in c.named)
    order = sorted(said | there, key=lambda name: (-wrong[name], -said[name], name))
    return [
        {
            "object": name,
            "said": said[name],
            "true": said[name] - wrong[name],
            "hallucinated": wrong[name],
            "there": there[name],
            "named": named[name],
        }
        for name in order
    ]


def _examples(captions: Sequence[Caption], most: int) -> list[dict[str, Cell]]:
    order = sorted(captions, key=lambda one: -len(one.hallucinated))[:most]
    return [
        {
            "sample": one.sample.id,
            "task": one.sample.task or ALL,
            "text": one.text if len(one.text) <= _LONGEST else f"{one.text[:_LONGEST]}...",
            "hallucinated": ", ".join(mention.words for mention in one.hallucinated),
            "there": ", ".join(sorted(one.there)),
            "not_named": ", ".join(sorted(one.there - one.named)),
        }
        for one in order
    ]


def figures(found: Sequence[Scores]) -> list[Figure]:
    """How often the most frequent objects are named rightly and wrongly."""
    rows = [row for row in _objects(found[0].captions) if row["said"]][:_BARS]
    if not rows:
        return []
    return [
        Figure(
            "captions-objects",
            "Objects that are named: there, and hallucinated",
            "bar",
            x=[str(row["object"]) for row in rows],
            x_label="object",
            y_label="mentions",
            series=[
                Series("there", [row["true"] for row in rows]),  # type: ignore[misc]
                Series("hallucinated", [row["hallucinated"] for row in rows]),  # type: ignore[misc]
            ],
        )
    ]


def overview(found: Sequence[Scores]) -> list[Glance]:
    """CHAIR_i of each task."""
    return [
        Glance(
            subject=one.task,
            question="names objects that are not there",
            text=f"{one.shares['chair_i'].value:.0%} of mentions",
            verdict=_verdict(one, p, len(found)),
            value=one.shares["chair_i"].value,
            beside="" if math.isnan(one.exchanged) else f"exchanged {one.exchanged:.0%}",
        )
        for one, p in zip(found, corrected(found), strict=True)
        if one.totals[1]
    ]


def notes(source: str, names: ObjectNames, *, named: str | None) -> list[str]:
    """How the numbers were made."""
    table_of = "the demo's table" if named is None else f"the table {named!r}"
    return [
        source,
        f"Objects are found by {table_of}: {len(names.synonyms)} objects, the longest name first, "
        "at the borders of words, in singular and regular plural; case does not count.",
        "Negation is not understood: 'there is no dog' names a dog.",
        "CHAIR_i is the share of mentions, repeated ones too, whose object is not there; CHAIR_s "
        "the share of texts with at least one (Rohrbach et al. 2018, arXiv 1809.02156).",
        "Exchanged: the texts of each group are held against another group's objects; p is the "
        "share of exchanges with as few hallucinations.",
    ]


def _said(share: Share) -> str:
    return f"{share.value:.1%}, 95 % interval {share.low:.1%} to {share.high:.1%}"


def _ends(name: str, share: Share) -> dict[str, Cell]:
    return {
        name: _number(share.value),
        f"{name}_low": _number(share.low),
        f"{name}_high": _number(share.high),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
