"""Probing for one target: all columns, controls, shortcuts, and the model's own answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vlmlens.errors import CompositionError
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.probe.column_evaluation import ColumnEvaluation, is_large
from vlmlens_plugins.analysis.probe.control_labels import random_by_type, shuffled_within
from vlmlens_plugins.analysis.probe.cross_validation import (
    Evaluation,
    Family,
    evaluate,
    silent,
)
from vlmlens_plugins.analysis.probe.features import FeatureRows, Features
from vlmlens_plugins.analysis.probe.large.probes import LargeProbes
from vlmlens_plugins.analysis.probe.large.scratch import Scratch
from vlmlens_plugins.analysis.probe.layer_ranking import Place, ranked
from vlmlens_plugins.analysis.probe.learning_curve import Curve, best_column, learning_curve
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.probe_kinds import family
from vlmlens_plugins.analysis.probe.scores import Scored, score_columns
from vlmlens_plugins.analysis.probe.shortcuts import TITLES, Shortcut, guard
from vlmlens_plugins.analysis.probe.splits import (
    Split,
    across,
    assign_folds,
    by_both,
    by_value,
    exchanged_within,
    folded,
    learnable,
)
from vlmlens_plugins.analysis.probe.stages import (
    Answered,
    StageBest,
    answer_losses,
    answered,
    stages,
)
from vlmlens_plugins.analysis.probe.stored_columns import Columns
from vlmlens_plugins.analysis.probe.targets import Target, numbered
from vlmlens_plugins.analysis.probe.trial import Trial

Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Probed:
    """Everything that was found about one target.

    Args:
        trial: What was asked.
        scored: The columns' scores, in order.
        places: The columns' ranking, in order.
        shortcuts: What does without the model.
        stages: The best column of each stage.
        answered: The model's own answers, where they are known.
        curve: Accuracy with fewer samples, where it was asked for.
    """

    trial: Trial
    scored: Scored
    places: Sequence[Place]
    shortcuts: Sequence[Shortcut]
    stages: Sequence[StageBest]
    answered: Answered | None
    curve: Curve | None = None

    @property
    def target(self) -> Target:
        """What was probed for."""
        return self.trial.target


@dataclass(frozen=True, slots=True)
class Prober:
    """Probes for targets.

    Args:
        options: The analysis's.
        columns: Where activations are read.
        seed: The run's.
        device: Where probes are trained.
        features: Of shortcuts.
        answers: The model's own answers, by sample id.
        folder: Where large scratch files lie; None: the system's place for them.
        learning: Whether to try fewer samples, too.
    """

    options: ProbeOptions
    columns: Columns
    seed: int
    device: torch.device
    features: Features
    answers: Mapping[str, str]
    folder: Path | None = None
    learning: bool = False

    def probe(
        self, target: Target, names: Sequence[str], warn: Warn, advance: Callable[[float], None]
    ) -> Probed:
        """Probe for one target.

        Args:
            target: What for.
            names: Columns, in order.
            warn: Told what the reader must know.
            advance: Told how many columns are done, with the share of those in work.

        Raises:
            CompositionError: No column holds finite values.
            MissingAnnotation: The split cannot be made.
        """
        trial = self._trial(target, warn)
        kind = family(self.options, target, self.seed)
        evaluations = self._evaluate(trial, names, kind, warn, advance)
        if not evaluations:
            raise CompositionError(
                f"No column holds finite values for {target.name!r}.", subject=target.name
            )
        scored = score_columns(trial, evaluations, self.options, self.seed)
        shortcuts = guard(trial, scored, self._shortcuts(trial, kind), self.options)
        _warn_of(target, shortcuts, warn)
        found, answers = self._stages(trial, scored)
        curve = self._curve(trial, scored, evaluations, kind, warn) if self.learning else None
        return Probed(trial, scored, ranked(scored), shortcuts, found, answers, curve)

    def _trial(self, target: Target, warn: Warn) -> Trial:
        rng = generator(self.seed, "probe-control", target.name)
        split = make_split(target, self.options, self.seed)
        lost = int((~split.tested[: target.learned]).sum())
        if lost and target.learned == len(target.ids):
            warn(f"{target.name}: split={self.options.split} never tests {lost} samples.")
        if self.options.split == "random" and len(np.unique(target.groups)) < len(target.ids):
            warn(
                f"{target.name}: the random split puts samples of one group on both sides, so "
                "accuracies may only show that a group is recognized."
            )
        seeds = self.options.control_seeds
        parts = exchanged_within(split, target.groups)
        y = target.y if target.numbers else target.y.astype(_smallest(len(target.classes)))
        controls = shuffled_within(y, target.groups, parts, seeds, rng)
        labels = [y[None], *controls]
        types = _types(target, self.options.types)
        if types is not None:
            labels.append(random_by_type(y, types, seeds, rng))
        return Trial(target, split, np.concatenate(labels), seeds)

    def _evaluate(
        self,
        trial: Trial,
        names: Sequence[str],
        kind: Family,
        warn: Warn,
        advance: Callable[[float], None],
    ) -> dict[str, Evaluation]:
        large = self.large(trial.target)
        evaluation = ColumnEvaluation(trial, self.columns, kind, large, self.device, warn)
        return evaluation.run(names, advance)

    def _curve(
        self,
        trial: Trial,
        scored: Scored,
        evaluations: Mapping[str, Evaluation],
        kind: Family,
        warn: Warn,
    ) -> Curve | None:
        def evaluate_again(changed: Trial, column: str) -> Evaluation | None:
            return self._evaluate(changed, [column], kind, lambda _: None, silent).get(column)

        full = evaluations[best_column(scored)]
        found = learning_curve(trial, scored, full, evaluate_again, self.seed)
        if found is None:
            warn(f"{trial.target.name}: too few samples for a learning curve.")
        return found

    def large(self, target: Target) -> LargeProbes:
        """Probes of a target's columns that do not fit in memory."""
        return LargeProbes(self.options, target, self.seed, self.device, Scratch(self.folder))

    def _shortcuts(self, trial: Trial, kind: Family) -> dict[str, npt.NDArray[Any]]:
        found: dict[str, npt.NDArray[Any]] = {}
        for name in self.options.shortcuts:
            features = self.features.of(name, trial.target.samples)
            if features is not None:
                found[name] = self._predicted(trial, features, kind)
        return found

    def _predicted(self, trial: Trial, rows: FeatureRows, kind: Family) -> npt.NDArray[Any]:
        """`[n]`: held-out predictions from features of samples."""
        labels, split = trial.labels[:1], trial.split
        if self.options.model != "mlp" and is_large(rows.count, rows.width, self.options):
            large = self.large(trial.target)
            made = large.evaluate(rows, labels, split, None, silent)
        else:
            (made,) = evaluate([rows.array()], labels, split, kind, self.device)
        return np.asarray(made.held_out[0])

    def _stages(self, trial: Trial, scored: Scored) -> tuple[list[StageBest], Answered | None]:
        target = trial.target
        losses = None
        if target.task is not None and self.answers:
            labels = {sample.id: sample.label for sample in target.samples}
            right = {n: said == labels[n] for n, said in self.answers.items() if n in labels}
            losses = answer_losses(trial, right)
        found = stages(scored, losses)
        if losses is None:
            return found, None
        numbers = {name: i for i, name in enumerate(target.classes)}
        said = np.array([numbers.get(self.answers.get(n, ""), -1) for n in target.ids], np.int64)
        answers = answered(trial, scored, found, said, losses, self.options, self.seed)
        return found, answers


