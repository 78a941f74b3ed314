"""How often the probe says "encoded" where nothing is, and where a known signal is.

Each data set goes through the analysis itself: columns in a store, folds, controls, corrected
p-values, verdict. Null sets must give a false "encoded" in at most 5 of 100. In the planted ones
two classes are Gaussian clouds at a distance for which the expected accuracy of a trained nearest
centroid is known, so the power of the verdict can be predicted and compared.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from vlmlens.abc import AnalysisContext, ColumnBlock, Options, Values
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.probe import Probe, ProbeOptions
from vlmlens_plugins.analysis.probe.power import Noise
from vlmlens_plugins.storage.memory import MemoryStore, forget

ALPHA = 0.05
MIN_GAP = 0.2
SEEDS = 20
EXCESS = 1.3
"""How much more five-fold accuracies vary than independent answers would, without a signal."""
EXCESS_PLANTED = 1.1
"""The same with one."""
EXCESS_BELOW = 1.4
"""How much wider the gap's interval is; all three from `--measure`, on other data sets."""
_BAR = 1 / math.sqrt(2 * math.pi)
"""The mean of the larger of 0 and a standard normal number: the baseline that counts is the larger
of the majority and the controls' mean, which varies."""
_NORMAL = NormalDist()
_FOLDS = 5
_STORE = "planted-probe"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Null:
    """Data without a signal.

    Args:
        name: For people.
        classes: Number of classes.
        columns: Columns that are tested together.
        per_group: Samples of each group; they share a label and most of their features.
        rare: Share of the first class among two, 0.5 where both are as frequent.
    """

    name: str
    classes: int = 2
    columns: int = 5
    per_group: int = 1
    rare: float = 0.5


@dataclass(frozen=True)
class Planted:
    """Two classes at a known distance.

    Args:
        samples: How many.
        gap: The expected gap of a nearest centroid over guessing.
        features: Width of the column.
    """

    samples: int
    gap: float
    features: int = 10

    @property
    def distance(self) -> float:
        """The distance of the class means at which a trained centroid has that gap."""
        low, high = 0.0, 20.0
        for _ in range(60):
            middle = (low + high) / 2
            above = expected_accuracy(middle, self) >= 0.5 + self.gap
            low, high = (low, middle) if above else (middle, high)
        return high


NULLS = (
    Null("2 classes, 5 columns"),
    Null("4 classes, 5 columns", classes=4),
    Null("1 in 5 of one class", rare=0.2),
    Null("groups of 4 that features tell apart", per_group=4),
)
SIGNALS = (
    Planted(60, 0.15),
    Planted(60, 0.25),
    Planted(100, 0.15),
    Planted(200, 0.08),
    Planted(200, 0.12),
    Planted(200, 0.16),
)


def expected_accuracy(distance: float, plan: Planted) -> float:
    """Of a nearest centroid that learned its centres from four fifths of the samples.

    With unit variance and n training rows the difference of the two means has squared length
    `distance^2 + 4 features / n` on average, and lies along the true one by `distance^2`, so the
    accuracy is about Phi of their quotient's half (S. Raudys and A. Jain, "Small sample size
    effects in statistical pattern recognition", IEEE Trans. PAMI 13, 1991).
    """
    learned = plan.samples * (1 - 1 / _FOLDS)
    length = math.sqrt(distance**2 + 4 * plan.features / learned)
    return _NORMAL.cdf(distance**2 / 2 / length)


def predicted_power(plan: Planted) -> float:
    """The chance of "encoded", before any data are seen."""
    accuracy = 0.5 + plan.gap
    null = EXCESS * math.sqrt(0.25 / plan.samples) * math.sqrt(1 + 1 / SEEDS)
    bar = _BAR * null / math.sqrt(SEEDS + 1)
    noise = Noise(
        significant=null * float(-stdtrit(SEEDS - 1, ALPHA)),
        below=_surely_above_zero(plan.samples, bar),
        spread=EXCESS_PLANTED * math.sqrt(accuracy * (1 - accuracy) / plan.samples),
        least=MIN_GAP * 0.5,
        seeds=SEEDS,
    )
    return noise.power(plan.gap - bar)


def _surely_above_zero(samples: int, bar: float) -> float:
    """The gap from which on its interval lies above 0: it is narrower, the larger the gap."""
    low, high = 0.0, 0.5 - bar
    for _ in range(60):
        gap = (low + high) / 2
        accuracy = 0.5 + bar + gap
        reach = 1.96 * EXCESS_BELOW * math.sqrt(accuracy * (1 - accuracy) / samples)
        low, high = (low, gap) if gap >= reach else (gap, high)
    return high


def null_set(plan: Null, seed: int, samples: int = 160) -> tuple[list[Sample], list[Floats]]:
    """Samples and columns of which nothing can be read."""
    rng = np.random.default_rng([seed, 1])
    count = samples // plan.per_group
    if plan.rare != 0.5:
        of_group = (rng.random(count) > plan.rare).astype(int)
    else:
        of_group = rng.permutation(np.arange(count) % plan.classes)
    groups = np.repeat(np.arange(count), plan.per_group)
    features = 20
    columns = []
    for _ in range(plan.columns):
        own = rng.normal(size=(count, features))[groups]
        apart = 0.2 if plan.per_group > 1 else 1.0
        columns.append(own + apart * rng.normal(size=(len(groups), features)))
    return _samples(of_group[groups], groups), columns


