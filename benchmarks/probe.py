"""What probing every layer costs beside a loop over scikit-learn's estimators.

33 columns of 2,000 samples x 2,048 dimensions, five folds, the true labels and 20 control
labellings: 3,465 probes of each kind. Both sides get the same standardized float32 rows, folds,
labels and strengths of regularization, those that the inner cross-validation took, and both fit
and predict every row. scikit-learn is timed on a sample of the fits, taken in turn with our
columns, and scaled to all of them by kind (main and control). Objectives of the same fits are
compared in double precision, and so are held-out accuracies.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestCentroid
from torch import Tensor

from vlmlens.abc import AnalysisContext, ColumnBlock, Options, Values
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.probe import Probe, ProbeOptions
from vlmlens_plugins.analysis.probe.control_labels import shuffled_within
from vlmlens_plugins.analysis.probe.cross_validation import Family, Fits, standardized
from vlmlens_plugins.analysis.probe.linear import LinearFits
from vlmlens_plugins.analysis.probe.probe_kinds import family
from vlmlens_plugins.analysis.probe.splits import Split, assign_folds, folded
from vlmlens_plugins.analysis.probe.targets import Target
from vlmlens_plugins.storage.memory import MemoryStore, forget

FOLDS, SEEDS = 5, 20
_STORE = "probe-benchmark"

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Size:
    """How much is probed.

    Args:
        columns: Columns.
        samples: Samples.
        features: Dimensions of each column.
        sampled: Of how many columns scikit-learn fits a few.
        controls: How many controls it fits there, beside the true labels.
    """

    columns: int = 33
    samples: int = 2000
    features: int = 2048
    sampled: int = 5
    controls: int = 2


QUICK = Size(columns=4, samples=400, features=512, sampled=3)


@dataclass(frozen=True)
class Case:
    """A kind of probe on synthetic columns.

    Args:
        title: For people.
        model: As the analysis's option.
        classes: Number of classes; 0 for numbers.
        least: How many times faster than the loop it should be.
    """

    title: str
    model: str
    classes: int
    least: float

    def labels(self, size: Size) -> Array:
        """The true labels `[n]`."""
        rng = np.random.default_rng(self.classes)
        if not self.classes:
            return rng.normal(size=size.samples)
        return rng.permutation(np.arange(size.samples) % self.classes).astype(np.int64)

    def estimator(self, c: float) -> Any:
        """scikit-learn's, at the same strength."""
        if self.model == "logistic":
            return LogisticRegression(C=c, max_iter=10_000)
        return Ridge(alpha=1 / c) if self.model == "ridge" else NearestCentroid()


CASES = (
    Case("logistic, 2 classes", "logistic", 2, 5),
    Case("logistic, 8 classes", "logistic", 8, 20),
    Case("ridge", "ridge", 0, 50),
    Case("nearest centroid, 2 classes", "centroid", 2, 50),
    Case("nearest centroid, 8 classes", "centroid", 8, 50),
)


def column(y: Array, index: int, size: Size) -> Floats:
    """`[n, features]`: correlated features as in a residual stream, with a signal.

    Half of the variance lies in a few directions, where it falls off like 1/k, and half in all of
    them alike; a few features are far larger than the others. Classes differ along random
    directions, the more so the higher the column's index.
    """
    rng = np.random.default_rng([index, size.features])
    rank = size.features // 16
    spread = np.sqrt(size.features / np.arange(1, rank + 1) / np.log(rank + 1))
    mixing = rng.normal(size=(rank, size.features)) / np.sqrt(size.features)
    x = (rng.normal(size=(size.samples, rank)) * spread) @ mixing
    x += rng.normal(size=(size.samples, size.features))
    known = np.eye(int(y.max()) + 1)[y] if y.dtype.kind == "i" else y[:, None]
    strength = 1 + 3 * index / max(size.columns - 1, 1)
    directions = rng.normal(size=(known.shape[1], size.features)) / np.sqrt(size.features)
    x += strength * (known @ directions)
    x[:, :4] *= 30
    return x.astype(np.float32)


