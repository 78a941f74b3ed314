"""What was found, in sentences, and how it was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

import numpy as np

from vlmlens.results import Cell, Finding, Glance, Verdict
from vlmlens_plugins.analysis._columns import Side, short_names, side_of
from vlmlens_plugins.analysis._tasks import ALL
from vlmlens_plugins.analysis.concepts.measuring import Found
from vlmlens_plugins.analysis.concepts.options import ConceptsOptions
from vlmlens_plugins.analysis.concepts.pairs import MOST
from vlmlens_plugins.analysis.concepts.projecting import Projected
from vlmlens_plugins.analysis.concepts.scores import PAIR_DRAWS, Score, least_gap, overall


def findings(found: Sequence[Found], options: ConceptsOptions) -> list[Finding]:
    """Where samples of a concept lie together, by side where verdicts differ."""
    return [finding for each in found for finding in _of_set(each, options)]


def projections(found: Sequence[Projected]) -> list[Finding]:
    """What the run's samples are on given directions."""
    return [_projected(each) for each in found]


def overview(found: Sequence[Found]) -> list[Glance]:
    """One cell per task or attribute."""
    told: dict[str, Glance] = {}
    for each in found:
        told.setdefault(_subject(each), _glance(each))
    return list(told.values())


def notes(options: ConceptsOptions, found: Sequence[Found], saved: int) -> list[str]:
    """How the numbers were made, and of which sets samples were drawn."""
    nearness = (
        "the cosine of rows less their mean over samples"
        if options.metric == "cosine"
        else "Euclidean distance"
    )
    against = "the other samples" if options.reference == "others" else "all samples"
    told = [
        f"Neighbours: the {options.k} nearest samples of other groups by {nearness}, by exact "
        f"search among at most {options.samples:,} samples of a set, drawn by the seed; the "
        "concept that most of them have, and of as many the nearer one. Accuracy is the share of "
        "samples that get their own concept.",
        "Control: labels shuffled over whole groups, with the same neighbours, at least "
        f"{options.permutations} times. p-values are one-sided and corrected over all columns and "
        "concept sets (Holm 1979). The share of the most frequent concept is in the tables.",
        "Verdicts rest on the gap above shuffled labels. The minimum gap is "
        f"{options.min_gap:g} x (1 - shuffled). Encoded: corrected p <= {options.alpha:g}, the "
        "gap's interval lies above 0, and the gap reaches the minimum. Not encoded: corrected p is "
        "above that, and the interval ends below the minimum. Inconclusive: anything else. 95 % "
        "intervals: percentile bootstrap over groups.",
        "Separation: for each sample, the mean cosine with samples of its concept less that with "
        "samples of other concepts, of rows less their mean; then the mean over samples. "
        "Silhouettes: Rousseeuw 1987, by 1 - cosine of such rows, or Euclidean (metric). "
        f"Both are over pairs of different groups, of at most {MOST:,} samples; their p-values are "
        f"of at most {PAIR_DRAWS} shuffles, and not corrected.",
        "Components (PCA): of all samples of a set, centred, not scaled; of the drawn samples only "
        "where rows are wider than 8,192. Points of pictures are drawn at random.",
        "A column with several rows per sample is measured by their mean.",
    ]  # fmt: skip
    if saved:
        told.append(
            f"{saved} directions were saved: the mean of a concept's drawn samples less that of "
            f"{against}. Use one as add(FILE) or project-out(FILE), or project another run with "
            "onto=FILE. `halves` is the cosine between the directions of two random halves of the "
            "groups."
        )
    return [*told, *(_drawn(each) for each in found if len(each.drawn.y) < len(each.given.y))]


def _drawn(each: Found) -> str:
    """How many samples stand for a set, and how far half of them agrees with the other half."""
    best = overall(each.scores)[1].column
    halves = next(one.halves for one in each.learned if one.column == best)
    known = halves[np.isfinite(halves)]
    agree = f"{np.median(known):.3f}" if len(known) else "not known"
    return (
        f"{each.given.name}: {len(each.drawn.y):,} of {len(each.given.y):,} samples were drawn for "
        f"directions and neighbours. At {best}, the median cosine between directions of two halves "
        f"of them is {agree}."
    )


