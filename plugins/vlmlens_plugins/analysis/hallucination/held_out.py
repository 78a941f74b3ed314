"""Scores of samples whose group and object were not learned from, with choices made inside.

Groups are cut into folds and objects into parts. A sample in fold a and part b is scored by what
learned from samples outside of both. What there is to choose is chosen, and what goes on into a
second model is scored, by models that leave out another fold and another part, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from vlmlens_plugins.analysis.hallucination.scores import Bools, Compared, Floats
from vlmlens_plugins.analysis.probe.cross_validation import standardized
from vlmlens_plugins.analysis.probe.logistic import fit_logistic
from vlmlens_plugins.analysis.probe.splits import assign_folds

Ints = npt.NDArray[np.int64]
Place = tuple[int, int]
_SECOND = 1.0
"""C of the models that join a few scores; each has its own rows, so only the diagonal counts."""


@dataclass(frozen=True, slots=True)
class Folds:
    """Where samples are held out.

    Args:
        fold: int64 `[n]`, the fold of each sample's group.
        part: int64 `[n]`, the part of each sample's object; all 0 where none is held out.
    """

    fold: Ints
    part: Ints

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return int(self.part.max()) + 1

    @property
    def cells(self) -> list[Place]:
        """The (fold, part) in which there are samples."""
        pairs = zip(self.fold.tolist(), self.part.tolist(), strict=True)
        return sorted(set(pairs))

    def inside(self, cell: Place) -> Bools:
        """The samples of a cell."""
        found: Bools = (self.fold == cell[0]) & (self.part == cell[1])
        return found

    def without(self, cells: Iterable[Place]) -> Bools:
        """The samples that share neither a fold nor a part with any of the cells."""
        cells = list(cells)
        kept = ~np.isin(self.fold, [fold for fold, _ in cells])
        if self.parts > 1:
            kept &= ~np.isin(self.part, [part for _, part in cells])
        return kept

    def others(self, cell: Place) -> list[tuple[Place, Bools]]:
        """What is left out beside a cell, and which of its training samples are scored then.

        With two parts only one is learned from, so then only folds are left out.
        """
        train = self.without([cell])
        if self.parts > 2:
            found = [(one, self.inside(one)) for one in self.cells]
        else:
            folds = sorted(set(self.fold.tolist()))
            found = [((fold, cell[1]), self.fold == fold) for fold in folds]
        return [(one, rows & train) for one, rows in found if (rows & train).any()]


def folds_of(
    bad: Bools, groups: Sequence[str], objects: Sequence[str] | None, folds: int, seed: int
) -> Folds:
    """Cut groups and objects.

    Args:
        bad: bool `[n]`, by which folds are stratified.
        groups: Per sample, its group; all unlike for a random split.
        objects: Per sample, its object; None: objects are not held out.
        folds: The most folds, and parts.
        seed: Of the cuts.
    """
    numbers = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    grouped = np.array([numbers[name] for name in groups], np.int64)
    fold = assign_folds(bad.astype(np.int64), grouped, folds=folds, seed=seed)
    names = list(dict.fromkeys(objects or ()))
    if objects is None or len(names) < 2:
        return Folds(fold, np.zeros(len(bad), np.int64))
    order = np.random.default_rng(seed).permutation(len(names))
    place = {names[i]: rank % min(folds, len(names)) for rank, i in enumerate(order.tolist())}
    return Folds(fold, np.array([place[name] for name in objects], np.int64))


@dataclass(frozen=True, slots=True)
class Learned:
    """The scores of what was learned.

    Args:
        scores: float64 `[cells, n]`: for each cell, its own samples as held out, and those that it
            learns from as held out once more; NaN elsewhere.
        chosen: Per cell, the number of the column that was chosen.
    """

    scores: Floats
    chosen: tuple[int, ...]


def learned(
    columns: Sequence[Floats],
    compared: Compared,
    folds: Folds,
    strengths: Sequence[float],
) -> Learned:
    """Logistic regressions on the columns; column and strength are chosen for each cell.

    Scores are without the intercept: it only says how frequent bad samples were in training, and
    they are rarer there the more of them are held out.

    Args:
        columns: `[n, features]` each, of equal width.
        compared: What is told.
        folds: What is held out.
        strengths: Inverse strengths of regularization to choose from.
    """
    models = _Models(folds, compared.bad)
    made = models.fitted(columns, strengths)
    cells = folds.cells
    found = np.full((len(cells), len(compared.bad)), np.nan)
    chosen = []
    for number, cell in enumerate(cells):
        inner = np.full((len(made), len(compared.bad)), np.nan)
        for other, rows in folds.others(cell):
            inner[:, rows] = models.scores(made, [cell, other])[:, rows]
        known = np.flatnonzero(~np.isnan(inner[0]))
        areas = [float(compared.take(known).auroc(one[known])[0]) for one in inner]
        best = int(np.argmax(np.nan_to_num(areas, nan=0.5)))
        own = folds.inside(cell)
        found[number] = inner[best]
        found[number, own] = models.scores(made, [cell])[best, own]
        chosen.append(best % len(columns))
    return Learned(found, tuple(chosen))


def known(scores: Floats, folds: Folds) -> Learned:
    """Scores that need no learning."""
    return Learned(np.tile(scores, (len(folds.cells), 1)), ())


def held_out(scores: Floats, folds: Folds) -> Floats:
    """float64 `[n]`: each sample's score in the cell in which it is held out."""
    found = np.full(len(folds.fold), np.nan)
    for number, cell in enumerate(folds.cells):
        own = folds.inside(cell)
        found[own] = scores[number, own]
    return found