def planted_set(plan: Planted, seed: int) -> tuple[list[Sample], list[Floats]]:
    """Samples and one column with the planted signal."""
    rng = np.random.default_rng([seed, 2])
    y = rng.permutation(np.arange(plan.samples) % 2)
    x = rng.normal(size=(plan.samples, plan.features))
    direction = rng.normal(size=plan.features)
    direction /= np.linalg.norm(direction)
    return _samples(y, np.arange(plan.samples)), [x + np.outer(y - 0.5, direction * plan.distance)]


def probe(samples: Sequence[Sample], columns: Sequence[Floats], seed: int, model: str) -> Result:
    """The analysis on a data set."""
    forget(_STORE)
    values = {
        f"llm.block.{i}/last": Values(x.astype("<f4"), "float32") for i, x in enumerate(columns)
    }
    settings: dict[str, Any] = {"model": model, "alpha": ALPHA, "min_gap": MIN_GAP, "shortcuts": []}
    analysis = Probe(ProbeOptions(**settings, draws=2000, resamples=500, folds=_FOLDS))
    with MemoryStore.open(_STORE, mode="a", options=Options()) as store:
        store.write(ColumnBlock(tuple(sample.id for sample in samples), values))
        return analysis.run(AnalysisContext(samples, store, _no_model, seed=seed))


def encoded(result: Result) -> bool:
    """Whether any finding says so."""
    return any(finding.verdict is Verdict.ENCODED for finding in result.findings)


def smallest_p(result: Result) -> float:
    """The smallest corrected p-value of a data set."""
    return float(min(result.table("probe-columns").columns["p_corrected"]))  # type: ignore[type-var, arg-type]


def false_alarms(plan: Null, datasets: int, model: str) -> tuple[int, int]:
    """Data sets that are called encoded, and those with a corrected p-value of at most 0.05."""
    results = [probe(*null_set(plan, seed), seed, model) for seed in range(datasets)]
    return sum(map(encoded, results)), sum(smallest_p(result) <= ALPHA for result in results)


def found(plan: Planted, datasets: int, model: str) -> tuple[int, float]:
    """Data sets that are called encoded, and the mean accuracy."""
    results = [probe(*planted_set(plan, seed), seed, model) for seed in range(datasets)]
    accuracies = [float(r.table("probe-columns").columns["accuracy"][0]) for r in results]  # type: ignore[arg-type]
    return sum(map(encoded, results)), float(np.mean(accuracies))


def excess(plan: Planted, datasets: int, model: str) -> tuple[float, float, float]:
    """What `EXCESS`, `EXCESS_PLANTED` and `EXCESS_BELOW` stand for, on data sets of their own."""
    seeds = range(10_000, 10_000 + datasets)
    tables = [probe(*planted_set(plan, s), s, model).table("probe-columns").columns for s in seeds]
    accuracy = 0.5 + plan.gap
    alone = math.sqrt(accuracy * (1 - accuracy) / plan.samples)
    controls = np.mean([t["control_sd"][0] for t in tables])  # type: ignore[arg-type]
    spread = np.std([t["accuracy"][0] for t in tables], ddof=1)  # type: ignore[arg-type]
    below = np.mean([t["gap"][0] - t["gap_low"][0] for t in tables])  # type: ignore[operator]
    guessing = math.sqrt(0.25 / plan.samples)
    return float(controls / guessing), float(spread / alone), float(below / 1.96 / alone)


def _samples(y: npt.NDArray[np.int64], groups: npt.NDArray[np.int64]) -> list[Sample]:
    return [
        Sample(str(i), "?", label=str(label), group=str(group))
        for i, (label, group) in enumerate(zip(y, groups, strict=True))
    ]


def _no_model() -> Any:
    raise AssertionError("the probe must not load the model")


def _report(datasets: int, models: Sequence[str]) -> Iterator[str]:
    for model in models:
        yield f"{model}: null data, {datasets} sets each"
        for null in NULLS:
            wrong, small = false_alarms(null, datasets, model)
            yield (
                f"  {null.name:38} encoded {wrong:3d} ({wrong / datasets:5.1%}), "
                f"corrected p <= {ALPHA:g}: {small / datasets:5.1%}"
            )
        yield f"{model}: planted signal, {datasets} sets each"
        for plan in SIGNALS:
            right, accuracy = found(plan, datasets, model)
            yield (
                f"  {plan.samples:3d} samples, gap {plan.gap:.2f}: encoded "
                f"{right / datasets:5.1%}, predicted {predicted_power(plan):5.1%}; "
                f"mean accuracy {accuracy:.3f}, expected {0.5 + plan.gap:.3f}"
            )


def main() -> None:
    """Print how often each kind of data set gets the verdict "encoded"."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", type=int, default=200)
    parser.add_argument("--model", nargs="+", default=["logistic", "centroid"])
    parser.add_argument("--measure", action="store_true", help="the excess factors, and stop")
    arguments = parser.parse_args()
    if arguments.measure:
        for plan in SIGNALS:
            factors = excess(plan, arguments.datasets, arguments.model[0])
            print(plan, *(f"{factor:.2f}" for factor in factors), flush=True)
        return
    for line in _report(arguments.datasets, arguments.model):
        print(line, flush=True)


if __name__ == "__main__":
    main()
