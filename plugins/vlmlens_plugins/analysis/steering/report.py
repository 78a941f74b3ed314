"""What steering found, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.results import Cell, Finding, Glance
from vlmlens_plugins.analysis.steering.files import Direction
from vlmlens_plugins.analysis.steering.measuring import Estimate
from vlmlens_plugins.analysis.steering.steered import Steered, times

_KEPT = 0.95
_WAYS = {
    "mean-difference": "the difference of the means of the two sides (Rimsky et al. 2023, "
    "arXiv 2312.06681)",
    "probe": "the weights of a logistic regression, as long as the difference of the two means",
    "pca": "the first principal component of differences of pairs (Zou et al. 2023, "
    "arXiv 2310.01405), as long as the difference of the two means",
}


_CONTROLS = {
    1: "Controls are {0} random directions of equal length.",
    2: "Controls are {0} random directions of equal length, and {0} that are learnt in the same "
    "way from shuffled labels, and are as long as they come out.",
}


def findings(steered: Steered) -> list[Finding]:
    """What the best direction does, and how strongly it can be added without harm."""
    found = [_main(steered)]
    if steered.altered:
        found.append(_harmless(steered))
    return found


def overview(steered: Steered) -> list[Glance]:
    """One cell: where the answer can be steered."""
    at, best, aim = steered.options.stated, steered.best, steered.aim
    steers = steered.steers(best.site)
    random = steered.besides[best.site][0]
    return [
        Glance(
            aim.task,
            f"can be steered to {aim.answer}",
            best.site if steers else "no site",
            steered.verdict(best.site),
            value=float(steered.moved[best.site, at].value),
            beside=f"random {random.moved.mean():.2f}",
            curve=[float(steered.moved[each.site, at].value) for each in steered.directions],
        )
    ]


def notes(steered: Steered, given: Direction | None, saved: Sequence[str]) -> list[str]:
    """How the numbers were made."""
    parts, aim, best = steered.parts, steered.aim, steered.best
    tested = len({item.group for item in steered.wanted.items})
    found = [_learnt(steered) if given is None else _opened(given)]
    found.append(
        f"Tested on {len(steered.wanted.items)} questions of {tested} other groups, whose right "
        f"answer is not {aim.answer!r}."
    )
    found.append(
        f"{len(parts.untouched)} questions of other tasks, of groups that nothing was learnt from, "
        "show the damage."
        if parts.untouched
        else "The run has no questions of other tasks, so damage was not measured: the run needs "
        "several tasks."
    )
    found += [
        f"Strengths are multiples of the direction, which at {best.site} is {best.norm:.3g} long.",
        _CONTROLS[len(steered.besides[best.site])].format(steered.options.controls),
        "A direction steers if it moves the answer further than five of six of its controls, and "
        "if so much more than their mean is unlikely in other groups of samples (random signs) and "
        "in random directions (Student's t).",
        "p-values are corrected for the number of sites by Holm (1979). The best site is named "
        "after seeing all of them.",
    ]
    rows = best.rows
    if parts.prefix:
        found.append(
            f"The compared answers begin with {len(parts.prefix)} equal tokens, which count as the "
            "end of the prompt."
        )
        rows = f"steps[{len(parts.prefix)}]" if rows == "last" else rows
    if saved:
        file = best.file
        found.append(
            "Each direction is saved beside the results, and can be used as it is: "
            f'--edit "{best.site}/{rows} = add(RUN/results/{file}, 1)".'
        )
    return found


def _learnt(steered: Steered) -> str:
    parts, aim = steered.parts, steered.aim
    groups = len({sample.split_group for sample in parts.learn})
    return (
        f"The direction is {_WAYS[steered.options.method]}. It was learnt from {len(parts.learn)} "
        f"samples of {groups} groups, {sum(parts.positive)} of them with {aim.towards!r} as "
        f"{aim.attribute}."
    )


def _opened(given: Direction) -> str:
    model = given.origin.get("model")
    name = model.get("checkpoint") if isinstance(model, dict) else None
    return (
        f"The direction was read from a file: learnt at {given.site}/{given.rows} by "
        f"{given.method}, towards {given.aim.towards!r} as {given.aim.attribute}, from "
        f"{len(given.groups)} groups, which are not tested on, with the model {name or 'unknown'}."
    )


def _main(steered: Steered) -> Finding:
    at, best, aim = steered.options.stated, steered.best, steered.aim
    place = best.site, at
    moved, steers = steered.moved[place], steered.steers(best.site)
    controls = {each.kind: float(each.moved.mean()) for each in steered.besides[best.site]}
    text = (
        f"{aim.task}: added {times(at)} at {best.site}/{best.rows}, the direction "
        f"{aim.towards!r} moves {moved.value:.0%} of the answers to {aim.answer!r} "
        f"({_interval(moved)}); {_beside(controls)}."
    )
    if not steers:
        text = (
            f"{aim.task}: at no site does the direction {aim.towards!r} move the answer further "
            f"towards {aim.answer!r} than its controls. " + text
        )
    values: dict[str, Cell] = {
        "site": best.site,
        "rows": best.rows,
        "strength": at,
        "norm": best.norm,
        "moved": float(moved.value),
        **{f"{kind}_moved": share for kind, share in controls.items()},
        "change": float(steered.change[place].value),
        "p": steered.p[best.site],
    }
    if steered.altered:
        altered = steered.altered[place]
        count = len(steered.parts.untouched)
        text += (
            f" Of {count} untouched questions, {1 - altered.value:.0%} keep their answer "
            f"({_interval(_rest(altered))})."
        )
        values |= {"untouched": count, "untouched_altered": float(altered.value)}
    ids = [item.target.id for item in steered.wanted.items]
    verdict = steered.verdict(best.site)
    return Finding(text, verdict, aim.task, values, best.site, ids, notable=steers)


def _harmless(steered: Steered) -> Finding:
    """The place with the most moved answers of those where nearly all other answers stay."""
    kept = [p for p in steered.places if 1 - steered.altered[p].value >= _KEPT]
    best = max(kept, key=lambda place: float(steered.moved[place].value), default=None)
    task, answer = steered.aim.task, steered.aim.answer
    if best is None or not steered.moved[best].value:
        text = (
            f"{task}: wherever answers move to {answer!r}, less than {_KEPT:.0%} of the untouched "
            "questions keep theirs."
        )
        return Finding(text, subject=task, values={"moved": 0.0})
    moved = float(steered.moved[best].value)
    text = (
        f"{task}: where at least {_KEPT:.0%} of the untouched questions keep their answer, at most "
        f"{moved:.0%} of the answers move to {answer!r}: added {times(best[1])} at {best[0]}."
    )
    values: dict[str, Cell] = {
        "site": best[0],
        "strength": best[1],
        "moved": moved,
        "untouched_altered": float(steered.altered[best].value),
    }
    return Finding(text, subject=task, values=values)


def _beside(controls: dict[str, float]) -> str:
    words = {
        "random": "random directions of equal norm move {:.0%}",
        "shuffled": "directions from shuffled labels {:.0%}",
    }
    return ", ".join(words[kind].format(share) for kind, share in controls.items())


def _rest(one: Estimate) -> Estimate:
    return Estimate(1 - one.value, 1 - one.high, 1 - one.low)


def _interval(one: Estimate) -> str:
    return f"95 % interval {one.low:.0%} to {one.high:.0%}"
