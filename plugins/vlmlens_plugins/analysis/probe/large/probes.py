"""Probes of one column of any size: trained and tested by reading it in blocks, a few times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
TOLERANCE = 1e-7
ROUGH = 2e-4
_SUMS = 64 * 2**20
"""Bytes of the sums of rows times labels, or of weights, that are in memory at a time."""
_DESCENT = 160 * 2**20
_VECTORS = 160
"""Bytes of all that is minimized at a time, and of each weight with its history."""


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
        data, axes = one._read(rows, train, _silent)
        jobs = _jobs(train, data.means, labels, np.array([c]))
        weights = _minimized(self._problem(data, axes), jobs, TOLERANCE, _silent)[0][:, None]
        return Linear(axes.shift, axes.raw(weights[:-1]), weights[-1].astype(np.float64))

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
        several = len(self.options.C) > 1
        sets = with_inner(split.train, self.inner) if several else split.train
        data, axes = self._read(rows, sets, within(tick, 0, 0.2))
        if equal is not None:
            equal.see_codes(data.codes)
        problem = self._problem(data, axes)
        c = np.full(split.cells, float(self.options.C[0]))
        if several:
            c = self._strengths(problem, data.means, labels[:1], sets, within(tick, 0.2, 0.3))
        tally, unfinished = Tally(labels, split), 0
        size = max(1, _SUMS // (4 * (data.values.shape[1] + 1) * problem.outputs * split.cells))
        for start in range(0, len(labels), size):
            some = labels[start : start + size]
            told = within(tick, 0.5 + 0.5 * start / len(labels), 0.5 * len(some) / len(labels))
            jobs = _jobs(split.train, data.means, some, c)
            weights, converged = _minimized(problem, jobs, TOLERANCE, told)
            unfinished += int((~converged).sum())
            part = Tally(some, split)
            for own, out in _outputs(problem, weights):
                split_up = out.reshape(*out.shape[:2], split.cells, len(some)).swapaxes(1, 2)
                part.see(np.arange(own.start, own.stop), split_up)
            tally.take(slice(start, start + size), part)
        return Evaluation(tally.held_out, tally.train_score, c, unfinished, data.kept)

    def _read(self, rows: Rows, sets: Bools, tick: Tick) -> tuple[Projected, Axes]:
        """The column's coordinates in a scratch file: three readings of it."""
        components, learned = self.options.components, np.asarray(sets.any(0))
        self.scratch.check(4 * rows.count * min(rows.width, components or rows.width))
        axes = Axes.of(rows, learned, components, self.scratch, within(tick, 0, 0.7))
        return Projected.of(rows, axes, sets, self.scratch, within(tick, 0.7, 0.3)), axes

    def _problem(self, data: Projected, axes: Axes) -> descent.Problem:
        classes = len(self.target.classes)
        return descent.Problem(data.values, axes.spectrum, classes, self.device)

    def _strengths(
        self, problem: descent.Problem, means: Floats, labels: Array, sets: Bools, tick: Tick
    ) -> Floats:
        """float64 `[cells]`: C with the least cross-entropy on inner parts, as in memory."""
        parts, grid = int(self.inner.max()) + 1, sorted(self.options.C)
        cells = len(sets) // (1 + parts)
        learn = sets[cells:]
        held = np.repeat(sets[:cells], parts, 0) & ~learn
        jobs = _jobs(learn, means[cells:], labels, np.tile(grid, len(learn)), len(grid))
        weights, _ = _minimized(problem, jobs, ROUGH, tick)
        lost = np.zeros(len(jobs))
        for own, out in _outputs(problem, weights):
            loss, _ = problem.losses(torch.from_numpy(out), problem.targets(jobs, own).cpu())
            lost += (loss.numpy() * held[:, own].T[:, jobs.sets]).sum(0, dtype=np.float64)
        return chosen(lost.reshape(cells, -1, len(grid)).sum(1), grid)


def _jobs(train: Bools, means: Floats, labels: Array, c: Floats, times: int = 1) -> descent.Jobs:
    """Each training set so many times, for each label vector.

    Args:
        train: bool `[sets, n]`.
        means: `[sets or more, k]`, of their rows.
        labels: `[vectors, n]`.
        c: `[sets * times]`.
        times: How often.
    """
    fits = len(labels)
    sets = np.arange(len(train)).repeat(times * fits)
    vectors = np.tile(np.arange(fits), len(train) * times)
    return descent.Jobs(train, means, labels, sets, vectors, c.repeat(fits))


def _minimized(
    problem: descent.Problem, jobs: descent.Jobs, tolerance: float, tick: Tick
) -> tuple[npt.NDArray[np.float32], Bools]:
    """Weights `[k + 1, outputs, jobs]`, and which converged; as many at once as memory allows."""
    of_one = _VECTORS * (problem.values.shape[1] + 1) * problem.outputs
    at_once = max(1, _DESCENT // of_one)
    found = []
    for start in range(0, len(jobs), at_once):
        told = within(tick, start / len(jobs), min(at_once, len(jobs) - start) / len(jobs))
        some = jobs.of(slice(start, start + at_once))
        found.append(descent.minimize(problem, some, tolerance, told))
    weights = np.concatenate([one.weights for one in found], 2)
    return weights, np.concatenate([one.converged for one in found])


def _outputs(
    problem: descent.Problem, weights: npt.NDArray[np.float32]
) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
    """Yield rows' outputs `[b, outputs, jobs]`: a pass over the rows."""
    placed = problem.placed(weights, torch.float32)
    for some, rows in problem.blocks(weights[0].size):
        yield some, problem.logits(rows, placed).cpu().numpy()


def _joined(turns: Sequence[Evaluation]) -> Evaluation:
    """Of label vectors that took turns, as one."""
    held_out = np.concatenate([turn.held_out for turn in turns])
    score = np.concatenate([turn.train_score for turn in turns])
    return Evaluation(held_out, score, turns[0].strengths)


def _silent(share: float) -> None:
    del share
