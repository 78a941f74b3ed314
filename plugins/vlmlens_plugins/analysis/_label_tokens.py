"""Labels by their first token, where that token tells them from the task's other answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.samples import Sample
from vlmlens_plugins.analysis._tasks import rows_by_task

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LabelTokens:
    """The first token of each sample's label.

    Args:
        tokens: int64 `[n]`; -1 without a label, or where the token is `shared`.
        shared: bool `[n]`, whether another label or choice of the task begins with the same token,
            so that the token does not tell which of them is answered.
        longer: bool `[n]`, whether the label has more tokens, of which nothing is known.
    """

    tokens: Ints
    shared: Bools
    longer: Bools


def label_tokens(
    answer_ids: Callable[[str], Sequence[int]], samples: Sequence[Sample]
) -> LabelTokens:
    """First tokens of the labels, compared within each task.

    Args:
        answer_ids: How the model would write an answer, in tokens.
        samples: All samples.
    """
    tokens = np.full(len(samples), -1, np.int64)
    shared, longer = np.zeros((2, len(samples)), bool)
    for rows in rows_by_task(samples).values():
        labels, answers = [], set[str | None]()
        for i in rows:
            labels.append(samples[i].label)
            answers.update((labels[-1], *samples[i].choices))
        ids = {answer: list(answer_ids(answer)) for answer in answers if answer is not None}
        begun: dict[int, set[str]] = {}
        for answer, written in ids.items():
            if written:
                begun.setdefault(written[0], set()).add(answer.strip().casefold())
        for i, label in zip(rows, labels, strict=True):
            written = [] if label is None else ids[label]
            if written:
                shared[i] = len(begun[written[0]]) > 1
                longer[i] = len(written) > 1
                tokens[i] = -1 if shared[i] else written[0]
    return LabelTokens(tokens, shared, longer)
