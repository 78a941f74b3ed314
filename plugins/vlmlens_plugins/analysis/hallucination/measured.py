"""How well each signal tells bad samples of a task, and what it adds to the answer itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vlmlens.errors import MissingAnnotation
from vlmlens.statistics import holm
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.hallucination.asked import Case
from vlmlens_plugins.analysis.hallucination.held_out import (
    Folds,
    Learned,
    folds_of,
    held_out,
    joined,
    known,
    learned,
)
from vlmlens_plugins.analysis.hallucination.options import ABSENT, HallucinationOptions
from vlmlens_plugins.analysis.hallucination.scores import (
    Bools,
    Compared,
    Floats,
    Spread,
    area_of_risk,
    average_precision,
    balanced_accuracy,
    resamples,
    risks,
    threshold,
)
from vlmlens_plugins.analysis.hallucination.signals import (
    ANSWER,
    OBJECT,
    PROBE_IMAGE,
    PROBE_LAST,
    Signal,
    answer_words,
    attention_of,
    signals_of,
)

ALPHA = 0.05
_OBJECTS = 10
"""Bad and good samples must be of so many objects each: samples of one object can be all alike."""


@dataclass(frozen=True, slots=True)
class Gain:
    """The difference that a signal makes beside others.

    Args:
        auroc: With it.
        value: By how much AUROC is higher than without; `low` and `high` are its 95 % interval.
        p: Share of resamples in which it is not; see `Spread`.
    """

    auroc: float
    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True)
class Scored:
    """What one signal does.

    Args:
        signal: The signal.
        auroc: Alone, within strata; `low` and `high` are its 95 % interval.
        pooled: AUROC over all samples, whatever their stratum.
        precision: Average precision.
        risk: Area under the risk-coverage curve.
        curve: `risks`.
        accuracy: Balanced accuracy at a threshold of the training folds.
        gain: What it adds to the answer; None for the answer's probability itself.
        beyond: What it adds to the answer and the object's words; None where those are alike, and
            for themselves.
        p: That it adds nothing to one of them, corrected by Holm for all signals; NaN where there
            is no gain.
    """

    signal: Signal
    auroc: float
    low: float
    high: float
    pooled: float
    precision: float
    risk: float
    curve: Floats
    accuracy: float
    gain: Gain | None
    beyond: Gain | None
    p: float = np.nan


@dataclass(frozen=True, slots=True)
class Measured:
    """A task.

    Args:
        task: Its name.
        cases: Its questions.
        bad: bool `[n]`, what has to be told.
        counts: How many bad and good samples have one to be compared with.
        objects: How many objects are held out; 1: they are all alike, or none is held out.
        why_not: Why nothing can be claimed; "" if it can.
        scored: The signals, the answer's probability first; empty where they were not measured.
        answer: AUROC of the answer (its probability and which it is) as held out.
        shuffled: AUROC of the probe on shuffled targets; NaN without a probe.
        layers: `[layers]`, AUROC of the attention to the image in each layer; None: not known.
    """

    task: str
    cases: Sequence[Case]
    bad: Bools
    counts: tuple[int, int]
    objects: int
    why_not: str
    scored: Sequence[Scored] = ()
    answer: float = np.nan
    shuffled: float = np.nan
    layers: Floats | None = None
    lost: int = field(default=0)

    def adding(self, least: float) -> list[Scored]:
        """The signals inside the model that add something, most first."""
        found = [one for one in self.scored if one.signal.inside and adds(one, least)]
        return sorted(found, key=lambda one: -_gain(one))


def adds(one: Scored, least: float) -> bool:
    """Whether a signal adds at least so much AUROC, significantly, to whatever it is held to."""
    gains = [each for each in (one.gain, one.beyond) if each is not None]
    return bool(gains) and one.p <= ALPHA and min(each.value for each in gains) >= least


def measured(
    task: str,
    cases: Sequence[Case],
    options: HallucinationOptions,
    seed: int,
) -> Measured:
    """Measure a task.

    Args:
        task: Its name.
        cases: Its questions.
        options: The analysis's options.
        seed: Of folds and resamples.
    """
    bad = np.array([case.bad for case in cases])
    strata = ["" if options.target == ABSENT else case.stratum for case in cases]
    compared = Compared.of(bad, strata)
    counts = compared.counts
    objects = [case.object for case in cases] if options.hold_out == "object" else None
    several = len(set(objects or [""]))
    why_not = _why_not(cases, bad, counts, several, options)
    if why_not:
        return Measured(task, cases, bad, counts, several, why_not)
    held = [case.sample.split_group for case in cases]
    if options.hold_out == "nothing":
        held = [str(i) for i in range(len(cases))]
    try:
        folds = folds_of(bad, held, objects, options.folds, seed)
    except MissingAnnotation as error:
        return Measured(task, cases, bad, counts, several, error.message)
    tested = np.zeros(len(cases), bool)
    for cell in folds.cells:
        tested[folds.inside(cell)] = len(set(bad[folds.without([cell])].tolist())) == 2
    if min(compared.take(np.flatnonzero(tested)).counts) < options.min_class:
        few = "too few samples can be tested with their group and object held out"
        return Measured(task, cases, bad, counts, several, few)
    rng = generator(seed, "hallucination", "resamples", task)
    drawn = [[case.sample.split_group for case in cases]]
    drawn += [objects] if objects is not None and several > 1 else []
    weights = [resamples(names, options.draws, rng) for names in drawn]
    return _Bench(compared, folds, weights, options, cases).measured(task, several, seed)


class _Bench:
    """What all signals of a task are measured with."""

    def __init__(
        self,
        compared: Compared,
        folds: Folds,
        weights: Sequence[Floats],
        options: HallucinationOptions,
        cases: Sequence[Case],
    ) -> None:
        self._compared, self._folds, self._weights = compared, folds, weights
        self._options, self._cases = options, cases

    def measured(self, task: str, objects: int, seed: int) -> Measured:
        """All signals of the task."""
        signals = signals_of(self._cases, self._options.target)
        made: dict[str, Learned] = {}
        for signal in signals:
            made[signal.name] = self._scores(signal, self._compared)
        raw = np.asarray(signals[0].raw)
        answer = [known(raw, self._folds).scores]
        if self._options.target != ABSENT:
            answer += [known(one, self._folds).scores for one in answer_words(self._cases)]
        beside = [made[OBJECT].scores] if OBJECT in made else None
        base = joined(answer, self._compared.bad, self._folds)
        further = None if beside is None else self._joined([*answer, *beside])
        scored = []
        for signal in signals:
            own = made[signal.name].scores
            gain = beyond = None
            if signal.name != ANSWER:
                gain = self._gain(self._joined([*answer, own]), base, raw)
            if further is not None and beside is not None and signal.name not in (ANSWER, OBJECT):
                beyond = self._gain(self._joined([*answer, *beside, own]), further)
            scored.append(self._scored(signal, own, gain, beyond))
        everywhere = np.isfinite(base)
        looks = attention_of(self._cases)
        return Measured(
            task,
            self._cases,
            self._compared.bad,
            self._compared.counts,
            objects,
            "",
            _corrected(scored),
            self._auroc(base)[0],
            self._shuffled(signals, seed),
            None
            if looks is None
            else np.array([float(self._compared.auroc(-one)[0]) for one in looks.T]),
            int((~everywhere).sum()),
        )

    def _scores(self, signal: Signal, compared: Compared) -> Learned:
        if signal.raw is not None:
            return known(signal.raw, self._folds)
        return learned(signal.columns, compared, self._folds, self._options.C)

    def _joined(self, parts: Sequence[Floats]) -> Floats:
        return joined(parts, self._compared.bad, self._folds)

    def _gain(self, scores: Floats, *without: Floats) -> Gain:
        """The gain over the best of several scores; it has to be sure over each of them."""
        rows = np.flatnonzero(np.isfinite(np.stack([scores, *without])).all(0))
        compared = self._compared.take(rows)
        after, *before = (float(compared.auroc(one[rows])[0]) for one in (scores, *without))
        drawn = [
            [compared.auroc(one[rows], weights[:, rows]) for weights in self._weights]
            for one in (scores, *without)
        ]
        spreads = [
            Spread.of([a - b for a, b in zip(drawn[0], each, strict=True)]) for each in drawn[1:]
        ]
        best = int(np.argmax(before))
        p = max(each.p for each in spreads)
        return Gain(after, after - before[best], spreads[best].low, spreads[best].high, p)

    def _auroc(self, scores: Floats) -> tuple[float, float, float]:
        rows = np.flatnonzero(np.isfinite(scores))
        compared = self._compared.take(rows)
        spread = Spread.of([compared.auroc(scores[rows], each[:, rows]) for each in self._weights])
        return float(compared.auroc(scores[rows])[0]), spread.low, spread.high

    def _scored(
        self, signal: Signal, scores: Floats, gain: Gain | None, beyond: Gain | None
    ) -> Scored:
        own = held_out(scores, self._folds)
        rows = np.flatnonzero(np.isfinite(own))
        bad, values = self._compared.bad[rows], own[rows]
        pooled = Compared(bad, np.zeros(len(bad), np.int64))
        return Scored(
            signal,
            *self._auroc(own),
            float(pooled.auroc(values)[0]),
            average_precision(bad, values),
            area_of_risk(bad, values),
            risks(bad, values),
            self._accuracy(scores),
            gain,
            beyond,
        )

    def _accuracy(self, scores: Floats) -> float:
        """Balanced accuracy with each cell's threshold from what it learns from."""
        bad = self._compared.bad
        called = np.zeros(len(bad), bool)
        tested = np.zeros(len(bad), bool)
        for number, cell in enumerate(self._folds.cells):
            row, own = scores[number], self._folds.inside(cell)
            train = self._folds.without([cell]) & np.isfinite(row)
            if len(set(bad[train].tolist())) < 2:
                continue
            own = own & np.isfinite(row)
            called[own] = row[own] > threshold(bad[train], row[train])
            tested |= own
        return balanced_accuracy(bad[tested], called[tested])

    def _shuffled(self, signals: Sequence[Signal], seed: int) -> float:
        """AUROC of a probe whose targets were shuffled within strata."""
        probes = {one.name: one for one in signals if one.name in (PROBE_LAST, PROBE_IMAGE)}
        if not probes:
            return np.nan
        signal = probes.get(PROBE_LAST) or probes[PROBE_IMAGE]
        rng = generator(seed, "hallucination", "shuffled")
        bad = self._compared.bad.copy()
        for stratum in np.unique(self._compared.strata):
            members = np.flatnonzero(self._compared.strata == stratum)
            bad[members] = bad[rng.permutation(members)]
        shuffled = Compared(bad, self._compared.strata)
        own = held_out(self._scores(signal, shuffled).scores, self._folds)
        rows = np.flatnonzero(np.isfinite(own))
        return float(shuffled.take(rows).auroc(own[rows])[0])


