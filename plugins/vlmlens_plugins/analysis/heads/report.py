"""What the analysis of heads found: sentences, figures, notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens.abc.model_work import JSON
from vlmlens.results import Cell, Figure, Finding, Glance, Result, Verdict
from vlmlens_plugins.analysis._results import slug
from vlmlens_plugins.analysis._sweeps.effects import ALPHA, effects, too_few
from vlmlens_plugins.analysis._sweeps.pictures import heat_map
from vlmlens_plugins.analysis._tasks import ALL
from vlmlens_plugins.analysis.heads.measured import (
    DUPLICATE,
    IMAGE,
    INDUCTION,
    LOOKS,
    PREVIOUS,
    TEXT,
    Floats,
    Head,
    Measured,
    by_head,
    copying,
)
from vlmlens_plugins.analysis.heads.options import HeadsOptions
from vlmlens_plugins.analysis.heads.tables import tables

_NAMED = 6
_NO_ROLE = "none with a role"
_HOW = {TEXT: "Without an image", IMAGE: "With an image in front"}
_ARE = {
    PREVIOUS: ("previous-token heads", "a previous-token head"),
    DUPLICATE: ("duplicate-token heads", "a duplicate-token head"),
    INDUCTION: ("induction heads", "an induction head"),
    LOOKS: (
        "heads that look at the image much more than the others",
        "a head that looks at the image much more than the others",
    ),
}
_READS = {
    PREVIOUS: "Attention to the previous token",
    DUPLICATE: "Attention to earlier equal tokens",
    INDUCTION: "Attention to what followed an earlier equal token (induction)",
    LOOKS: "Attention of the last row to the image without sinks",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """What random sequences said in one condition.

    Args:
        condition: `TEXT` or `IMAGE`.
        results: Of `SequenceScores`, by order of the tokens.
        roles: The roles.
        length: How many tokens a copy had.
    """

    condition: str
    results: Mapping[str, Sequence[Mapping[str, JSON]]]
    roles: Sequence[Measured]
    length: int

    @property
    def copying(self) -> Floats:
        """The copying score of each head."""
        return copying(self.results["repeated"])


@dataclass(frozen=True, slots=True)
class Seen:
    """What the run's own questions said.

    Args:
        results: Of `ImageShares`.
        role: Who looks at the image.
    """

    results: Sequence[Mapping[str, JSON]]
    role: Measured


def report(
    shown: Sequence[Shown],
    seen: Seen | None,
    options: HeadsOptions,
    seed: int,
    warnings: Sequence[str],
) -> Result:
    """The result.

    Args:
        shown: By condition.
        seen: What the run's own questions said; None: nothing.
        options: The analysis's options.
        seed: Of resampling.
        warnings: What was said on the way.
    """
    findings = [_of_role(role, each.copying) for each in shown for role in each.roles]
    findings += _compared(shown, options, seed)
    if seen is not None:
        findings += [_of_role(seen.role, None), _of_sinks(seen)]
    roles = [role for each in shown for role in each.roles]
    roles += [] if seen is None else [seen.role]
    by_condition = [(each.condition, each.roles, each.results, each.copying) for each in shown]
    image = None if seen is None else (seen.role, seen.results)
    return Result(
        analysis="heads",
        title="What heads read: earlier tokens, and the image",
        findings=findings,
        tables=tables(by_condition, image),
        figures=[_figure(role) for role in roles],
        options=options.model_dump(mode="json"),
        notes=list(_notes(shown, seen, options)),
        warnings=warnings,
        overview=[_glance(shown)],
    )


def _of_role(one: Measured, copied: Floats | None) -> Finding:
    """Who has a role; or that no head has it, and which comes nearest."""
    best = one.best_first
    said, single = _ARE[one.role]
    opening = "In the run's questions" if one.role == LOOKS else _HOW[one.condition]
    count = len(one.heads)
    nearest = best[0] if best else int(np.argmax(one.above))
    values: dict[str, Cell] = {
        "role": one.role,
        "condition": one.condition,
        "heads": len(best),
        "block": one.heads[nearest][0],
        "head": one.heads[nearest][1],
        "score": float(one.effect.value[nearest]),
        "control": float(one.effect.control[nearest]),
        "p": float(one.effect.p[nearest]),
    }
    if best:
        listed = ", ".join(_scored(one, i, copied) for i in best[:_NAMED])
        more = f" and {len(best) - _NAMED} more" if len(best) > _NAMED else ""
        are = f"1 of {count} heads is {single}" if len(best) == 1 else ""
        are = are or f"{len(best)} of {count} heads are {said}"
        text = f"{opening}, {are}: {listed}{more}."
        return Finding(text, Verdict.DIFFERS, ALL, values)
    text = f"{opening}, none of {count} heads is {single}; nearest is {_scored(one, nearest)}."
    return Finding(text, _unsure(one), ALL, values)


def _unsure(one: Measured) -> Verdict:
    """No head has the role: because the scores exclude it, or because too little is known."""
    few = too_few(one.role, one.groups, len(one.heads))
    return Verdict.INCONCLUSIVE if few or one.may.any() else Verdict.NO_DIFFERENCE


def _scored(one: Measured, head: int, copied: Floats | None = None) -> str:
    """A head with its score: `llm.block.1 head 0 (0.98, control 0.03, copies 0.91)`."""
    parts = [f"{one.effect.value[head]:.2f}", f"control {one.effect.control[head]:.2f}"]
    if one.role == INDUCTION and copied is not None and np.isfinite(copied[head]):
        parts.append(f"copies {copied[head]:.2f}")
    return f"{_name(one.heads[head])} ({', '.join(parts)})"


def _compared(shown: Sequence[Shown], options: HeadsOptions, seed: int) -> list[Finding]:
    """Whether heads that have a role in one condition score as much in the other."""
    if len(shown) < 2:
        return []
    pairs = list(zip(shown[0].roles, shown[1].roles, strict=True))
    having = [(a, b, a.has | b.has) for a, b in pairs if (a.has | b.has).any()]
    if not having:
        return []
    changes = np.stack(
        [(b.effect.per_item - a.effect.per_item)[who].mean(0) for a, b, who in having]
    )
    sequences = [str(number) for number in range(changes.shape[1])]
    found = effects(
        changes,
        np.ones(changes.shape[1]),
        sequences,
        controls=[None] * len(changes),
        seed=seed,
        draws=options.draws,
    )
    findings = []
    for row, (a, b, who) in enumerate(having):
        before, after = float(a.effect.value[who].mean()), float(b.effect.value[who].mean())
        said = _ARE[a.role][0 if who.sum() > 1 else 1].removeprefix("an ").removeprefix("a ")
        counted = f"{int(who.sum())} " if who.sum() > 1 else ""
        text = (
            f"{_HOW[b.condition]}, the {counted}{said} {'score' if counted else 'scores'} "
            f"{after:.2f}, and {before:.2f} without{_only(a, b)}."
        )
        values: dict[str, Cell] = {
            "role": a.role,
            "change": float(found.value[row]),
            "change_low": float(found.low[row]),
            "change_high": float(found.high[row]),
            "p": float(found.p[row]),
        }
        sure = found.p[row] <= ALPHA
        verdict = Verdict.DIFFERS if sure else Verdict.NO_DIFFERENCE
        findings.append(Finding(text, verdict, ALL, values))
    return findings


def _only(a: Measured, b: Measured) -> str:
    """Which heads have a role in one of two conditions only."""
    parts = []
    for who, words in ((a.has & ~b.has, "only without"), (b.has & ~a.has, "only with it")):
        names = [_name(a.heads[int(i)]) for i in np.flatnonzero(who)]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        verb = "have" if len(names) > 1 else "has"
        if names:
            parts.append(f"{', '.join(names[:_NAMED])}{more} {verb} the role {words}")
    return f"; {'; '.join(parts)}" if parts else ""


def _of_sinks(seen: Seen) -> Finding:
    """How much of the attention to the image goes to sinks."""
    image, rest = by_head(seen.results, "image").mean(), by_head(seen.results, "rest").mean()
    sinks = by_head(seen.results, "sinks").mean()
    dimensions = _dimensions(seen)
    if not dimensions:
        text = (
            f"No sinks are found, so the whole {image:.0%} of the last row's attention that goes "
            "to the image (mean over heads) counts."
        )
    else:
        text = (
            f"Of the last row's attention (mean over heads), {image:.0%} goes to the image, "
            f"{rest:.0%} to image rows that are no sinks, and {sinks:.0%} to sinks of any kind, "
            f"known by the dimensions {', '.join(map(str, dimensions))}."
        )
    values: dict[str, Cell] = {
        "image": float(image),
        "image_without_sinks": float(rest),
        "sinks": float(sinks),
    }
    return Finding(text, Verdict.INFO, ALL, values)


def _dimensions(seen: Seen) -> list[int]:
    """The dimensions that are huge in the first row of samples, the most frequent ones."""
    counts = Counter(dimension for one in seen.results for dimension in one["dimensions"])
    return sorted(dimension for dimension, _ in counts.most_common(_NAMED))


def _figure(one: Measured) -> Figure:
    values = {
        (block, f"head {number}"): float(score)
        for (block, number), score in zip(one.heads, one.effect.value, strict=True)
    }
    name = slug(f"heads {one.role} {'' if one.role == LOOKS else one.condition}")
    how = "in the run's questions" if one.role == LOOKS else _HOW[one.condition].lower()
    return heat_map(name, f"{_READS[one.role]}, {how}", values, label="share of attention")


def _glance(shown: Sequence[Shown]) -> Glance:
    """How many heads have which role, in the first condition and beside it in the other."""
    text = _counted(shown[0])
    return Glance(
        ALL,
        "heads",
        text or _NO_ROLE,
        Verdict.DIFFERS if text else Verdict.NO_DIFFERENCE,
        beside=f"with an image: {_counted(shown[1]) or _NO_ROLE}" if len(shown) > 1 else "",
    )


def _counted(one: Shown) -> str:
    """How many heads have each role: `1 previous-token, 3 induction`."""
    counts = {role.role: int(role.has.sum()) for role in one.roles}
    return ", ".join(f"{count} {role}" for role, count in counts.items() if count)


def _notes(shown: Sequence[Shown], seen: Seen | None, options: HeadsOptions) -> Iterator[str]:
    """How the numbers were made."""
    sequences = len(shown[0].results["repeated"])
    yield (
        f"{sequences} sequences of {shown[0].length} random ordinary tokens, {options.copies} "
        "times one after the other, behind the prompt. Scores are shares of attention: "
        "previous-token from each token to the one before; duplicate-token from a later copy to "
        "all earlier places of the same token; induction (prefix matching, Olsson et al. 2022, "
        "arXiv 2209.11895) to all places behind these."
    )
    yield (
        "Controls: for duplicate-token and induction the places where these would be, while the "
        "later copies have the tokens in another order, or other tokens (the higher one counts); "
        "for previous-token the token before the previous one."
    )
    yield (
        f"A head has a role if its score is at least {options.threshold:g} above the control and "
        "significantly so: sign flips of sequences (of groups of samples, for the image), "
        "corrected for all heads by Holm (1979)."
    )
    copied = np.concatenate([each.copying for each in shown])
    if np.isnan(copied).all():
        yield "Copying scores are not known for this model."
    else:
        yield (
            "Copying: of what a head raises directly among the logits of the sequence's tokens "
            "(final norm frozen), the share on the tokens that it attends to; "
            f"{1 / shown[0].length:.2g} by chance."
        )
    if seen is not None:
        widest = float(np.mean([one["rows"] for one in seen.results]))
        hidden = float(np.mean([one["sink_rows"] for one in seen.results]))
        yield (
            "Attention to the image is the share of the last row's attention on image rows that "
            "are no sinks; its control is the mean over all heads. A row is a sink of a block if "
            "a dimension that is huge in the first row (at least "
            f"{options.sink:g} times the root mean square) is so there, too; that takes more than "
            f"{options.sink**2:g} dimensions. On average {hidden:.1f} of {widest:.0f} image rows "
            "are sinks in some block."
        )
    yield (
        "Random tokens are unlike any text that the model knows: a role says what a head can do "
        "there, not what it does in a sentence."
    )


def _name(head: Head) -> str:
    return f"{head[0]} head {head[1]}"