def joined(parts: Sequence[Floats], bad: Bools, folds: Folds) -> Floats:
    """float64 `[n]`: held-out scores of a logistic regression on several scores together.

    Args:
        parts: `[cells, n]` each.
        bad: bool `[n]`.
        folds: What is held out.
    """
    found = np.full(len(bad), np.nan)
    rows = np.stack(parts, -1)  # [cells, n, scores]
    finite: Bools = np.asarray(np.isfinite(rows).all(-1))
    train: Bools = np.stack([folds.without([cell]) for cell in folds.cells]) & finite
    able = np.flatnonzero((train & bad).any(1) & (train & ~bad).any(1))
    if not len(able):
        return found
    rows, train = np.where(finite[..., None], rows, 0.0)[able], train[able]
    z = np.stack([standardized(*each) for each in zip(rows, train, strict=True)])
    fits = fit_logistic(
        torch.from_numpy(z),
        torch.from_numpy(bad.astype(np.int64)[:, None]),
        torch.from_numpy(train),
        torch.full((len(able), len(able)), _SECOND),
        classes=2,
    )
    for place, number in enumerate(able):
        own = folds.inside(folds.cells[number]) & finite[number]
        found[own] = z[place, own] @ fits.weights[place, :, place, 0, 0].numpy()
    return found


class _Models:
    """The logistic regressions that are needed: one for each set of folds and parts left out."""

    def __init__(self, folds: Folds, bad: Bools) -> None:
        self._folds, self._bad = folds, bad
        self._numbers: dict[bytes, int] = {}
        self._trains: list[Bools] = []
        for cell in folds.cells:
            for left_out in ([cell], *([cell, other] for other, _ in folds.others(cell))):
                train = folds.without(left_out)
                if train.tobytes() not in self._numbers and len(set(bad[train].tolist())) == 2:
                    self._numbers[train.tobytes()] = len(self._trains)
                    self._trains.append(train)

    def fitted(self, columns: Sequence[Floats], strengths: Sequence[float]) -> Floats:
        """float64 `[strengths x columns, n, models]`: scores of all samples."""
        everything = np.ones(len(self._bad), bool)
        z = torch.from_numpy(np.stack([standardized(one, everything) for one in columns]))
        y = torch.from_numpy(self._bad.astype(np.int64)[:, None])
        if not self._trains:
            return np.zeros((len(strengths) * len(columns), len(self._bad), 0))
        train = torch.from_numpy(np.stack(self._trains))
        found = []
        for strength in sorted(strengths):
            c = z.new_full((len(z), len(train)), strength)
            fits = fit_logistic(z, y, train, c, classes=2)
            outputs = fits.outputs(z)[..., 0, 0].double()
            share = (train.double() / train.sum(1, keepdim=True)).T
            found.append((outputs - (outputs * share).sum(1, keepdim=True)).numpy())
        return np.concatenate(found)

    def scores(self, made: Floats, left_out: Sequence[Place]) -> Floats:
        """`[strengths x columns, n]`: those of the model without some cells; NaN without one."""
        number = self._numbers.get(self._folds.without(left_out).tobytes())
        if number is None:
            return np.full(made.shape[:2], np.nan)
        return made[:, :, number]