@dataclass
class Spent:
    """Seconds on the clock and of all of the process's threads."""

    wall: float = 0.0
    cpu: float = 0.0

    def time(self, run: Callable[[], Any]) -> Any:
        """Run it and add what it took."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = run()
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu
        return result


@dataclass
class Measured:
    """One kind of probe on all columns.

    Args:
        case: Which kind.
        size: How much.
        choosing: Standardizing, and finding the strength of regularization.
        ours: All fits and predictions.
        main: scikit-learn's on sampled true labels; `control` on sampled controls.
        many: scikit-learn's on all labellings of a fold in one call, where it can.
        objectives: Ours over scikit-learn's, less 1, fit by fit.
        right: Held-out accuracies (or R2) of sampled fits of the true labels, ours and
            scikit-learn's; `shuffled` of the controls.
    """

    case: Case
    size: Size
    choosing: Spent = field(default_factory=Spent)
    ours: Spent = field(default_factory=Spent)
    main: Spent = field(default_factory=Spent)
    control: Spent = field(default_factory=Spent)
    many: Spent = field(default_factory=Spent)
    strengths: set[float] = field(default_factory=set)
    objectives: list[float] = field(default_factory=list)
    right: list[tuple[float, float]] = field(default_factory=list)
    shuffled: list[tuple[float, float]] = field(default_factory=list)
    calls: int = 0

    def loop(self, clock: str) -> float:
        """Seconds that the whole loop over scikit-learn's fits would take."""
        cells = self.size.columns * FOLDS
        main = getattr(self.main, clock) / len(self.right)
        control = getattr(self.control, clock) / len(self.shuffled)
        return float(cells * (main + SEEDS * control))

    def lines(self) -> Iterator[str]:
        """What is to be said of it."""
        fits = self.size.columns * FOLDS * (1 + SEEDS)
        ratios = [self.loop(clock) / getattr(self.ours, clock) for clock in ("wall", "cpu")]
        yield (
            f"{self.case.title}: {fits} probes; strengths {sorted(self.strengths)}\n"
            f"  vlmlens {self.ours.wall:.2f} s (cpu {self.ours.cpu:.2f}), and "
            f"{self.choosing.wall:.2f} s (cpu {self.choosing.cpu:.2f}) for scaling and strengths\n"
            f"  scikit-learn {self.loop('wall'):.1f} s (cpu {self.loop('cpu'):.1f}), scaled from "
            f"{len(self.right) + len(self.shuffled)} fits\n"
            f"  faster by {ratios[0]:.1f} (cpu {ratios[1]:.1f}); wanted {self.case.least:g}"
        )
        if self.calls:
            calls = self.many.wall / self.calls * self.size.columns * FOLDS
            ratio = calls / self.ours.wall
            yield f"  scikit-learn with all labellings of a fold in one call: {ratio:.1f}"
        if self.objectives:
            gaps = np.array(self.objectives)
            yield (
                f"  objective beside scikit-learn's: mean {gaps.mean():+.4%}, "
                f"from {gaps.min():+.4%} to {gaps.max():+.4%}"
            )
        what = "accuracy" if self.case.classes else "R2"
        for name, pairs in (("true labels", self.right), ("controls", self.shuffled)):
            ours, theirs = np.mean(pairs, 0)
            yield f"  held-out {what}, {name}: {ours:.4f}, scikit-learn {theirs:.4f}"


def measure(case: Case, size: Size) -> Measured:
    """Probe every column in both ways."""
    y = case.labels(size)
    target = Target("t", (), _names(case), y, np.arange(len(y)), lambda sample: None, len(y))
    split = folded(assign_folds(y, None, folds=FOLDS, seed=0))
    rng = np.random.default_rng(1)
    controls = shuffled_within(y, target.groups, split.block, SEEDS, rng)
    labels = np.concatenate([y[None], *controls])
    kind = family(ProbeOptions(model=case.model), target, 0)
    found = Measured(case, size)
    sampled = set(np.linspace(0, size.columns - 1, size.sampled).round().astype(int).tolist())
    for index in range(size.columns):
        x = column(y, index, size)
        z, c = found.choosing.time(lambda x=x: _strengths(x, y, split, kind))
        fits, predicted = found.ours.time(lambda z=z, c=c: _fit(z, c, labels, split, kind))
        found.strengths |= {round(float(one), 6) for one in c.flatten()}
        if index in sampled:
            cell = index % FOLDS
            _compare(found, z[0].numpy(), float(c[0, cell]), cell, labels, split, fits, predicted)
    return found


def _names(case: Case) -> tuple[str, ...]:
    return tuple(str(c) for c in range(case.classes))


def _strengths(x: Floats, y: Array, split: Split, kind: Family) -> tuple[Tensor, Tensor]:
    z = torch.from_numpy(standardized(x, split.learned))[None]
    return z, kind.strengths(z, _tensor(y), torch.from_numpy(split.train))


def _fit(
    z: Tensor, c: Tensor, labels: Array, split: Split, kind: Family
) -> tuple[Fits, npt.NDArray[Any]]:
    fits = kind.fit(z, _tensor(labels.T), torch.from_numpy(split.train), c)
    return fits, fits.predict(z)[0].numpy()


def _tensor(labels: Array) -> Tensor:
    made = torch.from_numpy(np.ascontiguousarray(labels))
    return made.float() if labels.dtype.kind == "f" else made


