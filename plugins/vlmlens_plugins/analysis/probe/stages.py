"""The best layer of each stage of the model, beside the model's own answers.

S. Fu et al., "Hidden in plain sight: VLMs overlook their visual representations" (arXiv
2506.08008): visual representations stay intact inside the VLM, and its answers do not use them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from vlmlens.results import Verdict
from vlmlens_plugins.analysis._statistics import generator, interval
from vlmlens_plugins.analysis.probe.control_labels import shuffled_within
from vlmlens_plugins.analysis.probe.many_draws import null_p, shown
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.resampling import Losses
from vlmlens_plugins.analysis.probe.scores import Score, Scored, least_gap, overall
from vlmlens_plugins.analysis.probe.trial import Trial

_PARTS = {"vision": 0, "qformer": 1, "projector": 1, "llm": 2, "text": 2}


class Stage(StrEnum):
    """A part of the model on the way from picture to answer."""

    ENCODER = "vision encoder"
    PROJECTOR = "projector"
    LANGUAGE = "language model"


class Outcome(StrEnum):
    """How the model's answers stand to what can be read from its vision side."""

    ANSWERED = "read and answered"
    PARTLY = "read better than answered"
    NOT_ANSWERED = "read but not answered"
    NEITHER = "neither read nor answered"
    ONLY_ANSWERED = "answered, not read from the vision side"
    UNCLEAR = "inconclusive"


@dataclass(frozen=True, slots=True)
class StageBest:
    """The best column of a stage.

    Args:
        stage: Which.
        verdict: Over the stage's columns.
        score: Of the best column.
        over_answers: How far it is above the model's own answers, with a paired 95 % interval;
            None where there are no answers.
    """

    stage: Stage
    verdict: Verdict
    score: Score
    over_answers: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The model's own answers on a target's tested samples.

    Args:
        accuracy: With a 95 % interval.
        gain: Above the majority, with a 95 % interval.
        p: One-sided permutation p-value of the accuracy.
        outcome: How they stand to what the vision side holds.
    """

    accuracy: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    p: float
    outcome: Outcome


def stage_of(column: str) -> Stage | None:
    """The stage of a column, by the first part of its site's name.

    >>> stage_of("projector/image.mean").value
    'projector'
    """
    part = _PARTS.get(column.partition("/")[0].split(".")[0])
    return None if part is None else list(Stage)[part]


def stages(scored: Scored, answers: Losses | None) -> list[StageBest]:
    """The stages that have columns, in the order in which a picture passes them."""
    found = []
    for stage in Stage:
        own = [i for i, s in enumerate(scored.scores) if stage_of(s.column) is stage]
        if own:
            verdict, score = overall([scored.scores[i] for i in own])
            index = next(i for i in own if scored.scores[i] is score)
            over = None if answers is None else _over(scored, index, answers)
            found.append(StageBest(stage, verdict, score, over))
    return found


def answered(
    trial: Trial,
    scored: Scored,
    found: Sequence[StageBest],
    said: npt.NDArray[np.int64],
    losses: Losses,
    options: ProbeOptions,
    seed: int,
) -> Answered:
    """How good the model's own answers are, and whether they say what it sees.

    Args:
        trial: What was asked of the probes.
        scored: Their scores.
        found: The stages.
        said: int64 `[n]`, the answered class of each sample.
        losses: Of the answers.
        options: Level, least gap, draws.
        seed: The run's seed.
    """
    drawn = scored.resampling.scores(losses)
    base = scored.resampling.majority
    gain = losses.score - base.score
    gain_low, gain_high = interval(drawn - scored.resampling.scores(base))
    gain_low -= scored.resampling.doubt(losses)
    p = _answer_p(trial, said, options, seed)
    low, high = scored.resampling.interval(losses)
    least = least_gap(base.score, options)
    return Answered(
        accuracy=losses.score,
        low=low,
        high=high,
        gain=gain,
        gain_low=float(gain_low),
        gain_high=float(gain_high),
        p=p,
        outcome=_outcome(
            found,
            said=p <= options.alpha and gain >= least and bool(gain_low > 0),
            silent=max(gain, 0.0) + float(gain_high) - gain < least,
            least=least,
        ),
    )


def answer_losses(trial: Trial, right: Mapping[str, bool]) -> Losses | None:
    """The answers' losses on the tested samples; None where one was not answered."""
    ids = [name for name, on in zip(trial.target.ids, trial.split.tested, strict=True) if on]
    if trial.target.numbers or trial.target.learned < len(trial.target.ids):
        return None
    if any(name not in right for name in ids):
        return None
    return Losses(np.array([not right[name] for name in ids], np.float64), np.ones(len(ids)))


def _outcome(found: Sequence[StageBest], *, said: bool, silent: bool, least: float) -> Outcome:
    """`said`: answers are significantly above the majority; `silent`: they are shown not to be."""
    vision = [item for item in found if item.stage is not Stage.LANGUAGE]
    if not vision or not (said or silent):
        return Outcome.UNCLEAR
    best = max(vision, key=lambda item: (item.verdict is Verdict.ENCODED, item.score.accuracy))
    if best.verdict is not Verdict.ENCODED:
        blind = all(item.verdict is Verdict.NOT_ENCODED for item in vision)
        if said:
            return Outcome.ONLY_ANSWERED if blind else Outcome.UNCLEAR
        return Outcome.NEITHER if blind else Outcome.UNCLEAR
    if silent:
        return Outcome.NOT_ANSWERED
    assert best.over_answers is not None  # noqa: S101
    more, low, _ = best.over_answers
    return Outcome.PARTLY if low > 0 and more >= least else Outcome.ANSWERED


def _over(scored: Scored, index: int, answers: Losses) -> tuple[float, float, float]:
    resampling, read = scored.resampling, scored.losses[index]
    low, high = interval(resampling.scores(read) - resampling.scores(answers))
    low, high = low - resampling.doubt(read), high + resampling.doubt(answers)
    return scored.scores[index].accuracy - answers.score, float(low), float(high)


def _answer_p(trial: Trial, said: npt.NDArray[np.int64], options: ProbeOptions, seed: int) -> float:
    """Answers stay, labels are shuffled by whole groups over all tested samples."""
    on = trial.split.tested
    rng = generator(seed, "probe-answers", trial.target.name)
    y, groups, answers = trial.target.y[on], trial.target.groups[on], said[on]
    block = np.zeros(len(y), np.int64)
    draws = shown(options.draws, len(y))
    shuffles = shuffled_within(y, groups, block, draws, rng)
    null = np.concatenate([(labels == answers).mean(1) for labels in shuffles])
    return null_p(float((y == answers).mean()), null, options.draws)
