"""Evaluating the probes of a target's columns: in memory, or in blocks where they are large."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vlmlens.errors import CompositionError
from vlmlens_plugins.analysis.probe.cross_validation import Evaluation, Family, Tick, evaluate
from vlmlens_plugins.analysis.probe.equal_rows import EqualRows
from vlmlens_plugins.analysis.probe.large.probes import LargeProbes
from vlmlens_plugins.analysis.probe.large.sums import NotFinite
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.stored_columns import Columns
from vlmlens_plugins.analysis.probe.trial import Trial

Warn = Callable[[str], None]
_AT_ONCE = 24_000_000
MEGABYTE = 1_000_000


def check_columns(names: Sequence[str], columns: Columns, samples: int, o: ProbeOptions) -> None:
    """Raise an error for columns that a perceptron cannot be trained on.

    Raises:
        CompositionError: One is larger than what is probed in memory.
    """
    if o.model != "mlp":
        return
    widths = columns.widths()
    for name in names:
        if is_large(samples, widths[name], o):
            raise CompositionError(
                f"model=mlp needs a column in memory, and {name} has "
                f"{samples * widths[name] * 4 / MEGABYTE:,.0f} MB as float32; in_memory is "
                f"{o.in_memory} MB.",
                subject=name,
                hint="Use model=logistic, fewer samples (--samples 5000), or a larger "
                "analysis.probe.in_memory; about five times the column is needed.",
            )


def is_large(samples: int, width: int, options: ProbeOptions) -> bool:
    """Whether a column is read in blocks."""
    return samples * width * 4 > options.in_memory * MEGABYTE


def notes_on_blocks(
    names: Sequence[str], columns: Columns, samples: int, o: ProbeOptions
) -> list[str]:
    """Which columns are read in blocks, if any, where nothing of them is left out."""
    widths = columns.widths()
    large = [name for name in names if is_large(samples, widths[name], o)]
    if not large or (o.model == "logistic" and o.components is not None):
        return []
    many = f"{len(large)} columns were" if len(large) > 1 else f"{large[0]} was"
    return [
        f"{many} larger than in_memory ({o.in_memory} MB) and read in blocks. Probes learned from "
        "all features and samples, as in memory."
    ]


@dataclass
class ColumnEvaluation:
    """Evaluates columns of one target.

    Args:
        trial: What is asked.
        columns: Where activations are read.
        kind: Trains probes in memory.
        large: Trains probes of columns that do not fit.
        device: Where.
        warn: Told what the reader must know.
    """

    trial: Trial
    columns: Columns
    kind: Family
    large: LargeProbes
    device: torch.device
    warn: Warn
    equal: EqualRows = field(default_factory=EqualRows)

    def run(self, names: Sequence[str], advance: Callable[[float], None]) -> dict[str, Evaluation]:
        """The evaluations of columns that hold finite values.

        Args:
            names: Columns, in order.
            advance: Told how many columns are done, with the share of those in work.
        """
        found: dict[str, Evaluation] = {}
        done = 0
        widths = self.columns.widths()
        size = len(self.trial.target.y)
        for width, same in groupby(names, widths.__getitem__):
            large = is_large(size, width, self.large.options)
            at_once = 1 if large else max(1, _AT_ONCE // max(1, size * width))
            for part in _parts(list(same), at_once):

                def tick(share: float, before: int = done, size: int = len(part)) -> None:
                    advance(before + share * size)

                found.update(self._in_blocks(part[0], tick) if large else self._part(part, tick))
                done += len(part)
                advance(done)
        self._tell(found)
        return found

    def _part(self, names: Sequence[str], tick: Tick) -> dict[str, Evaluation]:
        arrays: dict[str, npt.NDArray[Any]] = {}
        for name in names:
            x = self.columns.read(name, self.trial.target)
            if np.isfinite(x).all():
                arrays[name] = x
                self.equal.see(x)
            else:
                self._not_finite(name)
        if not arrays:
            return {}
        values, trial = list(arrays.values()), self.trial
        made = evaluate(values, trial.labels, trial.split, self.kind, self.device, tick)
        return dict(zip(arrays, made, strict=True))

    def _in_blocks(self, name: str, tick: Tick) -> dict[str, Evaluation]:
        trial = self.trial
        rows = self.columns.rows(name, trial.target)
        try:
            made = self.large.evaluate(rows, trial.labels, trial.split, self.equal, tick)
        except NotFinite:
            self._not_finite(name)
            return {}
        return {name: made}

    def _not_finite(self, name: str) -> None:
        self.warn(f"{name} was not probed: it holds values that are not finite.")

    def _tell(self, found: dict[str, Evaluation]) -> None:
        name = self.trial.target.name
        for column, made in found.items():
            if made.unfinished:
                self.warn(
                    f"{name}: {made.unfinished} probes of {column} did not converge. Lower C."
                )
        reduced = {column: made.kept for column, made in found.items() if made.kept < 1}
        if reduced:
            self.warn(_approximated(name, reduced, self.large.options))
        if shared := self.equal.on_both_sides(self.trial.split, self.trial.target.groups):
            self.warn(
                f"{name}: {shared} samples that probes are tested on have an equal "
                "sample (the same picture under another name, say) among those learned from, so "
                "accuracies may only show that a picture is recognized. Give equal samples one "
                "group."
            )


def _approximated(name: str, kept: dict[str, float], options: ProbeOptions) -> str:
    least, most = min(kept.values()), max(kept.values())
    share = f"{least:.1%}" if most - least < 0.001 else f"{least:.1%} to {most:.1%}"
    many = f"{len(kept)} columns are" if len(kept) > 1 else f"{next(iter(kept))} is"
    return (
        f"{name}: {many} larger than in_memory ({options.in_memory} MB), so probes read the first "
        f"{options.components} principal components only, with {share} of the variance. To probe "
        "all features, leave out analysis.probe.components."
    )


def _parts(names: list[str], size: int) -> list[list[str]]:
    return [names[start : start + size] for start in range(0, len(names), size)]
