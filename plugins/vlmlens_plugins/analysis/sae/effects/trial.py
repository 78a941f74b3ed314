"""The edits that try features out, beside their controls, and the samples that they run on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from vlmlens.abc import AnalysisContext, ModelAdapter
from vlmlens.errors import CompositionError, SpecError
from vlmlens.passes.edits import quoted
from vlmlens.samples import Sample
from vlmlens.tokens import Column
from vlmlens_plugins.analysis._separating import targets_of
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis._sweeps import Cell, CellOptions, Change, Item, Swept, sweep
from vlmlens_plugins.analysis._sweeps.sweeping import answer_tokens
from vlmlens_plugins.analysis._tasks import ALL, rows_by_task
from vlmlens_plugins.analysis.sae.effects.aims import Aim
from vlmlens_plugins.analysis.sae.effects.drawn import (
    drawn_features,
    mean_difference,
    written_size,
)
from vlmlens_plugins.analysis.sae.effects.measured import Effects, Ran, effects_of
from vlmlens_plugins.analysis.sae.held import Split
from vlmlens_plugins.analysis.sae.options import SaeOptions
from vlmlens_plugins.analysis.sae.peaks import Peaks
from vlmlens_plugins.sae import Rows, Sae

Floats = npt.NDArray[np.float64]
_DIRECTION = "difference of means"
_MOST_ANSWERS = 20


@dataclass(frozen=True)
class Trial:
    """What features are tried out with.

    Args:
        context: The context of the analysis.
        sae: The SAE.
        file: Where it is saved.
        column: SITE/SELECTOR, whose rows are edited.
        rows: The rows of the column.
        learn: What the features do in the samples that are learnt from.
        held: What they do in the held-out samples, on which effects are measured.
        split: Which samples these are.
        options: The analysis's options.
    """

    context: AnalysisContext
    sae: Sae
    file: Path
    column: str
    rows: Rows
    learn: Peaks
    held: Peaks
    split: Split
    options: SaeOptions

    @cached_property
    def norms(self) -> Floats:
        """float64 `[features]`: the lengths of the directions."""
        return self.sae.norms.double().cpu().numpy()

    @cached_property
    def most(self) -> Floats:
        """float64 `[features]`: the largest code of each feature in the learning samples."""
        found: Floats = self.learn.largest.max(axis=0).toarray().ravel().astype(np.float64)
        return found

    def edit(self, name: str, features: Sequence[int], *more: str) -> str:
        """An edit of these features as text. The file's place was checked before."""
        numbers = "+".join(map(str, features))
        given = ", ".join([quoted(str(self.file.absolute())), numbers, *more, "anyway=true"])
        return f"{self.column} = sae.{name}({given})"


@dataclass(frozen=True, slots=True)
class _Sweep:
    """Cells, of which the first is no control, and the items that they run on."""

    items: Sequence[Item]
    cells: Sequence[Cell]


@dataclass(frozen=True)
class _Planned:
    """The cells of an aim, and the items that they run on.

    Args:
        aim: The features.
        ablated: Sweeps of the features ablated, and controls: samples in which they fire.
        clamped: A sweep of them clamped, and controls: samples of the aim's task that do not have
            its label; None where it has none.
        named: The directions that cells name.
        size: The root mean square length of what ablating changes in a row.
    """

    aim: Aim
    ablated: Sequence[_Sweep]
    clamped: _Sweep | None = None
    named: CellOptions = field(default_factory=CellOptions)
    size: float = 0.0


def why_not(vlm: ModelAdapter | None, column: str, samples: Sequence[Sample]) -> str:
    """Why nothing can be tried out, in words; "" if it can.

    Args:
        vlm: The model, or its skeleton; None: there is none.
        column: The column.
        samples: The samples of the run.
    """
    if vlm is None:
        return "there is no model"
    if Column.parse(column).selector.pool is not None:
        return f"the rows of {column} are pooled, and edits change single rows"
    if vlm.choice_scores(()) is not None:
        return "the model writes no answers"
    if all(sample.label is None for sample in samples):
        return "no sample has a label"
    return ""


