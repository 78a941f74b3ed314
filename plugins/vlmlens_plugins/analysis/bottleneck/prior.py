"""Whether the image moves an answer towards the label, and the blind answer outweighs it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vlmlens_plugins.analysis._statistics import generator, permutation_p
from vlmlens_plugins.analysis.bottleneck.asked import Case
from vlmlens_plugins.analysis.bottleneck.options import BLIND, IMAGE, BottleneckOptions
from vlmlens_plugins.analysis.probe.control_labels import shuffled
from vlmlens_plugins.analysis.probe.targets import numbered

Floats = npt.NDArray[np.float64]
_FEWEST = 6
"""Groups with which a p-value can be small."""


def outweighed(cases: Sequence[Case], options: BottleneckOptions, seed: int) -> list[bool | None]:
    """Per case: whether the blind answer outweighs what the image says; None: not known.

    It does where the answer is wrong and the blind one is the same, and the log-odds of the label
    against it are higher by `min_shift` than blind, and by `min_shift` than with other images,
    for which another label is right. The last guards against a blank that is strange by itself.
    And that images move answers towards their own labels has to be shown of the question as a
    whole. For open questions, and questions that are asked of one label only, nothing is known.

    Args:
        cases: Of one task.
        options: The least shift, and the level.
        seed: Of exchanged labels.
    """
    found: list[bool | None] = [None] * len(cases)
    questions: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for i, case in enumerate(cases):
        if case.scores:
            questions.setdefault((case.sample.prompt, case.sample.choices), []).append(i)
    for rows in questions.values():
        own = [cases[i] for i in rows]
        if not _follows(own, options, seed):
            continue
        for i, case in zip(rows, own, strict=True):
            found[i] = case.wrong and case.repeats_blind and _moved(case, own, options)
    return found


def _follows(cases: Sequence[Case], options: BottleneckOptions, seed: int) -> bool:
    """Whether images move the answers to this question towards their own labels.

    The mean log-probability of the label is held against that of labels which groups exchange.
    """
    choices = cases[0].sample.choices
    y = np.array([choices.index(str(case.sample.label)) for case in cases], np.int64)
    groups = numbered([case.sample.split_group for case in cases])
    if len(np.unique(y)) < 2 or len(np.unique(groups)) < _FEWEST:
        return False
    rng = generator(seed, "bottleneck-prior")
    labels = np.concatenate([y[None], shuffled(y, groups, options.draws, rng)])
    scores = np.stack([case.scores[IMAGE] for case in cases])
    means = scores[np.arange(len(cases)), labels].mean(1)
    return permutation_p(float(means[0]), means[1:]) <= options.alpha


def _moved(case: Case, cases: Sequence[Case], options: BottleneckOptions) -> bool:
    choices = case.sample.choices
    label, said = choices.index(str(case.sample.label)), choices.index(case.answers[IMAGE].text)
    others = _others(case, cases)
    if not len(others):
        return False

    def odds(logs: Floats) -> Floats:
        return np.asarray(logs[..., label] - logs[..., said])

    least = max(float(odds(case.scores[BLIND])), float(odds(others).mean()))
    return bool(odds(case.scores[IMAGE]) - least >= options.min_shift)


def _others(case: Case, cases: Sequence[Case]) -> Floats:
    """float64 `[others, choices]`: scores with images of other groups and other labels."""
    own = case.sample
    rows = [
        one.scores[IMAGE]
        for one in cases
        if one.sample.label != own.label and one.sample.split_group != own.split_group
    ]
    return np.stack(rows) if rows else np.zeros((0, len(own.choices)))