def _of_set(each: Found, options: ConceptsOptions) -> list[Finding]:
    by_side: dict[Side, list[Score]] = {}
    for score in each.scores:
        by_side.setdefault(side_of(score.column), []).append(score)
    if len({overall(scores)[0] for scores in by_side.values()}) == 1:
        side = "" if len(by_side) > 1 else next(iter(by_side)).value
        return [_finding(each, each.scores, side, options)]
    return [_finding(each, scores, side.value, options) for side, scores in by_side.items()]


def _finding(each: Found, scores: Sequence[Score], side: str, options: ConceptsOptions) -> Finding:
    verdict, best = overall(scores)
    where = f" on the {side}" if side else ""
    numbers = f"kNN {best.knn.found.value:.2f} against {best.knn.shuffled:.2f} shuffled"
    name = each.given.name
    if verdict is Verdict.ENCODED:
        text = (
            f"{name}: samples of a concept lie together{where} {_span(scores)} "
            f"({numbers} at {best.column})."
        )
    elif verdict is Verdict.NOT_ENCODED:
        text = (
            f"{name}: samples of a concept do not lie together{where} ({numbers} at best, "
            f"{best.column})."
        )
    else:
        least = least_gap(best.knn.shuffled, options)
        text = (
            f"{name}: unclear whether samples of a concept lie together{where} ({numbers} at "
            f"{best.column}, gap from {best.gap.low:.2f} to {best.gap.high:.2f}, "
            f"minimum {least:.2f})."
        )
    return Finding(text, verdict, name, _values(best), scope=side)


def _span(scores: Sequence[Score]) -> str:
    """Where it is: "from A on", "from A to B", "at A"."""
    places = [i for i, each in enumerate(scores) if each.verdict is Verdict.ENCODED]
    names = short_names([each.column for each in scores])
    first, last = places[0], places[-1]
    if first == last:
        return f"at {names[first]}"
    if len(places) < last - first + 1:
        return f"at {len(places)} of {len(scores)} columns, the first is {names[first]}"
    return f"from {names[first]} {'on' if last == len(scores) - 1 else f'to {names[last]}'}"


def _values(best: Score) -> Mapping[str, Cell]:
    return {
        "column": best.column,
        "knn": best.knn.found.value,
        "knn_low": best.knn.found.low,
        "knn_high": best.knn.found.high,
        "shuffled": best.knn.shuffled,
        "majority": best.majority,
        "gap": best.gap.value,
        "gap_low": best.gap.low,
        "gap_high": best.gap.high,
        "p_corrected": best.corrected,
        "separation": best.pairs.separation.found.value,
        "silhouette": best.pairs.silhouette.found.value,
        "samples": best.tested,
        "groups": best.knn.found.groups,
    }


def _projected(each: Projected) -> Finding:
    aim = each.direction.aim
    has, others = each.mean(has=True), each.mean(has=False)
    if each.area is None:
        text = (
            f"On the direction towards {aim.towards!r} at {each.column}, {len(each.values):,} "
            f"samples were projected, {sum(each.seen):,} of them from groups that it was learned "
            "from; too few of the others are known to have the concept or not."
        )
    else:
        text = (
            f"On the direction towards {aim.towards!r} at {each.column}, new samples with the "
            f"concept lie at {has:.2f} and those without it at {others:.2f} (AUC {each.area:.2f})."
        )
    values: dict[str, Cell] = {
        "file": each.file, "auc": each.area, "mean_with": has, "mean_without": others,
        "learned_from": sum(each.seen),
    }  # fmt: skip
    return Finding(text, subject=aim.task or aim.attribute, values=values)


def _subject(each: Found) -> str:
    if each.given.attribute == "label" and not each.given.task:
        return ALL
    return each.given.name.partition("@")[0]


def _glance(each: Found) -> Glance:
    verdict, best = overall(each.scores)
    curve: dict[str, float] = {}
    for score in each.scores:
        site = score.column.partition("/")[0]
        curve[site] = max(score.knn.found.value, curve.get(site, -inf))
    words = {Verdict.ENCODED: "", Verdict.NOT_ENCODED: "nowhere"}.get(verdict, "unclear")
    return Glance(
        _subject(each),
        "lies together",
        words or _span(each.scores),
        verdict,
        value=best.knn.found.value,
        beside=f"shuffled {best.knn.shuffled:.2f}",
        curve=list(curve.values()),
    )
