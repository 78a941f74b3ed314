"""Reading by pieces of the vocabulary, against all logits at once in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmlens.abc import Readout
from vlmlens.errors import ReadoutError
from vlmlens.testing._rounding import EPS, ROUNDING, close
from vlmlens_plugins.analysis.logit_lens import streaming_softmax
from vlmlens_plugins.analysis.logit_lens.readings import Reader, Readings, settling
from vlmlens_plugins.analysis.logit_lens.vocabulary import Vocabulary

WIDTH, LAYERS, ROWS = 16, 3, 11
WORDS = [np.array([3, 40]), np.array([7])]


def norm(hidden: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.rms_norm(hidden, (WIDTH,))


class Model:
    """A final norm and an unembedding of random numbers.

    Args:
        size: Of the vocabulary.
        parts: Whether it can be computed in parts.
        spread: Standard deviation of the logits.
    """

    def __init__(self, size: int, parts: bool = True, spread: float = 3.0, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        weight = rng.normal(size=(size, WIDTH)) * spread / WIDTH**0.5
        self.weight = torch.from_numpy(weight.astype(np.float32))
        self.hidden = [rng.normal(size=(ROWS, WIDTH)).astype(np.float32) for _ in range(LAYERS)]
        self.labels = rng.integers(0, size, ROWS)
        self.labels[0] = -1
        some: Callable[[Any, Any], Any] | None = None
        if parts:
            some = lambda h, tokens: h @ self.weight[tokens].T  # noqa: E731
        self.readout = Readout(norm, lambda h: h @ self.weight.T, "llm.block.2", some)

    def reader(self, **options: Any) -> Reader:
        return Reader(Vocabulary(self.readout, self.hidden[0][0]), **options)

    def read(self, same: int | None = LAYERS - 1, **options: Any) -> Readings:
        reader = self.reader(**options)
        return reader.read(self.hidden, self.hidden[-1], self.labels, same=same)

    def logits(self, layer: int, normed: bool = True) -> np.ndarray[Any, Any]:
        x = torch.from_numpy(self.hidden[layer])
        product = (norm(x) if normed else x).double() @ self.weight.double().T
        return product.numpy()


def softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def assert_plain(model: Model, found: Readings, k: int, normed: bool = True) -> None:
    """Every number equals what all logits at once give."""
    rows = np.arange(ROWS)
    final = softmax(model.logits(-1))
    answers = final.argmax(-1)
    assert found.answers.tolist() == answers.tolist()
    for i in range(LAYERS):
        p = softmax(model.logits(i, normed))
        off = rounding(model, i, normed)
        near = {"rtol": off, "atol": EPS}
        order = np.argsort(-p, kind="stable")[:, :k]
        assert all(len(set(tokens)) == k for tokens in found.top[i].tolist())
        np.testing.assert_allclose(p[rows[:, None], found.top[i]], p[rows[:, None], order], **near)
        np.testing.assert_allclose(found.top_probability[i], p[rows[:, None], order], **near)
        entropy = -(p * np.log(p)).sum(-1)
        np.testing.assert_allclose(found.entropy[i], entropy, rtol=off, atol=off)
        kl = (final * (np.log(final) - np.log(p))).sum(-1)
        np.testing.assert_allclose(found.divergence[i], kl, rtol=off, atol=2 * off)
        np.testing.assert_allclose(found.answer_probability[i], p[rows, answers], **near)
        assert_rank(found.answer_rank[i], p, p[rows, answers], off)
        own = p[rows, model.labels.clip(0)]
        np.testing.assert_allclose(found.label_probability[i][1:], own[1:], **near)
        assert_rank(found.label_rank[i][1:], p[1:], own[1:], off)
        for w in range(found.word_probability.shape[-1]):
            tokens = WORDS[w]
            np.testing.assert_allclose(
                found.word_probability[i, :, w], p[:, tokens].sum(-1), **near
            )
            others = np.delete(p, tokens, 1)
            assert_rank(found.word_rank[i, :, w], others, p[:, tokens].max(-1), off)
    assert np.isnan(found.label_probability[:, 0]).all()
    assert (found.label_rank[:, 0] == 0).all()


def rounding(model: Model, layer: int, normed: bool) -> float:
    """How far a probability may be off, as a part of itself: as far as its logit is."""
    logits = (model.logits(layer, normed), model.logits(-1))
    return float(ROUNDING * max(np.abs(each).max() for each in logits))


def assert_rank(found: Any, p: np.ndarray[Any, Any], own: np.ndarray[Any, Any], off: float) -> None:
    """As many are likelier as the rank says; those that rounding cannot tell apart may be either.

    Args:
        found: `[rows]`.
        p: `[rows, tokens]`.
        own: `[rows]`, the probability that is ranked.
        off: How far probabilities may be off, as a part of themselves.
    """
    surely = 1 + (p > own[:, None] * (1 + off)).sum(-1)
    perhaps = 1 + (p > own[:, None] * (1 - off)).sum(-1)
    perhaps -= (p == own[:, None]).any(-1)
    assert ((surely <= found) & (found <= perhaps)).all()


@pytest.mark.parametrize("parts", [True, False])
@pytest.mark.parametrize("megabytes", [128, 0.02, 1e-3])
def test_pieces_give_what_all_logits_at_once_give(parts: bool, megabytes: float) -> None:
    model = Model(300, parts)
    assert_plain(model, model.read(k=6, words=WORDS, megabytes=megabytes), 6)
    assert_plain(model, model.read(None, k=6, words=WORDS, megabytes=megabytes), 6)


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(45, 400),
    k=st.integers(1, 45),
    megabytes=st.sampled_from([0.003, 0.01, 0.1, 1.0]),
    parts=st.booleans(),
    normed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_for_any_size_and_memory(
    size: int, k: int, megabytes: float, parts: bool, normed: bool, seed: int
) -> None:
    model = Model(size, parts, seed=seed)
    found = model.read(k=k, megabytes=megabytes, norm=normed, words=WORDS)
    assert_plain(model, found, k, normed)


def test_far_apart_logits_stay_finite() -> None:
    model = Model(200, spread=400.0)
    found = model.read(k=3, megabytes=0.003)
    for each in fields(found):
        values = getattr(found, each.name)
        assert np.isfinite(values[..., 1:] if "label" in each.name else values).all(), each.name
    close(found.top_probability.max(), 1)
    assert found.divergence[0].max() > 100


def test_the_final_layer_has_no_divergence_from_itself() -> None:
    model = Model(500)
    assert model.read(None).divergence[-1].max() < 2 * rounding(model, -1, normed=True)
    assert model.read(None).divergence[0].min() > 0.1


def test_one_token_more_than_there_are_is_no_error() -> None:
    assert Model(45).read(k=60).top.shape == (LAYERS, ROWS, 45)


@pytest.mark.parametrize("mistake", ["first piece only", "no rescaling", "own token counted"])
def test_deliberate_mistakes_are_caught(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = streaming_softmax.Running

    class First(real):  # type: ignore[misc, valid-type]
        def _add_top(self, wide: Any, runs: Any, start: int) -> None:
            if start == 0:
                super()._add_top(wide, runs, start)

    class Unscaled(real):  # type: ignore[misc, valid-type]
        def _rebase(self, highest: Any) -> None:
            self._highest = highest

    class Counted(real):  # type: ignore[misc, valid-type]
        def __init__(self, above: Any, k: int) -> None:
            super().__init__(above, k)
            self._above = above - 1e-3

    wrong = {"first piece only": First, "no rescaling": Unscaled, "own token counted": Counted}
    name = "vlmlens_plugins.analysis.logit_lens.readings.Running"
    monkeypatch.setattr(name, wrong[mistake])
    model = Model(300)
    with pytest.raises(AssertionError):
        assert_plain(model, model.read(k=6, megabytes=0.02), 6)


def test_an_unembedding_whose_parts_are_wrong_is_refused() -> None:
    model = Model(300)
    wrong = replace(model.readout, some=lambda h, tokens: 2 * (h @ model.weight[tokens].T))
    with pytest.raises(ReadoutError, match="part of the unembedding"):
        Vocabulary(wrong, model.hidden[0][0])


def test_memory_is_bounded_by_the_chunk() -> None:
    """The largest tensor that the readout is asked for shrinks with the memory allowed."""
    model = Model(5000)
    largest = [0]

    def most(megabytes: float) -> int:
        def some(h: torch.Tensor, tokens: Any) -> torch.Tensor:
            made = h @ model.weight[tokens].T
            largest[0] = max(largest[0], made.numel() * 4)
            return made

        reader = Reader(
            Vocabulary(replace(model.readout, some=some), model.hidden[0][0]), megabytes=megabytes
        )
        largest[0] = 0
        reader.read(model.hidden, model.hidden[-1], same=2)
        return largest[0]

    whole = LAYERS * ROWS * 5000 * 4
    assert most(0.25) <= 0.25 * 2**20 / 2 < whole
    assert most(0.05) <= 0.05 * 2**20 / 2


def test_settling_equals_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    top, answers = rng.integers(0, 2, (5, 200)), rng.integers(0, 2, 200)
    for i, found in enumerate(settling(top, answers)):
        stays = [all(top[j, i] == answers[i] for j in range(layer, 5)) for layer in range(5)]
        assert found == (stays.index(True) if any(stays) else 5)
