"""The probe: what can be read from each stored column, and what only seems to be."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vlmlens.abc import Analysis, AnalysisContext, Options
from vlmlens.errors import CompositionError
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens.transformers.loading import pick_device
from vlmlens_plugins.analysis._columns import choose, in_order, is_ragged
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.probe import report
from vlmlens_plugins.analysis.probe.evaluation import (
    Evaluation,
    Fit,
    Fits,
    evaluate,
    majority_predictions,
    stopping_rows,
)
from vlmlens_plugins.analysis.probe.mlp import MlpSettings, fit_mlp
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.scores import score_columns
from vlmlens_plugins.analysis.probe.solver import fit_logistic
from vlmlens_plugins.analysis.probe.splits import assign_folds, shuffled
from vlmlens_plugins.analysis.probe.targets import Target, find_targets

_STOPPING = 0.1


class Probe(Analysis):
    """Linear (or two-layer) probes on every column, against controls and the majority.

    The verdict rests on the gap between the probe and the better of its baselines, on its
    interval, and on a corrected permutation p-value; see `scores.judge`.
    """

    Options: ClassVar[type[Options]] = ProbeOptions
    options: ProbeOptions

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`."""
        self._targets(samples)
        if columns:
            self._columns({name: is_ragged(name) for name in columns})

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        targets, warnings = self._targets(context.samples)
        columns = self._columns({info.name: info.ragged for info in context.columns()})
        warner = _Warner(context, list(warnings))
        probed = []
        steps = len(targets) * len(columns)
        for i, target in enumerate(targets):
            done = i * len(columns)
            probed.append(self._probe(context, target, columns, warner, done, steps))
        return Result(
            analysis="probe",
            title="What each layer encodes",
            findings=report.findings(probed, self.options),
            tables=report.tables(probed),
            figures=report.figures(probed),
            options=self.options.model_dump(mode="json"),
            notes=report.notes(self.options),
            warnings=warner.messages,
        )

    def _probe(
        self,
        context: AnalysisContext,
        target: Target,
        columns: Sequence[str],
        warner: _Warner,
        done: int,
        steps: int,
    ) -> report.Probed:
        options = self.options
        rng = generator(context.seed, "probe-control", target.name)
        fold = assign_folds(target.y, target.groups, folds=options.folds, seed=context.seed)
        controls = shuffled(target.y, target.groups, options.control_seeds, rng)
        labels = np.concatenate([target.y[None], controls])
        stopping = stopping_rows(fold, target.groups, _STOPPING, rng)
        fit = self._fit(len(target.classes), context.seed)
        device = _device(options.device)
        evaluations: dict[str, Evaluation] = {}
        for i, column in enumerate(columns):
            x = context.store.read(column, target.ids).numpy()
            if np.isfinite(x).all():
                evaluations[column] = evaluate(x, labels, fold, stopping, fit, device)
                warner.unfinished(target.name, column, evaluations[column].unfinished)
            else:
                warner.warn(f"{column} holds values that are not finite; it was not probed.")
            context.progress(done + i + 1, steps)
        if not evaluations:
            raise CompositionError(
                f"No column holds finite values for {target.name!r}.", subject=target.name
            )
        majority = majority_predictions(target.y, fold)
        scores = score_columns(target, fold, labels, majority, evaluations, options, context.seed)
        return report.Probed(target, scores)

    def _fit(self, classes: int, seed: int) -> Fit:
        options = self.options
        if options.model == "mlp":
            settings = MlpSettings(
                hidden=options.hidden,
                epochs=options.epochs,
                patience=options.patience,
                learning_rate=options.learning_rate,
                seed=seed,
            )
            return partial(fit_mlp, classes=classes, settings=settings)
        return partial(_fit_logistic, classes=classes, strength=options.C)

    def _targets(self, samples: Sequence[Sample]) -> tuple[list[Target], list[str]]:
        return find_targets(
            self.options.targets,
            samples,
            folds=self.options.folds,
            min_per_class=self.options.min_per_class,
        )

    def _columns(self, ragged: dict[str, bool]) -> list[str]:
        """The columns to probe, which have one row per sample."""
        chosen = choose(self.options.columns, list(ragged))
        flat = [name for name in chosen if not ragged[name]]
        if not flat:
            subject = next(iter(chosen), None)
            raise CompositionError(
                "The probe needs a column with one row per sample; "
                + (f"{subject!r} has several." if subject else "no column is stored."),
                subject=subject,
                hint="Pool it or pick a token, for example image.mean or last.",
            )
        return in_order(flat)


class _Warner:
    """Tells the user once, and keeps what was told for the result."""

    def __init__(self, context: AnalysisContext, messages: list[str]) -> None:
        self._context = context
        self.messages: list[str] = []
        for message in messages:
            self.warn(message)

    def warn(self, message: str) -> None:
        if message not in self.messages:
            self.messages.append(message)
            self._context.warn(message)

    def unfinished(self, target: str, column: str, probes: int) -> None:
        if probes:
            self.warn(f"{target}: {probes} probes of {column} did not converge; lower C.")


def _fit_logistic(
    x: Tensor, y: Tensor, used: Tensor, stopping: Tensor, *, classes: int, strength: float
) -> Fits:
    del stopping
    return fit_logistic(x, y, used, classes=classes, c=strength)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return pick_device(name)
