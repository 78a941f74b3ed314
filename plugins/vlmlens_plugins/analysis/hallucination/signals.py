"""The signals of a task's questions: one number each, or rows that a probe learns from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vlmlens.abc.model_work import JSON
from vlmlens_plugins.analysis.hallucination.asked import Case
from vlmlens_plugins.analysis.hallucination.options import ABSENT
from vlmlens_plugins.analysis.hallucination.scores import Floats

ANSWER, ENTROPY, BLIND, OBJECT = "answer-probability", "entropy", "blind-probability", "object-only"
SVAR, LOOKS = "svar", "attention-by-layer"
PROBE_IMAGE, PROBE_LAST = "probe-image", "probe-last"
MIDDLE = (5 / 32, 19 / 32)
"""Which blocks SVAR sums over, as shares of depth: 5 to 18 of the 32 of the paper's model."""

_OFTEN = 0.1
_TEXTS = ("answer", "object")
_NORMS = ("", "-normed")


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal.

    Args:
        name: Its name.
        inside: Whether it is read inside the model.
        raw: float64 `[n]`, higher where the sample should be bad; None: it has to be learned.
        columns: `[n, features]` each, to learn from.
    """

    name: str
    inside: bool
    raw: Floats | None = None
    columns: Sequence[Floats] = field(default=())


def signals_of(cases: Sequence[Case], target: str) -> list[Signal]:
    """All signals that every one of the cases has; the answer's probability is the first.

    Args:
        cases: The questions of a task.
        target: What has to be told.
    """
    sign = 1.0 if target == ABSENT else -1.0
    found = [
        Signal(ANSWER, inside=False, raw=sign * np.array([case.sure for case in cases])),
        Signal(ENTROPY, inside=False, raw=np.array([case.inside["entropy"] for case in cases])),
        Signal(BLIND, inside=False, raw=np.array([case.blind for case in cases])),
    ]
    words = words_of([case.object for case in cases])
    if words is not None:
        found.append(Signal(OBJECT, inside=False, columns=(words,)))
    for text in _TEXTS:
        for k, norm in enumerate(_NORMS):
            values = _confidences(cases, text, k)
            if values is not None:
                found.append(Signal(f"{text}-confidence{norm}", inside=True, raw=-values))
    looks = attention_of(cases)
    if looks is not None:
        summed = looks[:, middle_of(looks.shape[1])].sum(1)
        found.append(Signal(SVAR, inside=True, raw=-summed))
        found.append(Signal(LOOKS, inside=True, columns=(looks,)))
    for name, rows in ((PROBE_IMAGE, "image"), (PROBE_LAST, "last")):
        columns = _states(cases, rows)
        if columns:
            found.append(Signal(name, inside=True, columns=columns))
    return found


def answer_words(cases: Sequence[Case]) -> list[Floats]:
    """Which answer was given, as 0 and 1: one column for each that is frequent.

    Of two answers, one is enough.
    """
    given = [case.answer for case in cases]
    often = [each for each in dict.fromkeys(given) if given.count(each) >= _OFTEN * len(given)]
    kept = often[1:] if len(set(given)) == len(often) else often
    return [np.array([each == name for each in given], np.float64) for name in kept]


def words_of(texts: Sequence[str]) -> Floats | None:
    """float64 `[n, words]`: which words each text has, and which text it is; None if all are alike.

    Of "ball", "cube" and "red", the last one is in both texts.

    >>> words_of(["red cube", "red ball"]).tolist()
    [[0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0]]
    """
    lists = [set(re.findall(r"\w+|[^\w\s]", text.lower())) for text in texts]
    names = sorted(set().union(*lists))
    columns = [[name in own for own in lists] for name in names]
    columns += [[text == one for text in texts] for one in dict.fromkeys(texts)]
    rows = np.array(columns, np.float64).T
    rows = rows[:, rows.std(0) > 0]
    return rows if rows.shape[1] else None


def attention_of(cases: Sequence[Case]) -> Floats | None:
    """float64 `[n, layers]`: the visual attention ratio; None where it is not known."""
    return _array([case.inside["looks"] for case in cases])


def middle_of(layers: int) -> slice:
    """The middle layers: those whose place in depth is in `MIDDLE`; one at least.

    >>> middle_of(32), middle_of(6)
    (slice(5, 19, None), slice(1, 4, None))
    """
    first = min(round(MIDDLE[0] * layers), layers - 1)
    return slice(first, max(first + 1, round(MIDDLE[1] * layers)))


def _confidences(cases: Sequence[Case], text: str, norm: int) -> Floats | None:
    if text == "object" and not all(case.named for case in cases):
        return None
    told = [case.inside[text] for case in cases]
    return _array([None if one is None else one["confidence"][norm] for one in told])


def _states(cases: Sequence[Case], name: str) -> tuple[Floats, ...]:
    """By depth, `[n, width]`; none where a case has no such rows."""
    rows = [case.inside[name] for case in cases]
    if not all(rows):
        return ()
    return tuple(np.array([row[depth] for row in rows]) for depth in range(len(rows[0])))


def _array(values: Sequence[JSON]) -> Floats | None:
    return None if any(value is None for value in values) else np.array(values, np.float64)