def make_split(target: Target, options: ProbeOptions, seed: int) -> Split:
    """The split that the options ask for.

    Raises:
        MissingAnnotation: It cannot be made from this target's samples.
    """
    if target.learned < len(target.ids):
        return learnable(across(target.learned, target.groups), target.y)
    if options.split == "value":
        assert options.hold_out is not None  # noqa: S101
        names = options.hold_out.split("+")
        values = [_value(sample.attributes, names) for sample in target.samples]
        return learnable(by_value(values, target.groups), target.y)
    groups = None if options.split == "random" else target.groups
    fold = assign_folds(target.y, groups, folds=options.folds, seed=seed)
    if options.split == "template":
        units = [str(s.attributes.get("template", s.prompt)) for s in target.samples]
        return learnable(by_both(fold, units, options.folds, seed), target.y)
    return folded(fold)


def _smallest(classes: int) -> type[np.signedinteger[Any]]:
    """A type for numbers of classes: labels of a million samples are kept many times over."""
    return np.int16 if classes <= np.iinfo(np.int16).max else np.int32


def _types(target: Target, name: str | None) -> npt.NDArray[np.int64] | None:
    """int64 `[n]`: the samples' types, or None."""
    if name == "group":
        return target.groups
    key = name or "type"
    if not all(sample.attributes.get(key) is not None for sample in target.samples):
        return None
    return numbered([str(sample.attributes[key]) for sample in target.samples])


def _value(attributes: Mapping[str, object], names: Sequence[str]) -> str | None:
    values = [attributes.get(name) for name in names]
    return None if any(value is None for value in values) else " ".join(map(str, values))


def _warn_of(target: Target, shortcuts: Sequence[Shortcut], warn: Warn) -> None:
    for found in shortcuts:
        if found.explains:
            warn(
                f"{target.name}: a shortcut explains the accuracy. {TITLES[found.name]} alone "
                f"reaches {found.accuracy:.2f}, the best layer only {found.behind:.2f} more."
            )
