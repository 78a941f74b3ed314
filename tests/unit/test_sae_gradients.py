"""Sparse products give what dense autograd gives, in float64, for every kind of SAE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from vlmlens_plugins.sae import Recipe, Statistics
from vlmlens_plugins.sae.training import learner as learning
from vlmlens_plugins.sae.training.dead import WEIGHT, auxiliary
from vlmlens_plugins.sae.training.entries import Entries, decoded
from vlmlens_plugins.sae.training.jumprelu import BANDWIDTH
from vlmlens_plugins.sae.training.learner import KINDS, Learner, Schedule

ROWS, WIDTH, FEATURES, K = 24, 6, 20, 3
LEVELS = (2, 5, 10, 20)
Tensors = dict[str, torch.Tensor]


def learner(kind: Any, *, widths: tuple[int, ...] = (WIDTH,), **options: Any) -> Learner:
    random = torch.Generator().manual_seed(3)
    found = tuple(Statistics.of(torch.randn(500, width, generator=random)) for width in widths)
    recipe = Recipe(FEATURES, kind, K, **options)
    made = Learner(recipe, found, Schedule(100, ROWS), torch.device("cpu"), torch.float64)
    with torch.no_grad():
        for name, part in made.p.items():
            part.add_(0.1 * torch.randn(part.shape, generator=random, dtype=torch.float64))
            if name == "threshold":
                part.abs_().add_(0.3)
    made.sparsity.numbers["begun"] = 1.0
    if "topk" in kind or kind == "matryoshka":
        made.sparsity.numbers["floor"] = 0.5
    return made


def rows(width: int = WIDTH, seed: int = 4) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(ROWS, width, generator=random, dtype=torch.float64)


def sparse(made: Learner, x: torch.Tensor, y: torch.Tensor) -> tuple[float, Tensors]:
    given = x - made.p["b_dec"].detach() if made.subtract else x
    loss = made.backward(given, y, made.choose(given))[0]
    zero = torch.zeros_like
    return loss, {n: zero(p) if p.grad is None else p.grad for n, p in made.p.items()}


def dense(made: Learner, x: torch.Tensor, y: torch.Tensor) -> tuple[float, Tensors]:
    """The loss as it is written in the papers, differentiated by torch."""
    p = {name: part.detach().clone().requires_grad_() for name, part in made.p.items()}
    shown = x - p["b_dec"] if made.subtract else x
    before = shown @ p["encoder"].T + p.get("b_enc", torch.zeros(1))
    error, penalty = DENSE[made.recipe.kind](before, p, y, made)
    squared = error.square().sum(-1).mean(-1)
    (squared.mean() + penalty).backward()
    return float(squared.detach().reshape(-1)[-1]), {
        n: torch.zeros_like(part) if part.grad is None else part.grad for n, part in p.items()
    }


def _topk(h: torch.Tensor, p: Tensors, y: torch.Tensor, made: Learner) -> Any:
    kept = torch.zeros_like(h).scatter(1, h.topk(K, 1).indices, 1.0)
    return torch.relu(h) * kept @ p["decoder"] + p["b_dec"] - y, 0.0


def _batch(h: torch.Tensor) -> torch.Tensor:
    z = torch.relu(h)
    least = z.flatten().topk(K * len(h)).values.min().detach()
    return z * (z >= least)


def _batchtopk(h: torch.Tensor, p: Tensors, y: torch.Tensor, made: Learner) -> Any:
    return _batch(h) @ p["decoder"] + p["b_dec"] - y, 0.0


def _matryoshka(h: torch.Tensor, p: Tensors, y: torch.Tensor, made: Learner) -> Any:
    z = _batch(h)
    parts = [z[:, :n] @ p["decoder"][:n] + p["b_dec"] - y for n in LEVELS]
    return torch.stack(parts), 0.0


def _standard(h: torch.Tensor, p: Tensors, y: torch.Tensor, made: Learner) -> Any:
    z = torch.relu(h)
    return z @ p["decoder"] + p["b_dec"] - y, 0.7 * z.sum(1).mean()


def _gated(h: torch.Tensor, p: Tensors, y: torch.Tensor, made: Learner) -> Any:
    open_ = torch.relu(h + p["b_gate"])
    z = (open_ > 0) * torch.relu(h * p["r_mag"].exp() + p["b_mag"])
    frozen = open_ @ p["decoder"].detach() + p["b_dec"].detach() - y
    penalty = 0.7 * open_.sum(1).mean() + frozen.square().sum(1).mean()
    return z @ p["decoder"] + p["b_dec"] - y, penalty


def _jumprelu(h: torch.Tensor, p: Tensors, y: torch.Tensor, made: Learner) -> Any:
    """Straight-through estimators written as surrogate terms with the right derivatives."""
    width, theta = BANDWIDTH * made.sparsity.setting.unit, p["threshold"]
    near = ((h - theta).abs() < width / 2).double().detach()
    above = (h > theta).double()
    slide = theta - theta.detach()
    z = h * above - (theta.detach() / width) * near * slide
    fired = (above - near * slide / width).sum(1).mean()
    weight = made.recipe.coefficient
    penalty = weight * fired if weight else made.sparsity.setting.spread * (fired / K - 1) ** 2
    return z @ p["decoder"] + p["b_dec"] - y, penalty


DENSE: dict[str, Callable[..., Any]] = {
    "topk": _topk, "batchtopk": _batchtopk, "matryoshka": _matryoshka, "standard": _standard,
    "gated": _gated, "jumprelu": _jumprelu,
}  # fmt: skip
CASES = {
    "topk": {}, "batchtopk": {}, "matryoshka": {"prefixes": LEVELS}, "jumprelu": {},
    "standard": {"coefficient": 0.7}, "gated": {"coefficient": 0.7},
}  # fmt: skip


def apart(found: tuple[float, Tensors], wanted: tuple[float, Tensors]) -> float:
    (loss, own), (other, theirs) = found, wanted
    assert own.keys() == theirs.keys()
    assert all(part.abs().max() > 0 for part in theirs.values()), "a gradient tests nothing"
    return max(abs(loss - other), *(float((own[n] - theirs[n]).abs().max()) for n in own))


def test_every_kind_is_compared() -> None:
    assert set(DENSE) == set(CASES) == set(KINDS)


@pytest.mark.parametrize("widths", [(WIDTH,), (WIDTH, 4)], ids=["autoencoder", "transcoder"])
@pytest.mark.parametrize("kind", CASES)
def test_gradients_are_those_of_dense_autograd(kind: str, widths: tuple[int, ...]) -> None:
    made = learner(kind, widths=widths, **CASES[kind])
    x = rows()
    y = x if len(widths) == 1 else rows(4, 5)
    if kind == "jumprelu":
        assert _near(made, x) > 0, "no threshold would learn"
    assert apart(sparse(made, x, y), dense(made, x, y)) < 1e-12


def _near(made: Learner, x: torch.Tensor) -> int:
    shown = x - made.p["b_dec"] if made.subtract else x
    h = shown @ made.p["encoder"].T + made.p["b_enc"]
    return int(((h - made.p["threshold"]).abs() < BANDWIDTH / 2).sum())


def test_jumprelu_with_a_given_weight() -> None:
    made = learner("jumprelu", coefficient=0.4)
    assert apart(sparse(made, rows(), rows()), dense(made, rows(), rows())) < 1e-12


@pytest.mark.parametrize("kind", CASES)
def test_a_batch_in_pieces_is_the_same_batch(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = learner(kind, **CASES[kind])
    whole = sparse(made, rows(), rows())
    for part in made.p.values():
        part.grad = None
    monkeypatch.setitem(learning._ENTRIES, "cpu", 9)
    monkeypatch.setitem(learning._AT_ONCE, "cpu", 100)
    made.sparsity.numbers["floor"] = 9.0
    assert apart(sparse(made, rows(), rows()), whole) < 1e-12


def test_a_wrong_sign_is_seen() -> None:
    made = learner("topk")
    wanted = dense(made, rows(), rows())
    loss, own = sparse(made, rows(), rows())
    own["decoder"] = -own["decoder"]
    assert apart((loss, own), wanted) > 1e-3


def test_dead_features_learn_what_is_left_and_no_other_does() -> None:
    made, dead = learner("topk"), torch.tensor([1, 4, 9, 15])
    shown, error = rows(), rows(seed=8)
    p = {name: part.detach().clone().requires_grad_() for name, part in made.p.items()}
    h = (shown @ p["encoder"].T + p["b_enc"])[:, dead]
    z = torch.zeros_like(h).scatter(1, h.topk(WIDTH // 2, 1).indices, 1.0) * torch.relu(h)
    (WEIGHT * (z @ p["decoder"][dead] + error).square().sum(1).mean()).backward()
    for part in made.p.values():
        part.grad = torch.zeros_like(part)
    auxiliary(made.p, dead, shown, error, bias=True)
    for name in ("encoder", "b_enc", "decoder"):
        found, wanted = made.p[name].grad, p[name].grad
        assert found is not None
        assert wanted is not None
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
        assert not found[[0, 2, 3]].any()
        assert found[dead].any()


def test_no_entry_writes_nothing() -> None:
    none = torch.empty(0, dtype=torch.int64)
    entries = Entries(torch.zeros(4, dtype=torch.int64), none, torch.empty(0), 5)
    code = torch.empty(0, requires_grad=True)
    weight = torch.randn(5, 2, requires_grad=True)
    made = decoded(code, weight, entries)
    made.sum().backward()
    assert made.shape == (3, 2)
    assert not made.any()
    assert weight.grad is not None
    assert not weight.grad.any()
