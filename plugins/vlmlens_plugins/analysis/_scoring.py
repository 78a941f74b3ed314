"""How probable a model finds answers: by choice, or by the first token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from vlmlens.abc import ModelAdapter
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.tokens import TokenKind

Floats = npt.NDArray[np.float64]
_ROWS = 1024


def parting(ids: Sequence[Sequence[int]]) -> int | None:
    """How many tokens all answers begin with; None if they do not part before the shortest ends.

    >>> parting([[5, 6, 7], [5, 8]]), parting([[5], [5, 6]])
    (1, None)
    """
    for number, tokens in enumerate(zip(*ids, strict=False)):
        if len(set(tokens)) > 1:
            return number
    return None


class AnswerScorer:
    """Scores the answers of one model; remembers how it would write each choice.

    Args:
        vlm: A loaded model.
        mean: Whether a choice's log-probability is the mean over its tokens instead of the sum,
            so that long choices are not at a disadvantage.
    """

    def __init__(self, vlm: ModelAdapter, *, mean: bool = False) -> None:
        self.vlm = vlm
        self._mean = mean
        self._ids: dict[str, list[int]] = {}
        self._rows = 1
        """Of a sample in the last batch: says how many fit into the next one."""

    def answer_ids(self, answer: str) -> list[int]:
        """The answer's tokens."""
        if answer not in self._ids:
            self._ids[answer] = self.vlm.answer_ids(answer)
        return self._ids[answer]

    @property
    def by_choice(self) -> bool:
        """Whether the model compares choices and writes nothing."""
        return self.vlm.choice_scores(()) is not None

    def choices(self, samples: Sequence[Sample]) -> list[Floats]:
        """Per sample, float64 `[choices]`: log-probabilities of its choices, over tokens.

        A model that compares choices gives them itself. Else, samples whose choices are distinct
        single tokens share one pass over the last position; for the others every choice is
        appended to the prompt and its tokens are scored, summed or as their mean.
        """
        compared = self.vlm.choice_scores(samples)
        if compared is not None:
            return [np.asarray(logs, np.float64) for logs in compared]
        scores: dict[int, Floats] = {}
        short = [i for i, sample in enumerate(samples) if self._single(sample.choices)]
        if short:
            rows = self.first_token([samples[i] for i in short])
            for i, row in zip(short, rows, strict=True):
                scores[i] = row[[self.answer_ids(choice)[0] for choice in samples[i].choices]]
        long = [i for i in range(len(samples)) if i not in scores]
        pairs = [(samples[i], choice) for i in long for choice in samples[i].choices]
        values = iter(self._continuations(pairs, max(1, len(samples))))
        for i in long:
            scores[i] = np.array([next(values) for _ in samples[i].choices])
        return [scores[i] for i in range(len(samples))]

    def first_token(self, samples: Sequence[Sample]) -> Floats:
        """float64 `[samples, vocabulary]`: log-probabilities of the first answer token."""
        output = self.vlm.forward(self.vlm.encode(samples), logits="last").logits
        assert output is not None  # noqa: S101
        logs: Floats = output.double().log_softmax(-1).cpu().numpy()
        return logs

    def _single(self, choices: Sequence[str]) -> bool:
        ids = [self.answer_ids(choice) for choice in choices]
        return all(len(tokens) == 1 for tokens in ids) and len({t[0] for t in ids}) == len(ids)

    def _continuations(self, pairs: Sequence[tuple[Sample, str]], size: int) -> list[float]:
        values: list[float] = []
        while len(values) < len(pairs):
            most = min(size, max(1, _ROWS // self._rows))
            values += self._score(pairs[len(values) : len(values) + most])
        return values

    def _score(self, pairs: Sequence[tuple[Sample, str]]) -> list[float]:
        """Log-probabilities of continuations; of the first ones where all logits would not fit."""
        batch = self.vlm.encode([s for s, _ in pairs], answers=[answer for _, answer in pairs])
        axis = batch.layouts[Axis.LLM]
        self._rows = -(-axis.total // len(pairs))
        if axis.total > _ROWS and len(pairs) > 1:
            return self._score(pairs[: max(1, _ROWS // self._rows)])
        output = self.vlm.forward(batch, logits="all").logits
        assert output is not None  # noqa: S101
        flat = output.flatten(0, 1)
        scores = []
        for layout in axis.samples:
            where = layout.positions(TokenKind.ANSWER)
            assert layout.token_ids is not None  # noqa: S101
            before = torch.from_numpy(layout.rows[where - 1]).to(flat.device)
            tokens = torch.from_numpy(layout.token_ids[where]).to(flat.device)
            logs = flat[before].double().log_softmax(-1)
            found = logs.gather(1, tokens[:, None])
            scores.append(float(found.mean() if self._mean else found.sum()))
        return scores
