"""Whether samples of a concept lie together at a column, beside shuffled labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vlmlens.results import Verdict
from vlmlens.statistics import holm
from vlmlens_plugins.analysis._estimates import Estimate, Resampled
from vlmlens_plugins.analysis._statistics import generator, permutation_p
from vlmlens_plugins.analysis.concepts.neighbours import find_neighbours
from vlmlens_plugins.analysis.concepts.options import ConceptsOptions
from vlmlens_plugins.analysis.concepts.pairs import MOST, Pairs
from vlmlens_plugins.analysis.concepts.rows import Rows
from vlmlens_plugins.analysis.concepts.sets import ConceptSet
from vlmlens_plugins.analysis.probe.control_labels import shuffled_within

PAIR_DRAWS = 199
"""Shuffles of labels over pairs at most."""
_CHUNK = 100


@dataclass(frozen=True, slots=True)
class Controlled:
    """A number beside what it is with shuffled labels.

    Args:
        found: The number, with a 95 % interval over groups.
        shuffled: Its mean with shuffled labels.
        p: One-sided p-value among these.
    """

    found: Estimate
    shuffled: float
    p: float


@dataclass(frozen=True, slots=True)
class OfPairs:
    """What pairs of samples of different groups say.

    Args:
        separation: Mean cosine within a concept less that between concepts, of centred rows.
        within: Mean cosine within.
        between: Mean cosine between.
        silhouette: Mean silhouette.
        samples: Samples behind these.
    """

    separation: Controlled
    within: float
    between: float
    silhouette: Controlled
    samples: int


@dataclass(frozen=True, slots=True)
class Score:
    """How concepts lie at one column.

    Args:
        column: The column.
        knn: The share of samples whose neighbours from other groups vote for their concept.
        gap: How far it is above shuffled labels, with a 95 % interval.
        majority: The share of the most frequent concept.
        tested: How many samples were tested.
        pairs: Cosines and silhouettes.
        corrected: The p-value of `knn`, by Holm's method over all columns and concept sets.
        verdict: The answer.
    """

    column: str
    knn: Controlled
    gap: Estimate
    majority: float
    tested: int
    pairs: OfPairs
    corrected: float = 1.0
    verdict: Verdict = Verdict.INCONCLUSIVE


def score(
    column: str, rows: Rows, given: ConceptSet, options: ConceptsOptions, draws: int, seed: int
) -> Score | None:
    """Measure one column; None where no sample has a neighbour in another group.

    Args:
        column: Its name.
        rows: float32 `[samples, width]`.
        given: The samples and their concepts.
        options: The analysis's options.
        draws: How often labels are shuffled for the test of neighbours.
        seed: Of everything random.
    """
    near = find_neighbours(rows, given.groups, options.k, options.metric)
    tested = near.tested
    if not tested.any():
        return None
    classes = len(given.concepts)
    hit = (near.votes(given.y[None], classes) == given.y)[0].astype(np.float64)
    chance, null = np.zeros(len(hit)), []
    for labels in _shuffled(given, draws, seed, "neighbours"):
        right = near.votes(labels, classes) == labels
        null.append(right[:, tested].mean(1))
        chance += right.sum(0)
    names = [sample.split_group for sample in given.samples]
    resampled = Resampled(names, options.resamples, generator(seed, "concepts", "resamples"))
    known = np.where(tested, hit, np.nan)
    share = resampled.share(known)
    return Score(
        column,
        _controlled(share, np.concatenate(null)),
        _gap(share, resampled.mean(known - chance / draws)),
        float(given.counts().max() / len(given.samples)),
        int(tested.sum()),
        _of_pairs(rows, given, options, seed),
    )


def judged(scores: Sequence[Score], options: ConceptsOptions) -> list[Score]:
    """Scores with corrected p-values and verdicts.

    Args:
        scores: Of everything that is tested, columns and concept sets.
        options: `alpha` and `min_gap`.
    """
    corrected = holm([each.knn.p for each in scores])
    return [
        replace(each, corrected=float(p), verdict=_verdict(each, float(p), options))
        for each, p in zip(scores, corrected, strict=True)
    ]


def least_gap(shuffled: float, options: ConceptsOptions) -> float:
    """The gap that a verdict needs."""
    return options.min_gap * (1 - shuffled)


def overall(scores: Sequence[Score]) -> tuple[Verdict, Score]:
    """The verdict over several columns, and the column that shows most."""
    best = max(scores, key=lambda each: each.gap.value)
    verdicts = {each.verdict for each in scores}
    if Verdict.ENCODED in verdicts:
        there = [each for each in scores if each.verdict is Verdict.ENCODED]
        return Verdict.ENCODED, max(there, key=lambda each: each.gap.value)
    return (
        Verdict.NOT_ENCODED if verdicts == {Verdict.NOT_ENCODED} else Verdict.INCONCLUSIVE
    ), best


def _verdict(each: Score, corrected: float, options: ConceptsOptions) -> Verdict:
    least, gap = least_gap(each.knn.shuffled, options), each.gap
    if corrected <= options.alpha and gap.low > 0 and gap.value >= least:
        return Verdict.ENCODED
    if corrected > options.alpha and gap.high < least:
        return Verdict.NOT_ENCODED
    return Verdict.INCONCLUSIVE


def _gap(share: Estimate, gap: Estimate) -> Estimate:
    """The gap, with the exact interval where all votes are right or wrong."""
    if share.value not in (0.0, 1.0):
        return gap
    shuffled = share.value - gap.value
    return Estimate(gap.value, share.low - shuffled, share.high - shuffled, gap.groups)


def _of_pairs(rows: Rows, given: ConceptSet, options: ConceptsOptions, seed: int) -> OfPairs:
    kept = given.chosen(MOST, seed)
    some, rows = given.take(kept), rows[kept]
    pairs, classes = Pairs(rows, some.groups, options.metric), len(given.concepts)
    real = pairs.measure(some.y[None], classes)
    draws = min(options.permutations, PAIR_DRAWS)
    labels = np.concatenate(list(_shuffled(some, draws, seed, "pairs")))
    null = pairs.measure(labels, classes)
    names = [sample.split_group for sample in some.samples]
    drawn = Resampled(names, options.resamples, generator(seed, "concepts", "pairs"))
    return OfPairs(
        _controlled(drawn.mean(real.separation[0]), _means(null.separation)),
        float(_means(real.within)[0]),
        float(_means(real.between)[0]),
        _controlled(drawn.mean(real.silhouette[0]), _means(null.silhouette)),
        len(some.samples),
    )


def _shuffled(
    given: ConceptSet, draws: int, seed: int, purpose: str
) -> Sequence[npt.NDArray[np.generic]]:
    rng = generator(seed, "concepts", purpose, given.name)
    nothing = np.zeros(len(given.y), np.int64)
    return list(
        shuffled_within(given.y.astype(np.int8), given.groups, nothing, draws, rng, chunk=_CHUNK)
    )


def _controlled(found: Estimate, null: npt.NDArray[np.float64]) -> Controlled:
    known = null[np.isfinite(null)]
    if not len(known) or not np.isfinite(found.value):
        return Controlled(found, float("nan"), 1.0)
    return Controlled(found, float(known.mean()), permutation_p(found.value, known))


def _means(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """float64 `[draws]`: means over samples that have a number."""
    known = np.isfinite(values)
    sums: npt.NDArray[np.float64] = np.where(known, values, 0).sum(1) / np.maximum(known.sum(1), 1)
    return sums