def effects(trial: Trial, aims: Sequence[Aim]) -> Effects:
    """Ablate and clamp features, and measure what becomes of the answers.

    Each aim runs on held-out samples in which its features fire, up to `samples` of each task:
    elsewhere ablating changes nothing. Beside it run, `controls` times for the task that the
    features are about and once for the others, features of equal density; the same features
    with random directions of equal length, which change the same rows by as much; and, for a
    label, the difference of means of equal size.

    Args:
        trial: What to try with.
        aims: Which features.

    Raises:
        CompositionError: Nothing can be tried out here.
        SpecError: More passes are needed than the options allow.
    """
    context = trial.context
    reason = why_not(context.model(), trial.column, context.samples)
    if reason:
        raise CompositionError(
            f"What features do to answers cannot be measured: {reason}.",
            subject="effects",
            hint="Set effects=0.",
        )
    taken = {number for aim in aims for number in aim.features}
    planned = [_planned(trial, aim, taken) for aim in aims]
    planned = [each for each in planned if each.ablated]
    _check_cost(trial, planned)
    ran = [_ran(trial, each) for each in planned]
    found = effects_of(trial.column, ran, draws=trial.options.draws, seed=context.seed)
    if found.too_few:
        context.warn(found.too_few)
    return found


def _ran(trial: Trial, plan: _Planned) -> Ran:
    def swept(one: _Sweep) -> Swept:
        return sweep(trial.context, one.items, one.cells, trial.options, plan.named)

    clamped = None if plan.clamped is None else swept(plan.clamped)
    return Ran(plan.aim, [swept(one) for one in plan.ablated], clamped, plan.size)


