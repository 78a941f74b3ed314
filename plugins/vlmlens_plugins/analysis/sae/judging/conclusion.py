"""The verdict on an SAE: whether it is better than an untrained dictionary, and at what."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from vlmlens_plugins.analysis.sae.judging.judged import Compared, Judged, Kind, Role, Word
from vlmlens_plugins.analysis.sae.judging.resampling import Interval
from vlmlens_plugins.analysis.sae.judging.single import Singles

_ABSURD = 1000


class Overall(StrEnum):
    """What an SAE is beside an untrained dictionary of its size and L0."""

    BETTER = "better than untrained"
    RECONSTRUCTION = "better than untrained in reconstruction only"
    CONCEPTS = "better than untrained in single features only"
    NO_BETTER = "no better than untrained"
    UNKNOWN = "not comparable with an untrained one"


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The verdict on one SAE.

    Args:
        sae: Its name.
        overall: In short.
        variance: Whether it explains more than the untrained dictionary does.
        concepts: By concept, whether its best single features tell it better.
        projections: The same beside untrained directions all of which may fire.
        loss: By which rows were replaced, whether the answers lose less; empty if not measured.
        text: A few sentences with the numbers.
    """

    sae: str
    overall: Overall
    variance: Word
    concepts: Mapping[str, Word]
    projections: Mapping[str, Word]
    loss: Mapping[str, Word]
    text: str


def conclude(judged: Judged, sae: str) -> Conclusion:
    """The verdict on an SAE.

    It is better if it explains more variance than an untrained dictionary of its size and L0, and
    its best single features tell at least one concept better, both after correction. Without
    concepts that can be compared, explained variance decides; concepts do where an untrained
    dictionary has nothing to explain, as beside a transcoder.

    Args:
        judged: What was measured.
        sae: The name of the SAE.
    """
    limited = judged.against(sae, Kind.CONCEPT)
    free = judged.against(sae, Kind.CONCEPT, limited=False)
    variance, loss = judged.variance(sae), judged.against(sae, Kind.LOSS)
    parts = (_variance(judged, sae, variance), _concepts(judged, sae, limited, free), _loss(loss))
    return Conclusion(
        sae=sae,
        overall=_overall(variance.word, [each.word for each in limited.values()]),
        variance=variance.word,
        concepts={name: each.word for name, each in limited.items()},
        projections={name: each.word for name, each in free.items()},
        loss={rows: each.word for rows, each in loss.items()},
        text=" ".join(part for part in parts if part),
    )


def _overall(variance: Word, concepts: Sequence[Word]) -> Overall:
    known = [word for word in concepts if word is not Word.UNKNOWN]
    if variance is Word.UNKNOWN and not known:
        return Overall.UNKNOWN
    told = Word.BETTER in known or (not known and variance is Word.BETTER)
    if variance is Word.UNKNOWN:
        return Overall.BETTER if told else Overall.NO_BETTER
    if variance is Word.BETTER:
        return Overall.BETTER if told else Overall.RECONSTRUCTION
    return Overall.CONCEPTS if told else Overall.NO_BETTER


def _loss(found: Mapping[str, Compared]) -> str:
    """What is said of the loss of answers; nothing where it was not measured."""
    return " ".join(
        f"Where it stands for {rows} rows, the answers lose {_less(each)} the untrained dictionary."
        for rows, each in found.items()
    )


def _less(found: Compared) -> str:
    gap = found.difference
    ends = f"[{gap.low:+.2f}, {gap.high:+.2f}]"
    return {
        Word.BETTER: f"{gap.value:.2f} nats {ends} less than with",
        Word.WORSE: f"{-gap.value:.2f} nats [{-gap.high:+.2f}, {-gap.low:+.2f}] more than with",
        Word.NO_BETTER: f"no less (difference {gap.value:+.2f} nats {ends}) than with",
        Word.UNKNOWN: f"{gap.value:+.2f} nats less than with",
    }[found.word]


def _variance(judged: Judged, sae: str, found: Compared) -> str:
    basis, other = judged.bases[sae], judged.beside(sae).explained.value
    own = basis.explained.value
    start = f"With {basis.l0:.1f} features per row it explains {_percent(own)} of the variance"
    if math.isnan(own):
        return "What it explains is not known: all judged rows are equal, or there are none."
    if math.isnan(other):
        return f"{start} of what it predicts, which an untrained dictionary does not predict."
    rows, principal = (
        _percent(judged.beside(sae, role).explained.value)
        for role in (Role.EXAMPLES, Role.PRINCIPAL)
    )
    untrained = f"an untrained dictionary ({_percent(other)}; random rows as directions: {rows}, "
    untrained += f"PCA directions: {principal})."
    said = {
        Word.BETTER: f"{_points(found.difference)} more than",
        Word.WORSE: f"{_points(found.difference)} less than",
        Word.NO_BETTER: f"no more than (difference {_points(found.difference)})",
        Word.UNKNOWN: "with too few groups of samples to compare it with",
    }[found.word]
    return f"{start}, {said} {untrained}"


def _concepts(
    judged: Judged, sae: str, limited: Mapping[str, Compared], free: Mapping[str, Compared]
) -> str:
    singles = judged.bases[sae].singles
    names = {word: [name for name in singles if limited[name].word is word] for word in Word}
    parts = []
    if better := names[Word.BETTER]:
        parts.append(f"tell {_listed([_told(name, singles, limited) for name in better])} better")
    if same := names[Word.NO_BETTER]:
        parts.append(f"do no better for {_listed(same)}")
    if worse := names[Word.WORSE]:
        parts.append(f"do worse for {_listed(worse)}")
    equal = [name for name in names[Word.BETTER] if free[name].word is not Word.BETTER]
    told = f"Its single features {'; '.join(parts)}.{_caveat(equal)}" if parts else ""
    return f"{told} {_few(names[Word.UNKNOWN])}".strip()


def _few(names: Sequence[str]) -> str:
    if not names:
        return ""
    return f"Samples are too few to compare what single features tell of {_listed(names)}."


def _told(name: str, singles: Mapping[str, Singles], limited: Mapping[str, Compared]) -> str:
    gap = limited[name].difference
    between = f"{gap.value:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]"
    return f"{name} (AUC {singles[name].auc.value:.2f}, {between})"


def _caveat(names: Sequence[str]) -> str:
    if not names:
        return ""
    these = f"{_listed(names)} {'is' if len(names) == 1 else 'are'}"
    return f" But {these} told as well by single random projections, which are not sparse."


def _percent(value: float) -> str:
    return f"{value:.1%}" if value >= -1 else "less than nothing"


def _points(found: Interval) -> str:
    if found.low <= 0 <= found.high:
        return f"{100 * found.value:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    low, high = sorted(100 * abs(end) for end in (found.low, found.high))
    if low > _ABSURD:
        return f"more than {_ABSURD} points"
    return f"{100 * abs(found.value):.1f} points [{low:.1f}, {high:.1f}]"


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
