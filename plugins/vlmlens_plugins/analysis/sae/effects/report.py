"""What features do to the answers, in sentences, tables and a picture."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.results import Cell, Figure, Finding, Table, Verdict
from vlmlens_plugins.analysis._results import slug, table
from vlmlens_plugins.analysis.sae.effects.aims import Aim
from vlmlens_plugins.analysis.sae.effects.measured import (
    LEAST_GAP,
    TESTED,
    Beside,
    Effect,
    Effects,
    Interval,
)

_KINDS = {
    "random": "random features of equal density",
    "turned": "the same rows and sizes in random directions",
    "difference": "a difference of means of equal size",
}


def findings(found: Effects) -> list[Finding]:
    """What each aim does when it is ablated, and when it is clamped; sets of features first."""
    by_size = sorted(found.by_aim.items(), key=lambda each: -len(each[0].features))
    ablated = [_ablated(found, aim, tasks) for aim, tasks in by_size]
    return [*ablated, *(_clamped(found, each) for each in found.moved)]


def _ablated(found: Effects, aim: Aim, tasks: Sequence[Effect]) -> Finding:
    own = next((each for each in tasks if each.own), None)
    first = own or max(tasks, key=lambda each: each.changed.value)
    others = [each for each in tasks if each is not first]
    text = (
        f"Ablating {_named(aim)} at {found.column} changes {first.changed.value:.0%} of the "
        f"answers of {first.task} ({_interval(first.changed)}; {_beside(first)})"
    )
    text += f", {_listed(others)}." if others else "."
    also = [each.task for each in others if each.differs]
    if own is not None and own.differs and others:
        text += (
            f" Of the other tasks, {' and '.join(also)} changes more than with the controls, too."
            if also
            else " No other task is shown to change more than with the controls."
        )
    verdict = first.verdict if own is not None else _overall(tasks)
    values = _values(first) | {f"changed {each.task}": each.changed.value for each in others}
    return Finding(
        text, verdict, first.task, values, found.column, notable=own is not None and own.differs
    )


def _clamped(found: Effects, one: Effect) -> Finding:
    text = (
        f"Clamped at its largest code at {found.column}, {_named(one.aim)} moves "
        f"{one.changed.value:.0%} of the other answers of {one.aim.target} to {one.aim.label!r} "
        f"({_interval(one.changed)}; {_beside(one)})."
    )
    return Finding(text, one.verdict, one.aim.target, _values(one), found.column)


def tables(found: Effects) -> list[Table]:
    """Each aim with each task; and each label to which answers were to move."""
    end = slug(found.column)
    made = [
        table(
            f"sae-effects-{end}",
            f"Answers under ablated features at {found.column}",
            [_row(each) | {"size": found.sizes[each.aim.name]} for each in found.tasks],
            ("features", "about", "task"),
        ),
        table(
            f"sae-clamped-{end}",
            f"Answers moved to the label by clamped features at {found.column}",
            [_row(each) for each in found.moved],
            ("features", "about", "task"),
        ),
    ]
    return [each for each in made if len(each)]


def figures(found: Effects) -> list[Figure]:
    """The share of changed answers, by features and task."""
    tasks = list(dict.fromkeys(each.task for each in found.tasks))
    names = [_named(aim) for aim in found.by_aim]
    rows = [{each.task: each for each in several} for several in found.by_aim.values()]
    if not rows:
        return []
    return [
        Figure(
            f"sae-effects-{slug(found.column)}",
            f"Share of answers that change when features are ablated at {found.column}; in "
            "brackets, random features of equal density",
            "heatmap",
            x=tasks,
            x_label="task",
            y=names,
            y_label="features",
            cells=[[row[t].changed.value if t in row else None for t in tasks] for row in rows],
            texts=[[_cell(row.get(task)) for task in tasks] for row in rows],
            y_range=(0.0, 1.0),
        )
    ]


def notes(found: Effects) -> list[str]:
    """How the numbers were made."""
    if not found.tasks:
        return []
    return [
        "Ablated: the feature's code becomes 0 in all rows of the column; what the SAE does not "
        "reconstruct stays. A single feature is tried on the held-out samples in which it writes "
        "most, a set on the first ones; where no feature fires, ablating changes nothing.",
        "An answer is the most probable of the right answer and the others that the question "
        "offers, at the token where they differ.",
        "Controls: as many random features, alike in density and in the length of what they write; "
        "and the same features that write random directions of equal length, so that the same rows "
        "change by as much. They are drawn several times for the task that features are about, and "
        "once for the others. For a label, a difference of means of equal root mean square length "
        "is shown beside them and not tested.",
        f"An effect differs if the share of changed answers is at least {LEAST_GAP:.0%} above both "
        "controls, the interval of this gap lies above 0, and the logit difference of the right "
        "answer changes otherwise than with either control (signs of groups flipped at random, "
        "corrected by Holm for all features and tasks).",
        "That an ablated feature changes nothing does not show that the model does not use it: "
        "others may write the same.",
    ]


def _overall(tasks: Sequence[Effect]) -> Verdict:
    verdicts = {each.verdict for each in tasks}
    for each in (Verdict.DIFFERS, Verdict.INCONCLUSIVE):
        if each in verdicts:
            return each
    return Verdict.NO_DIFFERENCE


def _named(aim: Aim) -> str:
    return f"{aim.name} ({aim.about})" if len(aim.features) == 1 and aim.about else aim.name


def _beside(one: Effect) -> str:
    return ", ".join(
        f"{_KINDS[kind]} {each.changed:.0%}"
        for kind, each in one.controls.items()
        if kind in TESTED or one.clamped
    )


def _listed(others: Sequence[Effect]) -> str:
    said = [f"{each.changed.value:.0%} of {each.task}" for each in others]
    return " and ".join(filter(None, (", ".join(said[:-1]), said[-1])))


def _cell(one: Effect | None) -> str:
    if one is None:
        return ""
    random = one.controls.get("random")
    return f"{one.changed.value:.0%}" + (f" ({random.changed:.0%})" if random else "")


def _values(one: Effect) -> dict[str, Cell]:
    found: dict[str, Cell] = {
        "features": "+".join(map(str, one.aim.features)),
        "samples": one.samples,
        "changed": one.changed.value,
        "gap": one.gap.value,
        "logits": one.logits.value,
        "p": one.p,
    }
    return found | {f"{kind}_changed": each.changed for kind, each in one.controls.items()}


def _row(one: Effect) -> dict[str, Cell]:
    row: dict[str, Cell] = {
        "features": "+".join(map(str, one.aim.features)),
        "about": one.aim.about,
        "task": one.task,
        "samples": one.samples,
        "groups": one.groups,
        **_ends("changed", one.changed),
        **_ends("gap", one.gap),
        **_ends("logits", one.logits),
        "kl": one.kl,
        "p_holm": one.p,
        "verdict": str(one.verdict),
    }
    for kind in _KINDS:
        row |= _of_control(kind, one.controls.get(kind))
    return row


def _of_control(kind: str, one: Beside | None) -> dict[str, Cell]:
    return {
        f"{kind}_changed": None if one is None else one.changed,
        f"{kind}_logits": None if one is None else one.logits,
        f"{kind}_kl": None if one is None else one.kl,
    }


def _ends(name: str, one: Interval) -> dict[str, Cell]:
    return {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}


def _interval(one: Interval) -> str:
    return f"95 % interval {one.low:.0%} to {one.high:.0%}"