def _compare(
    found: Measured,
    z: Floats,
    c: float,
    cell: int,
    labels: Array,
    split: Split,
    fits: Fits,
    predicted: npt.NDArray[Any],
) -> None:
    """Fit a few of a column's probes with scikit-learn."""
    train, test = split.train[cell], split.cell == cell
    rows = z[train]
    for fit in range(1 + found.size.controls):
        spent = found.control if fit else found.main
        model = found.case.estimator(c)
        wanted = labels[fit][train].astype(np.float32 if not found.case.classes else np.int64)
        said = spent.time(lambda m=model, w=wanted: _theirs(m, rows, w, z))
        scores = [_score(p[test], labels[fit][test]) for p in (predicted[:, cell, fit], said)]
        (found.shuffled if fit else found.right).append((scores[0], scores[1]))
        if found.case.model != "centroid":
            assert isinstance(fits, LinearFits)
            own = fits.weights[0, :, cell, :, fit].numpy(), fits.bias[0, cell, :, fit].numpy()
            theirs = np.atleast_2d(model.coef_).T, np.atleast_1d(model.intercept_)
            ours, other = (_objective(rows, wanted, *each, c) for each in (own, theirs))
            found.objectives.append(ours / other - 1)
    if found.case.model == "ridge":
        every = labels[:, train].T.astype(np.float32)
        found.many.time(lambda: _theirs(found.case.estimator(c), rows, every, z))
        found.calls += 1


def _theirs(model: Any, rows: Floats, wanted: Array, everything: Floats) -> Array:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predicted: Array = model.fit(rows, wanted).predict(everything)
    return predicted


def _score(predicted: Array, y: Array) -> float:
    if y.dtype.kind == "i":
        return float((predicted == y).mean())
    return float(1 - ((predicted - y) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def _objective(x: Floats, y: Array, weights: Array, bias: Array, c: float) -> float:
    """`sum(loss) + penalty` in double precision; scikit-learn's, divided by C for classes."""
    out = x.astype(np.float64) @ weights.astype(np.float64) + bias
    square = float((weights.astype(np.float64) ** 2).sum())
    if y.dtype.kind == "f":
        return float(((out[:, 0] - y) ** 2).sum()) + square / c
    if out.shape[1] == 1:
        out = np.concatenate([np.zeros_like(out), out], 1)
    loss = np.logaddexp.reduce(out, axis=1) - out[np.arange(len(y)), y]
    return float(loss.sum()) + square / (2 * c)


def sweep(case: Case, size: Size) -> Spent:
    """The analysis itself: strengths, probes, controls, tests, intervals, verdicts."""
    y = case.labels(size)
    samples = [
        Sample(str(i), "?", label=str(v), attributes={"y": float(v)}) for i, v in enumerate(y)
    ]
    forget(_STORE)
    options: dict[str, Any] = {"model": case.model, "shortcuts": []}
    analysis = Probe(ProbeOptions(**options, targets=["label" if case.classes else "y"]))
    spent = Spent()
    with MemoryStore.open(_STORE, mode="a", options=Options()) as store:
        ids = tuple(sample.id for sample in samples)
        for index in range(size.columns):
            values = Values(column(y, index, size), "float32")
            store.write(ColumnBlock(ids, {f"llm.block.{index}/last": values}))
        spent.time(lambda: analysis.run(AnalysisContext(samples, store, _no_model)))
    forget(_STORE)
    return spent


def _no_model() -> Any:
    raise AssertionError("the probe must not load the model")


def _report(cases: Sequence[Case], size: Size, *, whole: bool) -> Iterator[str]:
    yield (
        f"{size.columns} columns x {FOLDS} folds x (1 + {SEEDS}) labellings, {size.samples} "
        f"samples x {size.features} dimensions; {torch.get_num_threads()} torch thread(s), "
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}"
    )
    for case in cases:
        yield from measure(case, size).lines()
        if whole:
            spent = sweep(case, size)
            yield f"  the whole analysis: {spent.wall:.1f} s (cpu {spent.cpu:.1f}); wanted 180"


def main() -> None:
    """Print ratios, objectives, accuracies, and the time of the whole analysis."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small size, to try the script")
    parser.add_argument("--columns", type=int, help="fewer columns of full size")
    parser.add_argument("--only", help="kinds of probe whose title has this in it")
    parser.add_argument("--skip-sweep", action="store_true", help="not the analysis itself")
    chosen = parser.parse_args()
    size = QUICK if chosen.quick else Size()
    if chosen.columns is not None:
        size = Size(columns=chosen.columns, sampled=min(chosen.columns, size.sampled))
    cases = [case for case in CASES if chosen.only is None or chosen.only in case.title]
    for line in _report(cases, size, whole=not chosen.skip_sweep):
        print(line, flush=True)


if __name__ == "__main__":
    main()