def _check_cost(trial: Trial, planned: Sequence[_Planned]) -> None:
    size, most = trial.context.batch_size, trial.options.max_passes
    sweeps = [one for each in planned for one in (*each.ablated, each.clamped) if one is not None]
    passes = sum(len(one.cells) * -(-len(one.items) // size) for one in sweeps)
    if passes > most:
        raise SpecError(
            f"Trying out features needs {passes:,} passes over a batch of at most {size} samples. "
            f"max_passes is {most:,}.",
            subject="max_passes",
            hint="Set effects, samples or controls lower, or --batch-size or max_passes higher.",
        )


def _planned(trial: Trial, aim: Aim, taken: set[int]) -> _Planned:
    firing = _firing(trial, aim)
    parts = trial.rows.read(firing[: trial.options.samples])
    size = written_size(trial.sae, aim.features, parts)
    drawn = _drawn(trial, aim, taken)
    direction = _direction(trial, aim) if len(aim.features) == 1 else None
    cells = [
        Cell((Change(trial.edit("ablate", aim.features)),)),
        *(_control("random", trial.edit("ablate", each)) for each in drawn),
        *(
            _control("turned", trial.edit("ablate", aim.features, f"turned={seed}"))
            for seed in _seeds(trial)
        ),
    ]
    if direction is not None:
        cells.append(_difference(trial, -size / float(np.linalg.norm(direction))))
    ablated = _by_task(aim, _usable(trial, _items(trial, firing)), cells)
    if direction is None:
        return _Planned(aim, ablated, size=size)
    named = CellOptions(directions={_DIRECTION: direction.astype(np.float32).tolist()})
    others = _usable(trial, _others(trial, aim))
    clamped = _Sweep(others, _clamps(trial, aim, drawn, parts, direction)) if others else None
    return _Planned(aim, ablated, clamped, named, size)


def _drawn(trial: Trial, aim: Aim, taken: set[int]) -> list[tuple[int, ...]]:
    """For each draw, as many other features; none where there are not as many."""
    found = [
        drawn_features(
            aim.features, trial.learn, trial.norms, taken,
            generator(trial.context.seed, "sae", "effects", aim.name, str(draw)),
        )
        for draw in range(trial.options.controls)
    ]  # fmt: skip
    return [each for each in found if len(each) == len(aim.features)]


def _by_task(aim: Aim, items: Sequence[Item], cells: Sequence[Cell]) -> list[_Sweep]:
    """The aim's task beside all draws of the controls, other tasks beside the first of each kind.

    Where an aim is about no task, all tasks run beside all draws.
    """
    own = [item for item in items if item.task == aim.target]
    others = [item for item in items if item.task != aim.target]
    first = {cell.about.get("control", ""): cell for cell in reversed(cells)}
    few = [cell for cell in cells if first[cell.about.get("control", "")] is cell]
    found = [_Sweep(own, cells), _Sweep(others, few if own else cells)]
    return [one for one in found if one.items]


def _clamps(
    trial: Trial,
    aim: Aim,
    drawn: Sequence[tuple[int, ...]],
    parts: Sequence[torch.Tensor],
    direction: Floats,
) -> list[Cell]:
    """A feature at its largest code, other features at theirs, and a difference of equal size."""
    most = float(trial.most[aim.features[0]])
    added = written_size(trial.sae, aim.features, parts, most)
    return [
        Cell((Change(trial.edit("clamp", aim.features, f"{most:.9g}")),)),
        *(
            _control("random", trial.edit("clamp", each, f"{trial.most[each[0]]:.9g}"))
            for each in drawn
        ),
        *(
            _control("turned", trial.edit("clamp", aim.features, f"{most:.9g}", f"turned={seed}"))
            for seed in _seeds(trial)
        ),
        _difference(trial, added / float(np.linalg.norm(direction))),
    ]


def _control(kind: str, edit: str) -> Cell:
    return Cell((Change(edit),), {"control": kind})


def _difference(trial: Trial, strength: float) -> Cell:
    change = Change(f"{trial.column} = add", direction=_DIRECTION, strength=strength)
    return Cell((change,), {"control": "difference"})


def _seeds(trial: Trial) -> range:
    start = 1000 * trial.context.seed
    return range(start, start + trial.options.controls)


def _firing(trial: Trial, aim: Aim) -> list[int]:
    """Numbers of the held-out samples in which features of an aim fire.

    Those in which a single feature writes most come first; those of a set are in order.
    """
    chosen = list(aim.features)
    written = trial.held.mean[:, chosen].toarray() @ trial.norms[chosen]
    order = np.argsort(-written, kind="stable") if len(chosen) == 1 else np.arange(len(written))
    return [trial.held.samples[i] for i in order if written[i] > 0]


def _items(trial: Trial, numbers: Sequence[int]) -> list[Item]:
    """The samples with these rows that have a label and another answer, task by task."""
    samples = trial.context.samples
    same = [i for number in numbers for i in trial.split.alike.get(number, (number,))]
    asked = [samples[i] for i in same if samples[i].label is not None]
    labels = {
        task: sorted({str(samples[i].label) for i in rows if samples[i].label is not None})
        for task, rows in rows_by_task(samples).items()
    }
    found = []
    for task, rows in rows_by_task(asked).items():
        for sample in [asked[i] for i in rows][: trial.options.samples]:
            others = sample.choices or labels[task][:_MOST_ANSWERS]
            answers = tuple(dict.fromkeys((str(sample.label), *others)))
            if len(answers) > 1:
                found.append(Item(sample, answers, group=sample.split_group, task=task))
    return found


def _usable(trial: Trial, items: Sequence[Item]) -> list[Item]:
    """Those whose answers differ before one of them ends."""
    return answer_tokens(trial.context.model(), items)[0]


def _others(trial: Trial, aim: Aim) -> list[Item]:
    """Held-out questions of an aim's task with another answer than its label."""
    samples = trial.context.samples
    same = sorted(i for n in trial.held.samples for i in trial.split.alike.get(n, (n,)))
    found = [
        Item(samples[i], (aim.label, str(samples[i].label)), group=samples[i].split_group,
             task=aim.target)
        for i in same
        if (samples[i].task or ALL) == aim.target and samples[i].label not in (None, aim.label)
    ]  # fmt: skip
    return found[: trial.options.samples]


def _direction(trial: Trial, aim: Aim) -> Floats | None:
    """The difference of means of an aim's label; None where it has none."""
    if not aim.label:
        return None
    for each in targets_of(trial.context.samples, trial.options.by):
        if each.name == aim.target:
            return mean_difference(trial.rows, trial.split, each.labels, aim.label)
    return None