def _corrected(scored: Sequence[Scored]) -> list[Scored]:
    """With p-values for all signals that are tested: the larger one of the two comparisons."""
    raw = [
        max(each.p for each in (one.gain, one.beyond) if each is not None)
        for one in scored
        if one.gain is not None
    ]
    told = iter(holm(raw))
    return [one if one.gain is None else replace(one, p=float(next(told))) for one in scored]


def _gain(one: Scored) -> float:
    return -np.inf if one.gain is None else one.gain.value


def _why_not(
    cases: Sequence[Case],
    bad: Bools,
    counts: tuple[int, int],
    several: int,
    options: HallucinationOptions,
) -> str:
    """Why nothing can be said of a task; "" if something can."""
    names = ("absent", "present") if options.target == ABSENT else ("wrong", "right")
    total = int(bad.sum()), int((~bad).sum())
    for name, all_of, own in zip(names, total, counts, strict=True):
        if all_of < options.min_class:
            return f"{all_of} of {len(cases)} samples are {name}; {options.min_class} are needed."
        if own < options.min_class:
            return (
                f"only {own} of the {all_of} {name} answers have a sample with the same label to "
                f"be compared with; {options.min_class} are needed. The label alone tells the "
                "others."
            )
    for name, rows in zip(names, (bad, ~bad), strict=True):
        groups = {case.sample.split_group for case, own in zip(cases, rows, strict=True) if own}
        if len(groups) < options.folds:
            return (
                f"the {name} samples are of {len(groups)} groups; {options.folds} are needed for "
                "as many folds."
            )
        objects = {case.object for case, own in zip(cases, rows, strict=True) if own}
        if options.hold_out == "object" and several > 1 and len(objects) < _OBJECTS:
            return (
                f"the {name} samples are of {len(objects)} objects; with fewer than {_OBJECTS} to "
                "hold out, chance looks like a signal (hold_out=group holds out images only)."
            )
    return ""
