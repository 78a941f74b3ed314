"""The part of the analysis that tunes: which trainings, in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from vlmlens.abc import AnalysisContext, ModelAdapter
from vlmlens.errors import CompositionError, MissingAnnotation, SpecError
from vlmlens.passes.gradients import check_differentiable
from vlmlens.samples import Sample
from vlmlens.tuned.components import components_of
from vlmlens_plugins.analysis._tasks import ALL
from vlmlens_plugins.analysis._tuning.dividing import Divided, divided
from vlmlens_plugins.analysis.bottleneck.options import BottleneckOptions
from vlmlens_plugins.analysis.bottleneck.tuning.closing import Closing, closing
from vlmlens_plugins.analysis.bottleneck.tuning.direct import direct_readout
from vlmlens_plugins.analysis.bottleneck.tuning.trained import Training, Trainings
from vlmlens_plugins.tuning.making import PROMPT

_STEPS = 100
_HELD = 0.2
_LEAST = 4


def check_tunable(
    skeleton: ModelAdapter, samples: Sequence[Sample], options: BottleneckOptions
) -> None:
    """Raise an error for what cannot be trained.

    Args:
        skeleton: The model without weights.
        samples: Those that are used.
        options: Of the analysis.

    Raises:
        CompositionError: The model writes nothing, or no gradient can be taken.
        SpecError: It has no such component.
        MissingAnnotation: There are too few samples.
    """
    if skeleton.readout() is None:
        raise CompositionError(
            "bottleneck: this model has no language model that answers, so there is nothing to "
            "tune towards an answer.",
            subject="tune",
            hint="Leave `tune` out.",
        )
    check_differentiable(skeleton)
    known = [PROMPT, *components_of(skeleton)]
    for component in options.components:
        if component not in known:
            raise SpecError(
                f"analysis.bottleneck.components: the model has no {component!r}.",
                subject=component,
                hint=f"It has {', '.join(known)}.",
            )
    divided_of(samples, options, seed=0)


def closed_gap(
    context: AnalysisContext, samples: Sequence[Sample], options: BottleneckOptions
) -> Closing:
    """Tune each component, several times, and measure again.

    Args:
        context: Of the analysis.
        samples: Of one task.
        options: Of the analysis.
    """
    task = samples[0].task or ALL
    parts = divided_of(samples, options, context.seed)
    trainings = Trainings(context, options, task, parts)
    before = trainings.before()
    todo = [(name, number) for name in options.components for number in range(options.seeds)]
    told = _Told(context, len(todo) + 1)
    found: list[Training] = []
    for name, number in todo:
        found.append(trainings.trained(name, number, progress=told.of(len(found))))
    best = max(options.components, key=lambda name: _right(found, name))
    control = trainings.trained(best, 0, shuffled=True, progress=told.of(len(found)))
    direct = direct_readout(
        context.model(), before, parts, options, context.seed, context.batch_size
    )
    return closing(task, parts, before, direct, [*found, control], options, context.seed)


def divided_of(samples: Sequence[Sample], options: BottleneckOptions, seed: int) -> Divided:
    """Who is trained on, who ends the training, and who is tested.

    Args:
        samples: Of one task, with labels.
        options: How many.
        seed: Of the division.

    Raises:
        MissingAnnotation: There are too few samples or groups, or one label only.
    """
    rest = 1 - options.tested
    parts = divided(
        samples,
        tasks=(),
        shares=((1 - _HELD) * rest, _HELD * rest, options.tested),
        most=options.labelled,
        tests=options.tests,
        seed=seed,
    )
    labels = Counter(str(one.label) for one in [*parts.train, *parts.held])
    if min(len(labels), len(parts.held), len(parts.test)) < 2 or min(labels.values()) < _LEAST:
        said = ", ".join(f"{label} ({number})" for label, number in labels.most_common(4))
        raise MissingAnnotation(
            f"bottleneck: {len(samples)} samples are too few to train on some and test others "
            f"(labels to train on: {said or 'none'}).",
            subject="tune",
            hint=f"Two labels are needed, each with {_LEAST} samples to train on; or leave `tune` "
            "out.",
        )
    return parts


def _right(found: Sequence[Training], component: str) -> float:
    return float(np.mean([one.after.right for one in found if one.component == component]))


class _Told:
    """Progress over several trainings of equal weight."""

    def __init__(self, context: AnalysisContext, trainings: int) -> None:
        self._context, self._all = context, trainings * _STEPS

    def of(self, number: int) -> _Progress:
        return _Progress(self._context, number * _STEPS, self._all)


class _Progress:
    """Progress of one of them."""

    def __init__(self, context: AnalysisContext, before: int, whole: int) -> None:
        self._context, self._before, self._whole = context, before, whole

    def __call__(self, done: int, total: int) -> None:
        share = round(_STEPS * done / max(total, 1))
        self._context.progress(self._before + share, self._whole)
