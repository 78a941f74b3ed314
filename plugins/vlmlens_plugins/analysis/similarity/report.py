"""What is said about how alike columns are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmlens.results import Cell, Finding, Verdict
from vlmlens_plugins.analysis._columns import short_names
from vlmlens_plugins.analysis.similarity.compared import Compared, parting
from vlmlens_plugins.analysis.similarity.measures import NEIGHBOURS, RSA, Measure
from vlmlens_plugins.analysis.similarity.options import SimilarityOptions

EQUAL = 0.999
"""CKA of columns that are said to be equal."""

_MOST_NEAREST = 12
"""Sentences on the nearest column; with more columns, the table has them."""

_WORDS = {RSA: "RSA", NEIGHBOURS: "mutual neighbours"}


def findings(found: Compared, limit: float) -> list[Finding]:
    """The answer first: where runs part, or where one changes most; then the nearest columns."""
    if found.alone:
        made = [_change(found), _closest(found)]
    else:
        first = _parted(found, limit) if found.corresponding else _closest(found)
        made = [first, _order(found), *_nearest(found)]
    said = [one for one in made if one is not None]
    if said:
        return said
    text = (
        f"No similarity is defined: {found.groups} groups are too few for columns as wide as these."
    )
    return [Finding(text, Verdict.INCONCLUSIVE)]


def number(measure: Measure, place: tuple[int, int]) -> str:
    """A value with its interval and baseline: "0.93 [0.91, 0.95], permuted 0.00"."""
    low, high = measure.low[place], measure.high[place]
    ends = f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) and np.isfinite(high) else ""
    return f"{measure.value[place]:.2f}{ends}, permuted {measure.permuted[place]:z.2f}"


def values(found: Compared, place: tuple[int, int]) -> dict[str, Cell]:
    """All measures of a pair."""
    made: dict[str, Cell] = {
        "column": found.first[place[0]],
        "other": found.second[place[1]],
    }
    for name, measure in found.measures.items():
        parts = {
            "": measure.value,
            "_low": measure.low,
            "_high": measure.high,
            "_permuted": measure.permuted,
            "_p": measure.p,
        }
        made |= {f"{name}{end}": cell(part[place]) for end, part in parts.items()}
    return made


def cell(value: float) -> float | None:
    """A number, or None where it is not defined."""
    return float(value) if np.isfinite(value) else None


def _change(found: Compared) -> Finding | None:
    """Where the representation of one run changes most."""
    cka = found.cka.value
    known = [place for place in found.path if np.isfinite(cka[place])]
    if not known:
        return None
    least = min(known, key=lambda place: cka[place])
    rest = sorted(float(cka[place]) for place in known if place != least)
    beside = f"; the other steps have {rest[0]:.2f} to {rest[-1]:.2f}" if rest else ""
    first, second = found.first[least[0]], found.second[least[1]]
    text = (
        f"From layer to layer, the representation changes most from {first} to {second}: "
        f"CKA {number(found.cka, least)}{beside}."
    )
    return Finding(text, values=values(found, least))


def _closest(found: Compared) -> Finding | None:
    """The most similar pair, beside all other measures."""
    best = found.best
    if best is None:
        return None
    first, second = found.first[best[0]], found.second[best[1]]
    mine, other = ("", "") if found.alone else tuple(f" of {name}" for name in found.names)
    more = [
        f"{word} {number(found.measures[name], best)}"
        for name, word in _WORDS.items()
        if name in found.measures and np.isfinite(found.measures[name].value[best])
    ]
    text = (
        f"Most alike are {first}{mine} and {second}{other}: CKA {number(found.cka, best)}"
        f"{''.join(f'; {one}' for one in more)}."
    )
    return Finding(text, values=values(found, best))


def _parted(found: Compared, limit: float) -> Finding | None:
    """Where two runs with the same columns part."""
    made = parting(found, limit)
    cka, names = np.diag(found.cka.value), list(found.first)
    if not np.isfinite(cka).any():
        return None
    runs = f"{found.names[1]} and {found.names[0]}"
    at = made.place if made.place is not None else made.below
    if at is None:
        least = int(np.nanargmin(cka))
        verdict = Verdict.NO_DIFFERENCE if made.above else Verdict.INCONCLUSIVE
        text = (
            f"{runs} part nowhere (CKA below {limit:g}): the lowest of {len(names)} columns is "
            f"{names[least]}, CKA {number(found.cka, (least, least))}{_equal(found)}."
        )
        return Finding(text, verdict, values=values(found, (least, least)))
    sure = made.place is not None
    text = (
        f"{runs} part at {names[at]}, the first column with CKA below {limit:g}: "
        f"{number(found.cka, (at, at))}{_equal(found)}."
        if sure
        else f"{runs} may part at {names[at]}: CKA {number(found.cka, (at, at))}, not "
        f"significantly below {limit:g}{_equal(found)}."
    )
    said = {**values(found, (at, at)), "p_corrected": cell(made.p[at])}
    return Finding(text, Verdict.DIFFERS if sure else Verdict.INCONCLUSIVE, values=said)


def _equal(found: Compared) -> str:
    """Up to where the runs are equal."""
    cka = np.diag(found.cka.value)
    changed = np.flatnonzero(np.isfinite(cka) & (cka < EQUAL))
    if not len(changed):
        return f"; all have at least {EQUAL}"
    if not changed[0]:
        return ""
    return f"; up to {found.first[changed[0] - 1]} it is at least {EQUAL}"


def _order(found: Compared) -> Finding | None:
    """Whether nearest columns keep the order of depth."""
    near = found.nearest
    if len(near) < 3:
        return None
    if found.corresponding:
        same = sum(i == j for i, j in near)
        text = f"{same} of {len(near)} columns are nearest to the same column of the other run."
        return Finding(text, values={"columns": len(near), "same": same})
    places = np.array(near)
    if np.ptp(places[:, 1]) == 0:
        text = f"All {len(near)} columns are nearest to {found.second[near[0][1]]}."
        return Finding(text, values={"columns": len(near)})
    ranks = [np.unique(part, return_inverse=True)[1] for part in places.T]
    kept = float(np.corrcoef(ranks[0], ranks[1])[0, 1])
    text = (
        f"Along the depth of {found.names[0]}, the nearest columns of {found.names[1]} run from "
        f"{found.second[near[0][1]]} to {found.second[near[-1][1]]}; their order agrees with "
        f"the depth by a correlation of {kept:.2f}."
    )
    return Finding(text, values={"columns": len(near), "correlation": kept})


def _nearest(found: Compared) -> list[Finding]:
    """The nearest column of each, or of some; nothing of columns nearest to their counterpart."""
    near = [(i, j) for i, j in found.nearest if not (found.corresponding and i == j)]
    if len(near) > _MOST_NEAREST:
        near = [near[i] for i in np.linspace(0, len(near) - 1, _MOST_NEAREST).round().astype(int)]
    first, second = short_names(found.first), short_names(found.second)
    return [
        Finding(
            f"{first[i]} of {found.names[0]} is nearest to {second[j]} of {found.names[1]}: CKA "
            f"{number(found.cka, (i, j))}.",
            values=values(found, (i, j)),
        )
        for i, j in near
    ]


def notes(found: Compared, options: SimilarityOptions) -> list[str]:
    """How the numbers were made."""
    blocks = (
        "all of them at once"
        if found.blocks == 1
        else f"in {found.blocks} random blocks, whose estimates are averaged (Nguyen et al. 2021)"
    )
    made = [
        "CKA: linear (Kornblith et al. 2019), with the unbiased HSIC_1 of Song et al. (2012), over "
        f"{found.samples:,} samples of {found.groups:,} groups, {blocks}. No two samples of a "
        "group are compared. It is 1 for columns that are equal up to rotation, scale and shift; "
        "unrelated ones have about 0, which can be a negative number.",
        *_drawn(found, options),
        f"RSA: Spearman's correlation of the {options.distance} dissimilarities of all pairs of "
        f"{found.subset:,} samples, each of another group; rows less their mean.",
    ]
    if NEIGHBOURS in found.measures:
        made.append(
            f"Mutual neighbours (Huh et al. 2024): the share of the {options.neighbours} nearest "
            f"neighbours by {options.distance} distance that both columns have, among the same "
            f"samples; unrelated columns share {options.neighbours / (found.subset - 1):.3f}."
        )
    folds = found.cka.folds
    return [
        *made,
        f"95 % intervals: Student's t and the jackknife of Busing et al. (1999) over {folds} parts "
        "of the groups.",
        f"Permuted: the mean of {options.permutations} permutations of the rows of one side, over "
        f"the {found.subset:,} samples. p: how often the largest permuted number of all pairs "
        "reaches the number of these samples (Westfall and Young 1993).",
        *_parting_note(found, options),
    ]


def _drawn(found: Compared, options: SimilarityOptions) -> Sequence[str]:
    """That not all samples were used, and how far off that can be."""
    if found.all <= options.samples:
        return ()
    errors = found.cka.error[np.isfinite(found.cka.error)]
    most = f" The largest standard error of a CKA is {errors.max():.1g}." if len(errors) else ""
    return (
        f"CKA is of {found.samples:,} of {found.all:,} samples, drawn by the seed, of as many "
        f"different groups as there are.{most}",
    )


def _parting_note(found: Compared, options: SimilarityOptions) -> Sequence[str]:
    if not found.corresponding:
        return ()
    return (
        f"Where runs part: a one-sided t test of CKA against {options.parted:g} at each column, "
        "corrected by Holm (1979) over the columns.",
    )
