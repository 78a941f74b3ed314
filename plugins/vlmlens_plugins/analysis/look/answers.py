"""What the model answers, and what else it might have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from scipy.special import expit, log_softmax

from vlmlens.abc import AnalysisContext, ModelAdapter, ModelWork, Options, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens.passes.finite import check_finite
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._altered import Question, ask
from vlmlens_plugins.analysis._sweeps import Item
from vlmlens_plugins.analysis._sweeps.sweeping import answer_tokens
from vlmlens_plugins.analysis.logit_lens.words import token_text

_KEPT = 6
_SURE, _NEVER = 1e-12, -1e3
"""ln p cannot be told from 0, or from minus infinity, beyond these."""


class WriteOptions(Options):
    """Options of `Written`."""

    max_new_tokens: int = Field(16, ge=1, description="The most tokens of an answer.")


class Written(ModelWork):
    """What the model writes, and the most probable first tokens.

    Result: "text"; "tokens", with special ones; "first", a list of [token, text, log-probability],
    the written one first, then the others by probability.
    """

    Options: ClassVar[type[Options]] = WriteOptions
    options: WriteOptions
    version: ClassVar[int | None] = 1

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        """See `ModelWork.run`."""
        batch = vlm.encode([unit.sample for unit in units])
        made = vlm.generate(batch, max_new_tokens=self.options.max_new_tokens)
        logits = vlm.forward(batch, logits="last").logits
        assert logits is not None  # noqa: S101
        told: list[dict[str, JSON]] = []
        for one, logs in zip(made, logits.double().log_softmax(-1), strict=True):
            check_finite([float(logs.max())])
            best = logs.topk(min(_KEPT, len(logs))).indices.tolist()
            first = one.token_ids[0] if one.token_ids else best[0]
            order = [first, *(token for token in best if token != first)]
            told.append(
                {
                    "text": one.text,
                    "tokens": list(one.token_ids),
                    "first": [[t, token_text(vlm, t), float(logs[t])] for t in order],
                }
            )
        return told


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, and its alternatives.

    Args:
        text: The answer, for people.
        scored: The answers whose probability is followed, the given one first; empty: it cannot be
            scored as text.
        options: The choices, or beginnings of answers, with their natural log-probability; the
            given one first, then the others by probability.
        chosen: Whether it was chosen from choices: then probabilities are among these.
        begins: What the answer begins with, if it is longer than that; else "".
        prefix: Tokens with which all compared answers begin.
        tokens: The next token of each; empty: they cannot be told apart.
    """

    text: str
    scored: tuple[str, ...]
    options: tuple[tuple[str, float], ...]
    chosen: bool
    begins: str = ""
    prefix: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()

    @property
    def probability(self) -> float:
        """Of the answer among its choices, or of its first token."""
        return float(np.exp(self.options[0][1]))

    @property
    def rivals(self) -> list[tuple[str, float]]:
        """The alternatives with their probabilities, best first."""
        return [(text, float(np.exp(logp))) for text, logp in self.options[1:]]

    def score(self, logs: Sequence[float]) -> float:
        """The log-odds of the answer, of the log-probabilities of `scored`.

        They are against all else that the model might say; of choices, against the others.
        """
        return log_odds(float(log_softmax(np.array(logs))[0] if self.chosen else logs[0]))

    def token_score(self, measured: dict[str, Any]) -> float:
        """Likewise of the logits ("logit") and log-probabilities ("logp") of `tokens`."""
        among = log_softmax(np.array(measured["logit"]))
        return log_odds(float(among[0] if self.chosen else measured["logp"][0]))


def log_odds(logp: float) -> float:
    """ln(p / (1 - p)) of ln p, in nats.

    It does not saturate where the model is sure, as a log-probability does: 0.9999 is as far from
    0.99 as 0.01 from 0.0001.

    >>> round(float(log_odds(np.log(0.9))), 3)
    2.197
    """
    logp = min(max(logp, _NEVER), -_SURE)
    return logp - float(np.log(-np.expm1(logp)))


def chance(odds: float) -> float:
    """The probability of log-odds."""
    return float(expit(odds))


def answers(
    context: AnalysisContext, samples: Sequence[Sample], max_new_tokens: int
) -> list[Answer]:
    """What the model answers.

    Args:
        context: The context of the analysis.
        samples: The questions; one with choices is answered by the most probable of them.
        max_new_tokens: The most tokens of an answer.
    """
    closed = [sample for sample in samples if sample.choices]
    logs = ask(context, [Question(sample, tuple(sample.choices)) for sample in closed])
    chosen = iter([_chosen(context, *pair) for pair in zip(closed, logs, strict=True)])
    free = [WorkUnit(sample) for sample in samples if not sample.choices]
    work = Written(WriteOptions(max_new_tokens=max_new_tokens))
    texts = context.run_units(work, free)
    written = iter([_written(context, one, max_new_tokens) for one in texts])
    return [next(chosen) if sample.choices else next(written) for sample in samples]


def _chosen(context: AnalysisContext, sample: Sample, logs: Any) -> Answer:
    check_finite(logs)
    order = np.argsort(-logs, kind="stable")
    ranked = tuple(sample.choices[i] for i in order)
    options = tuple(zip(ranked, log_softmax(logs)[order].tolist(), strict=True))
    prefix, tokens = _tokens(context.model(), sample, ranked)
    return Answer(ranked[0], ranked, options, True, "", prefix, tokens)


def _written(context: AnalysisContext, one: dict[str, Any], most: int) -> Answer:
    text = " ".join(one["text"].split())
    options = tuple((said, logp) for _, said, logp in one["first"])
    tokens = tuple(token for token, _, _ in one["first"])
    ids = context.model().answer_ids(text) if text else []
    ended = len(one["tokens"]) < most or len(ids) < len(one["tokens"])
    return Answer(
        text if ended or not text else f"{text} …",
        (text,) if ids else (),
        options,
        False,
        options[0][0] if len(ids) > 1 else "",
        (),
        tokens,
    )


def _tokens(
    vlm: ModelAdapter, sample: Sample, ranked: Sequence[str]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the choices begin to differ: of all, or else of the best and the next best."""
    if vlm.choice_scores(()) is not None:
        return (), ()
    for several in (ranked, ranked[:2]):
        kept, prefixes, tokens, _ = answer_tokens(vlm, [Item(sample, tuple(several))])
        if kept and len(several) > 1 and tokens[0].count(tokens[0][0]) == 1:
            return tuple(prefixes[0]), tuple(tokens[0])
    return (), ()
