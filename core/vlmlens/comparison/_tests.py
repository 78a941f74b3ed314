"""Tests of every number that two runs share, corrected, and put into words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens.comparison._differences import Difference, from_intervals, paired, unpaired
from vlmlens.comparison._figures import figures
from vlmlens.comparison._measures import About, Measure, measures
from vlmlens.comparison._sides import Side
from vlmlens.report._text import plural
from vlmlens.results import Cell, Finding, Result, Table, Verdict
from vlmlens.statistics import holm

DRAWS = 9_999
_ALPHA = 0.05
_LEAST = 2
"""Samples that a test needs at least."""


@dataclass(frozen=True, slots=True)
class Tested:
    """A number in the first side and in another, with the test of their difference."""

    measure: Measure
    about: About
    side: str
    difference: Difference
    corrected: float

    @property
    def verdict(self) -> Verdict:
        """Whether they differ."""
        return Verdict.DIFFERS if self.corrected <= _ALPHA else Verdict.NO_DIFFERENCE


def compare(sides: Sequence[Side], *, seed: int = 0, draws: int = DRAWS) -> Result:
    """The first side against each of the others.

    Args:
        sides: Two or more.
        seed: Of all randomness.
        draws: Of each permutation test and bootstrap.
    """
    found = [measures(side) for side in sides]
    tested = _corrected(list(_tests(sides, found, seed, draws)))
    return Result(
        analysis="compare",
        title=f"{sides[0].name} beside {', '.join(side.name for side in sides[1:])}",
        findings=_findings(tested, sides[0].name),
        tables=[_test_table(tested), _side_table(sides)],
        figures=figures(sides, found),
        options={"seed": seed, "draws": draws},
        notes=_NOTES,
        warnings=_warnings(sides, tested),
    )


_NOTES = (
    "All runs are compared with the first one. Where numbers of single samples are known, the "
    "samples that both runs have are paired by id. Two-sided permutation test: the signs of the "
    "differences are flipped at random, whole groups at a time. 95 % interval: bootstrap over "
    "groups. Where the runs share no sample, groups are exchanged between the runs instead.",
    "Where only a number and its 95 % interval are known, the two intervals are taken as "
    "independent and normal. With fewer than about 50 samples a side, such a test finds "
    "differences too often.",
    "p-values are corrected by Holm (1979) over all tests of the same number: over tasks, columns "
    "and runs. 'No difference seen' does not prove that there is none: the interval says which "
    "differences are excluded.",
)


def _tests(
    sides: Sequence[Side],
    found: Sequence[Mapping[tuple[str, str, str], Measure]],
    seed: int,
    draws: int,
) -> Iterator[Tested]:
    single = {(m.analysis, m.name) for m in found[0].values() if m.single}
    for key, measure in found[0].items():
        if measure.known and (measure.analysis, measure.name) in single:
            continue
        for number, (side, others) in enumerate(zip(sides[1:], found[1:], strict=True), 1):
            if key not in others:
                continue
            other = others[key]
            for about in measure.single or measure.known:
                rng = np.random.default_rng([seed, number])
                made = _test(measure, other, about, (sides[0], side), rng, draws)
                if made is not None:
                    yield Tested(measure, about, side.name, made, 1.0)


def _test(
    first: Measure,
    second: Measure,
    about: About,
    sides: tuple[Side, Side],
    rng: np.random.Generator,
    draws: int,
) -> Difference | None:
    if about in first.known and about in second.known:
        return from_intervals(first.known[about], second.known[about])
    a, b = first.single.get(about, {}), second.single.get(about, {})
    both = [sample for sample in a if sample in b]
    if len(both) >= _LEAST:
        reference, value = (np.array([side[sample] for sample in both]) for side in (a, b))
        return paired(reference, value, _groups(sides[0], both), rng, draws)
    if both or min(len(a), len(b)) < _LEAST:
        return None
    groups = _groups(sides[0], a), _groups(sides[1], b)
    return unpaired(np.array([*a.values()]), np.array([*b.values()]), groups, rng, draws)


def _groups(side: Side, samples: Sequence[str] | Mapping[str, float]) -> list[str]:
    return [side.groups.get(sample, sample) for sample in samples]


def _corrected(tested: Sequence[Tested]) -> list[Tested]:
    families: dict[int, list[Tested]] = {}
    for each in tested:
        families.setdefault(id(each.measure), []).append(each)
    return [
        Tested(each.measure, each.about, each.side, each.difference, p)
        for family in families.values()
        for each, p in zip(family, holm([t.difference.p for t in family]).tolist(), strict=True)
    ]


def _findings(tested: Sequence[Tested], reference: str) -> list[Finding]:
    """What differs, first; then a sentence per number on what does not.

    Numbers by column take one sentence for all columns. Other numbers of single samples than
    shares are in the table only.
    """
    groups: dict[tuple[int, str, str], list[Tested]] = {}
    for each in tested:
        groups.setdefault((id(each.measure), each.side, _subject(each)), []).append(each)
    differ, same = [], dict[tuple[int, str], list[Tested]]()
    for (measure, side, _), members in groups.items():
        if all(each.verdict is Verdict.NO_DIFFERENCE for each in members):
            same.setdefault((measure, side), []).extend(members)
        elif "column" in members[0].measure.keys:
            differ.append(_over_columns(members, reference))
        elif members[0].measure.yes_no or members[0].measure.known:
            differ.append(_finding(members[0], reference))
    shown = [m for m in same.values() if m[0].measure.yes_no or m[0].measure.known]
    return [*differ, *(_alike(members, reference) for members in shown)]


def _alike(members: Sequence[Tested], reference: str) -> Finding:
    first = members[0]
    subjects = ", ".join(filter(None, dict.fromkeys(map(_subject, members))))
    low = min(each.difference.low for each in members)
    high = max(each.difference.high for each in members)
    where = f" for {subjects}" if subjects else ""
    text = (
        f"{first.measure.analysis}, {first.measure.name}: no difference seen between {first.side} "
        f"and {reference}{where} ({plural(len(members), 'test')}, intervals within "
        f"[{low:+.3f}, {high:+.3f}])."
    )
    values: dict[str, Cell] = {
        "run": first.side,
        "measure": first.measure.name,
        "difference_low": low,
        "difference_high": high,
    }
    return Finding(text, Verdict.NO_DIFFERENCE, values=values)


def _subject(tested: Tested) -> str:
    """What it is about, the column left out."""
    named = zip(tested.measure.keys, tested.about, strict=True)
    return " / ".join(value for key, value in named if key != "column")


def _column(tested: Tested) -> str:
    return dict(zip(tested.measure.keys, tested.about, strict=True)).get("column", "")


def _finding(tested: Tested, reference: str) -> Finding:
    subject, made = _subject(tested), tested.difference
    over = f" over {plural(made.samples, 'sample')}" if made.samples else ""
    how = {
        "paired": f"paired{over}",
        "unpaired": f"unpaired{over}",
        "intervals": "from intervals",
    }
    text = (
        f"{_head(tested)}: {made.value:.3f} in {tested.side}, {made.reference:.3f} in {reference} "
        f"({how[made.test]})."
    )
    values: dict[str, Cell] = {
        "run": tested.side,
        "measure": tested.measure.name,
        "difference": made.difference,
        "difference_low": made.low,
        "difference_high": made.high,
        "p_corrected": tested.corrected,
    }
    return Finding(text, tested.verdict, subject, values)


def _head(tested: Tested) -> str:
    subject = _subject(tested)
    return f"{tested.measure.analysis}, {subject}, {tested.measure.name}".replace(", ,", ",")


def _over_columns(members: Sequence[Tested], reference: str) -> Finding:
    differing = [each for each in members if each.verdict is Verdict.DIFFERS]
    widest = max(differing, key=lambda each: abs(each.difference.difference))
    one = _finding(widest, reference)
    count = f"differs at {len(differing)} of {plural(len(members), 'column')}"
    sentence = one.text.removeprefix(f"{_head(widest)}: ")
    text = f"{_head(widest)}: {count}, most at {_column(widest)}: {sentence}"
    return Finding(text, one.verdict, one.subject, {**one.values, "columns": len(differing)})


def _test_table(tested: Sequence[Tested]) -> Table:
    rows: list[dict[str, Cell]] = [
        {
            "analysis": each.measure.analysis,
            "measure": each.measure.name,
            "subject": _subject(each),
            "column": _column(each) or None,
            "run": each.side,
            "value": each.difference.value,
            "reference": each.difference.reference,
            "difference": each.difference.difference,
            "difference_low": each.difference.low,
            "difference_high": each.difference.high,
            "p": each.difference.p,
            "p_corrected": each.corrected,
            "test": each.difference.test,
            "samples": each.difference.samples or None,
            "verdict": each.verdict.value,
        }
        for each in tested
    ]
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    return Table("compare-tests", "All tests", columns)


def _side_table(sides: Sequence[Side]) -> Table:
    names = dict.fromkeys(name for side in sides for name in side.facts)
    columns: dict[str, list[Cell]] = {"run": [side.name for side in sides]}
    columns.update({name: [side.facts.get(name) for side in sides] for name in names})
    return Table("compare-runs", "The runs", columns)


def _warnings(sides: Sequence[Side], tested: Sequence[Tested]) -> list[str]:
    warned = []
    first = sides[0]
    for side in sides[1:]:
        both = [sample for sample in first.prints if sample in side.prints]
        other = sum(first.prints[sample] != side.prints[sample] for sample in both)
        if other:
            warned.append(
                f"{first.name} and {side.name}: the prompt, image or label differs in {other:,} of "
                f"{plural(len(both), 'sample')} with the same id; they are paired all the same."
            )
        left = len(first.prints) + len(side.prints) - 2 * len(both)
        if both and left:
            warned.append(
                f"{first.name} and {side.name}: {plural(left, 'sample')} that only one run has are "
                "left out of paired tests."
            )
        if not any(each.side == side.name for each in tested):
            warned.append(f"{first.name} and {side.name} share no number that can be compared.")
    return warned
