"""Tests of every number that two runs share, corrected for their number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from vlmlens.comparison._alike import NOTE, Alike, alike, figure, finding, table
from vlmlens.comparison._beside import answer_tables, answers
from vlmlens.comparison._differences import (
    LEAST_OF_INTERVALS,
    Difference,
    from_intervals,
    paired,
    unpaired,
)
from vlmlens.comparison._figures import figures
from vlmlens.comparison._findings import Tested, column, findings, subject
from vlmlens.comparison._measures import About, Measure, measures
from vlmlens.comparison._pairs import Pair
from vlmlens.comparison._sides import Side
from vlmlens.report._text import plural
from vlmlens.results import Cell, Result, Table
from vlmlens.statistics import holm

DRAWS = 9_999
_LEAST = 2
"""Samples that a test needs at least."""


def compare(sides: Sequence[Side], *, seed: int = 0, draws: int = DRAWS) -> Result:
    """The first side against each of the others.

    Args:
        sides: Two or more.
        seed: Of all randomness.
        draws: Of each permutation test and bootstrap.
    """
    found = [measures(side) for side in sides]
    pairs = [Pair(sides[0], side) for side in sides[1:]]
    tested = _corrected(list(_tests(pairs, found, seed, draws)))
    beside = answers(sides)
    near, unmeasured = _similar(pairs, seed)
    similar = [table(near)] if near else []
    return Result(
        analysis="compare",
        title=f"{sides[0].name} beside {', '.join(side.name for side in sides[1:])}",
        findings=[*findings(tested, pairs), *filter(None, map(finding, near))],
        tables=[*answer_tables(beside), _test_table(tested), *similar, _side_table(sides)],
        figures=[*figures(sides, found), *(figure(one, i) for i, one in enumerate(near, 1))],
        options={"seed": seed, "draws": draws},
        notes=[*_NOTES, *([NOTE] if near else [])],
        warnings=[*_warnings(pairs, tested, near), *unmeasured],
        overview=beside,
    )


_NOTES = (
    "All runs are compared with the first one. Where numbers of single samples are known, the "
    "samples that both runs have are paired by id. Two-sided permutation test: the signs of the "
    "differences are flipped at random, whole groups at a time. 95 % interval: bootstrap over "
    "groups. Where the runs share no sample, groups are exchanged between the runs instead.",
    "Where only a number and its 95 % interval are known, the two intervals are taken as "
    "independent and normal, with the variance of both runs together where that is larger. With "
    f"fewer than {LEAST_OF_INTERVALS} groups or samples on a side, intervals are too narrow: "
    "nothing is tested. Nor are ranks, nor a number that is the mean of tested single samples.",
    "The same model on the same samples, with the same options, is not tested. Of the same model "
    "on some of the same samples, only single samples are.",
    "p-values are corrected by Holm (1979) over all tests of the same number: over tasks, columns "
    "and runs. 'No difference seen' does not prove that there is none: the interval says which "
    "differences are excluded.",
)

Key = tuple[str, str, str]
Found = Mapping[Key, Measure]


def _tests(
    pairs: Sequence[Pair], found: Sequence[Found], seed: int, draws: int
) -> Iterator[Tested]:
    for number, (pair, others) in enumerate(zip(pairs, found[1:], strict=True), 1):
        means = _means((found[0], others))
        done: set[tuple[object, ...]] = set()
        for key, measure in found[0].items():
            if key not in others or key in means or pair.same_result(measure.analysis):
                continue
            headline = bool(measure.known) or measure.yes_no or key in means.values()
            for about in measure.single or measure.known:
                once = (measure.analysis, measure.name, measure.keys, about)
                if once in done:
                    continue
                rng = np.random.default_rng([seed, number])
                made = _test(measure, others[key], about, pair, rng, draws)
                if made is not None:
                    done.add(once)
                    yield Tested(measure, about, pair.second.name, made, None, headline)


def _means(found: tuple[Found, Found]) -> dict[Key, Key]:
    """Numbers with intervals that are, in both runs, the means of those of single samples."""
    first, second = found
    return {
        key: single
        for key in first
        for single in first
        if key in second
        and single in second
        and first[key].is_mean_of(first[single])
        and second[key].is_mean_of(second[single])
    }


def _test(
    first: Measure,
    second: Measure,
    about: About,
    pair: Pair,
    rng: np.random.Generator,
    draws: int,
) -> Difference | None:
    if about in first.known and about in second.known:
        made = from_intervals(first.known[about], second.known[about])
        return replace(made, p=None) if made is not None and pair.same_model_and_some else made
    a, b = first.single.get(about, {}), second.single.get(about, {})
    both = [sample for sample in a if sample in b]
    if len(both) >= _LEAST:
        reference, value = (np.array([side[sample] for sample in both]) for side in (a, b))
        return paired(reference, value, _groups(pair.first, both), rng, draws)
    if both or min(len(a), len(b)) < _LEAST:
        return None
    groups = _groups(pair.first, a), _groups(pair.second, b)
    return unpaired(np.array([*a.values()]), np.array([*b.values()]), groups, rng, draws)


def _groups(side: Side, samples: Sequence[str] | Mapping[str, float]) -> list[str]:
    return [side.groups.get(sample, sample) for sample in samples]


def _corrected(tested: Sequence[Tested]) -> list[Tested]:
    families: dict[int, list[Tested]] = {}
    for each in tested:
        families.setdefault(id(each.measure), []).append(each)
    return [each for family in families.values() for each in _holm(family)]


def _holm(family: Sequence[Tested]) -> list[Tested]:
    known = [each.difference.p for each in family if each.difference.p is not None]
    corrected = iter(holm(known).tolist())
    return [
        each if each.difference.p is None else replace(each, corrected=next(corrected))
        for each in family
    ]


def _test_table(tested: Sequence[Tested]) -> Table:
    rows: list[dict[str, Cell]] = [
        {
            "analysis": each.measure.analysis,
            "measure": each.measure.name,
            "subject": subject(each),
            "column": column(each) or None,
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


def _similar(pairs: Sequence[Pair], seed: int) -> tuple[list[Alike], list[str]]:
    """The similarity of each pair of runs that has one, and why others have none."""
    made = [alike(pair, seed) for pair in pairs]
    found = [one for one, _ in made if one is not None]
    return found, [why for _, why in made if why]


def _warnings(pairs: Sequence[Pair], tested: Sequence[Tested], near: Sequence[Alike]) -> list[str]:
    warned, with_columns = [], {one.pair.second.name for one in near}
    for pair in pairs:
        names = f"{pair.first.name} and {pair.second.name}"
        tests = {each.difference.test for each in tested if each.side == pair.second.name}
        if pair.changed:
            warned.append(
                f"{names}: the prompt, image or label differs in {pair.changed:,} of "
                f"{plural(len(pair.shared), 'sample')} with the same id; they are paired all the "
                "same."
            )
        if "paired" in tests and pair.left_out:
            warned.append(
                f"{names}: {plural(pair.left_out, 'sample')} that only one run has are left out of "
                "paired tests."
            )
        equal = any(pair.same_result(name) for name in pair.second.results)
        if not (tests or equal or pair.second.name in with_columns):
            warned.append(f"{names} share no number that can be compared.")
    return warned
