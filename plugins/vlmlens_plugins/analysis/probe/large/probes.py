"""Probes of one column of any size: trained and tested by reading it in blocks, a few times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vlmlens_plugins.analysis.probe.cross_validation import Evaluation, Tick, within
from vlmlens_plugins.analysis.probe.equal_rows import EqualRows, RowCodes
from vlmlens_plugins.analysis.probe.large import descent
from vlmlens_plugins.analysis.probe.large.closed import Linear, Ridge, centroids, chosen
from vlmlens_plugins.analysis.probe.large.partition import Bools, Ints, Partition, with_inner
from vlmlens_plugins.analysis.probe.large.projection import Axes, Projected
from vlmlens_plugins.analysis.probe.large.scratch import Scratch
from vlmlens_plugins.analysis.probe.large.sums import (
    Floats,
    Rows,
    Sums,
    counted,
    numbers_as_labels,
    one_hot_labels,
    pieces,
)
from vlmlens_plugins.analysis.probe.large.tally import Tally
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.splits import Split, inner_folds
from vlmlens_plugins.analysis.probe.targets import Target

Array = npt.NDArray[Any]

INNER = 3
TOLERANCE = 2e-6
ROUGH = 2e-4
_SUMS = 64 * 2**20
"""Bytes of the sums of rows times labels that are in memory at a time."""


@dataclass(frozen=True)
class LargeProbes:
    """Probes of one target's columns that are too large for memory.

    Args:
        options: The analysis's; not of perceptrons.
        target: What is read.
        seed: The run's.
        device: Where logistic regressions are computed.
        scratch: Where files for the time being lie.
    """

    options: ProbeOptions
    target: Target
    seed: int
    device: torch.device
    scratch: Scratch

    @cached_property
    def inner(self) -> Ints:
        """int64 `[n]`: the parts for choosing a strength; all 0 where there is no choice."""
        if len(self.options.C) == 1 or self.options.model == "centroid":
            return np.zeros(len(self.target.y), np.int64)
        return inner_folds(self.target.y, self.target.groups, INNER, self.seed)

    def evaluate(
        self, rows: Rows, labels: Array, split: Split, equal: EqualRows | None, tick: Tick
    ) -> Evaluation:
        """Train and test the probes of a column.

        Args:
            rows: The column.
            labels: `[fits, n]`, the true ones first, which choose the strength.
            split: What is learned from and tested.
            equal: Told which rows are equal.
            tick: Told how much is done.

        Raises:
            NotFinite: A value is not finite.
            CompositionError: A scratch file does not fit on the disk.
        """
        if self.options.model == "logistic":
            return self._logistic(rows, labels, split, equal, tick)
        if self.options.model == "ridge":
            made, strengths = self._ridge(rows, labels, split.train, within(tick, 0, 0.6))
            return self._tested(made, strengths, rows, labels, split, equal, within(tick, 0.6, 0.4))
        parts = len(Partition.of(split.train).sets[0])
        size = parts * rows.width * len(self.target.classes) * 8
        fits = max(1, _SUMS // size)
        turns = []
        for start in range(0, len(labels), fits):
            some = labels[start : start + fits]
            told = within(tick, start / len(labels), len(some) / len(labels))
            made = self._centroids(rows, some, split.train, within(told, 0, 0.5))
            known = equal if start == 0 else None
            ones = np.ones(split.cells)
            told = within(told, 0.5, 0.5)
            turns.append(self._tested(made, ones, rows, some, split, known, told))
        return _joined(turns)

    def trained(self, rows: Rows, labels: Array, c: float) -> Linear:
        """Linear probes of all rows, for raw features.

        Args:
            rows: The column's, of the target's own samples.
            labels: `[fits, n]`.
            c: The inverse strength.

        Raises:
            NotFinite: A value is not finite.
            CompositionError: A scratch file does not fit on the disk.
        """
        one = replace(self, options=self.options.model_copy(update={"C": [c]}))
        train = np.ones((1, labels.shape[1]), bool)
        if self.options.model == "ridge":
            return one._ridge(rows, labels, train, _silent)[0]
        if self.options.model == "centroid":
            return one._centroids(rows, labels, train, _silent)
        axes = Axes.of(rows, train[0], self.options.components, self.scratch, _silent)
        partition = Partition.of(train)
        projected = Projected.of(rows, axes, partition, self.scratch, _silent)
        products = _of_sets(projected.products, partition.sets)
        found = one._minimized(projected, labels, train, products, np.array([c]), TOLERANCE)
        weights = np.tensordot(axes.basis, found.weights[:-1], 1)
        return Linear(axes.shift, weights, found.weights[-1])

    def _ridge(self, rows: Rows, labels: Array, train: Bools, tick: Tick) -> tuple[Linear, Floats]:
        several = len(self.options.C) > 1
        sets = with_inner(train, self.inner) if several else train
        partition = Partition.of(sets)
        values = numbers_as_labels(labels)
        sums = Sums.collect(rows, partition, values, self.scratch, within(tick, 0, 0.7))
        cells, own = len(train), partition.sets
        ridge = Ridge(sums, np.asarray(own[:cells].any(0)))
        c = np.full(cells, float(self.options.C[0]))
        if several:
            inner = own[cells:].reshape(cells, -1, partition.parts)
            c = ridge.strengths(own[:cells], inner, self.options.C)
        every = slice(0, len(labels))
        made = [ridge.fit(own[i], [float(c[i])], every)[0] for i in range(cells)]
        weights = np.concatenate([one.weights for one in made], 1)
        bias = np.concatenate([one.bias for one in made])
        return Linear(sums.shift, weights, bias, sums.size), c

    def _centroids(self, rows: Rows, labels: Array, train: Bools, tick: Tick) -> Linear:
        partition, classes = Partition.of(train), len(self.target.classes)
        known, none = one_hot_labels(labels, classes), np.zeros(partition.parts, bool)
        sums = Sums.collect(rows, partition, known, self.scratch, tick, none)
        return centroids(sums, np.asarray(partition.sets.any(0)), partition.sets, classes)

    def _tested(
        self,
        made: Linear,
        strengths: Floats,
        rows: Rows,
        labels: Array,
        split: Split,
        equal: EqualRows | None,
        tick: Tick,
    ) -> Evaluation:
        """What fitted probes predict: one more reading of the column."""
        tally = Tally(labels, split)
        codes = None if equal is None else RowCodes(np.zeros(rows.width), made.size, rows.count)
        flat = made.weights.reshape(len(made.weights), -1)
        for places, block in counted(rows, tick, rows.count):
            values = block.astype(np.float64) - made.shift
            if codes is not None:
                codes.see(places, values)
            for piece in pieces(len(values), flat.shape[1]):
                out = (values[piece] @ flat).reshape(-1, *made.weights.shape[1:])
                out += made.bias
                tally.see(places[piece], out)
        if equal is not None and codes is not None:
            equal.see_codes(codes.codes)
        return Evaluation(tally.held_out, tally.train_score, strengths)

    def _logistic(
        self, rows: Rows, labels: Array, split: Split, equal: EqualRows | None, tick: Tick
    ) -> Evaluation:
        components = self.options.components
        self.scratch.check(4 * rows.count * min(rows.width, components))
        told = within(tick, 0, 0.3)
        axes = Axes.of(rows, split.learned, components, self.scratch, told)
        several = len(self.options.C) > 1
        sets = with_inner(split.train, self.inner) if several else split.train
        partition = Partition.of(sets)
        projected = Projected.of(rows, axes, partition, self.scratch, within(tick, 0.3, 0.2))
        if equal is not None:
            equal.see_codes(projected.codes)
        products = _of_sets(projected.products, partition.sets)
        c = np.full(split.cells, float(self.options.C[0]))
        if several:
            c = self._strengths(projected, labels[:1], sets, products, within(tick, 0.5, 0.2))
        tally, unfinished = Tally(labels, split), 0
        size = max(
            1, _SUMS // (8 * products.shape[1] * split.cells * len(self.target.classes) * 16)
        )
        for start in range(0, len(labels), size):
            some = slice(start, start + size)
            told = within(tick, 0.7 + 0.3 * start / len(labels), 0.3 * size / len(labels))
            part = Tally(labels[some], split)
            problem = self._problem(projected, labels[some], split.train, products, c)
            found = descent.minimize(problem, TOLERANCE, told)
            _see(problem, found.weights, part)
            unfinished += int((~found.converged).sum())
            tally.take(some, part)
        kept = projected.kept(axes, np.asarray(partition.sets.any(0)))
        return Evaluation(tally.held_out, tally.train_score, c, unfinished, kept)

    def _strengths(
        self, projected: Projected, labels: Array, sets: Bools, products: Floats, tick: Tick
    ) -> Floats:
        """float64 `[cells]`: C with the least cross-entropy on inner parts, as in memory."""
        parts = int(self.inner.max()) + 1
        cells = len(sets) // (1 + parts)
        train, learn = sets[:cells], sets[cells:]
        held = (train[:, None] & ~learn.reshape(cells, parts, -1)).reshape(learn.shape)
        grid = sorted(self.options.C)
        lost = np.zeros((cells, len(grid)))
        for i, c in enumerate(grid):
            strengths = np.full(len(learn), c)
            found = self._minimized(projected, labels, learn, products[cells:], strengths, ROUGH)
            problem = self._problem(projected, labels, learn, products[cells:], strengths)
            lost[:, i] = _cross_entropy(problem, found.weights, held).reshape(cells, -1).sum(1)
            tick((i + 1) / len(grid))
            if i and (lost[:, i] >= lost[:, :i].min(1)).all():
                lost[:, i + 1 :] = np.inf
                break
        return chosen(lost, grid)

    def _minimized(
        self,
        projected: Projected,
        labels: Array,
        train: Bools,
        products: Floats,
        c: Floats,
        tolerance: float,
    ) -> descent.Found:
        problem = self._problem(projected, labels, train, products, c)
        return descent.minimize(problem, tolerance, _silent)

    def _problem(
        self, projected: Projected, labels: Array, train: Bools, products: Floats, c: Floats
    ) -> descent.Problem:
        classes = len(self.target.classes)
        some = products[: len(train)]
        return descent.Problem(projected.values, labels, train, some, c, classes, self.device)


def _see(problem: descent.Problem, weights: Floats, tally: Tally) -> None:
    for some, rows in problem.blocks():
        out = problem.logits(rows, weights).cpu().numpy()
        tally.see(np.arange(some.start, some.stop), out)


def _cross_entropy(problem: descent.Problem, weights: Floats, held: Bools) -> Floats:
    """float64 `[sets]`: the summed loss of the first label vector over the rows `[sets, n]`."""
    found = np.zeros(len(held))
    for some, rows in problem.blocks():
        loss, _ = problem.losses(problem.logits(rows, weights), problem.target(some))
        found += (loss[:, :, 0].double().cpu().numpy() * held[:, some].T).sum(0)
    return found


def _of_sets(products: Floats, sets: Bools) -> Floats:
    """`[sets, k, k]`: sums over the parts of each set."""
    return np.tensordot(sets.astype(np.float64), products, 1)


def _joined(turns: Sequence[Evaluation]) -> Evaluation:
    """Of label vectors that took turns, as one."""
    held_out = np.concatenate([turn.held_out for turn in turns])
    score = np.concatenate([turn.train_score for turn in turns])
    return Evaluation(held_out, score, turns[0].strengths)


def _silent(share: float) -> None:
    del share
