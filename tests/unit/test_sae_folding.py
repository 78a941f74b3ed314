"""The SAE that is given back does on rows what the trained one does on scaled rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vlmlens_plugins.sae import JumpRelu, Recipe, Statistics, TensorFeed, train
from vlmlens_plugins.sae.training import learner as learning
from vlmlens_plugins.sae.training.dead import revived
from vlmlens_plugins.sae.training.folding import folded
from vlmlens_plugins.sae.training.learner import KINDS, Learner, Schedule

ROWS, WIDTH, FEATURES, K = 64, 6, 20, 3
Tensors = dict[str, torch.Tensor]


def made(kind: Any, widths: tuple[int, ...], **options: Any) -> tuple[Learner, list[torch.Tensor]]:
    random = torch.Generator().manual_seed(5)
    rows = [
        torch.randn(ROWS, width, generator=random, dtype=torch.float64) * (3 + n) + 2 - n
        for n, width in enumerate(widths)
    ]
    recipe = Recipe(FEATURES, kind, K, **options)
    found = tuple(Statistics.of(part) for part in rows)
    learner = Learner(recipe, found, Schedule(100, ROWS), torch.device("cpu"), torch.float64)
    with torch.no_grad():
        for name, part in learner.p.items():
            part.add_(0.2 * torch.randn(part.shape, generator=random, dtype=torch.float64))
            if name == "threshold":
                part.abs_().add_(0.5)
            if name == "decoder":
                part.div_(part.norm(dim=1, keepdim=True))
    if kind in ("batchtopk", "matryoshka"):
        learner.sparsity.numbers["threshold"] = 1.25
    return learner, rows


def code(learner: Learner, rows: torch.Tensor) -> torch.Tensor:
    """As the papers write it, on scaled rows."""
    p = {name: part.detach() for name, part in learner.p.items()}
    shown = (rows - learner.input.mean) * learner.input.scale
    shown = shown - p["b_dec"] if learner.subtract else shown
    h = shown @ p["encoder"].T + p.get("b_enc", torch.zeros(1))
    kind = learner.recipe.kind
    if kind == "topk":
        return torch.relu(h) * torch.zeros_like(h).scatter(1, h.topk(K, 1).indices, 1.0)
    if kind == "gated":
        return torch.relu(h * p["r_mag"].exp() + p["b_mag"]) * (h + p["b_gate"] > 0)
    threshold = {"jumprelu": p.get("threshold"), "standard": torch.zeros(1)}
    return torch.relu(h) * (h > threshold.get(kind, torch.tensor(1.25)))


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("widths", [(WIDTH,), (WIDTH, 4)], ids=["autoencoder", "transcoder"])
@pytest.mark.parametrize("kind", KINDS)
def test_folded_is_unfolded(
    kind: str, widths: tuple[int, ...], normalise: bool, centre: bool
) -> None:
    learner, rows = made(kind, widths, centre=centre, normalise=normalise)
    sae = folded(learner, {"kind": kind})
    own = code(learner, rows[0])
    assert 0 < float((own > 0).double().mean()) < 0.9
    wanted = own @ learner.p["decoder"].detach() + learner.p["b_dec"].detach()
    wanted = wanted / learner.output.scale + learner.output.mean
    given = rows[0].float()
    torch.testing.assert_close(sae.reconstruct(given).double(), wanted, rtol=0, atol=1e-4)
    codes = sae.encode(given).double() * learner.output.scale
    torch.testing.assert_close(codes, own, rtol=0, atol=1e-4)
    torch.testing.assert_close(sae.norms, torch.ones(FEATURES))


def test_a_threshold_is_what_batches_let_pass() -> None:
    rows = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0))
    one = train([Recipe(64, "batchtopk", 2.5)], TensorFeed(rows, batch=200), rows=20_000)[0]
    assert isinstance(one.sae.activation, JumpRelu)
    assert one.l0 == pytest.approx(2.5)
    fired = (one.sae.encode(rows) > 0).sum(1).double().mean()
    assert float(fired) == pytest.approx(2.5, rel=0.1)


@pytest.mark.parametrize("kind", ["standard", "gated"])
def test_dead_features_start_anew_from_what_is_missing(kind: str) -> None:
    learner, _ = made(kind, (WIDTH,))
    learner.schedule = Schedule(100_000, ROWS)
    direction = torch.zeros(WIDTH, dtype=torch.float64)
    direction[2] = 1.0
    rows = torch.randn(ROWS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    learner.step(rows, rows)
    learner.silent[7] = 10**9
    error = -5 * direction.expand(8, -1)
    learner._revive(rows, error)
    torch.testing.assert_close(learner.p["decoder"][7].detach(), direction)
    size = 0.2 * learner.p["encoder"].detach().norm(dim=1)[torch.arange(FEATURES) != 7].mean()
    torch.testing.assert_close(learner.p["encoder"][7].detach(), direction * size)
    assert int(learner.silent[7]) == 0
    for name in ("encoder", "decoder"):
        moments = learner.optimiser.state[learner.p[name]]
        assert not moments["exp_avg"][7].any()
        assert moments["exp_avg"][6].any()
    bias = learner.p["b_enc" if kind == "standard" else "b_gate"]
    assert float(bias.detach()[7]) == 0.0


def test_nothing_is_missing_and_nothing_is_started() -> None:
    learner, rows = made("standard", (WIDTH,))
    before = learner.p["decoder"].detach().clone()
    none = torch.zeros(8, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        revived(learner.p, torch.tensor([3]), rows[0], none, learner.random, [])
    torch.testing.assert_close(learner.p["decoder"].detach(), before)


def test_dead_features_of_topk_come_to_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features with outputs too small for the k largest fire only when AuxK helps them."""

    def alive() -> int:
        random = torch.Generator().manual_seed(0)
        rows = torch.randn(ROWS, WIDTH, generator=random)
        found = (Statistics.of(rows),)
        recipe = Recipe(FEATURES, "topk", 1, lr=0.02)
        learner = Learner(recipe, found, Schedule(60, ROWS), torch.device("cpu"))
        with torch.no_grad():
            learner.p["encoder"][:5] *= 0.02
        learner.silent[:5] = 10**9
        given = learner.input(rows)
        for _ in range(60):
            learner.step(given, given)
        return int((learner.silent[:5] < 10**9).sum())

    helped = alive()
    monkeypatch.setattr(learning, "auxiliary", lambda *given: None)
    assert helped >= 2 > alive() == 0


def test_a_feed_shows_every_row_before_one_again() -> None:
    feed = TensorFeed(torch.arange(10.0)[:, None], batch=4)
    batches = iter(feed)
    seen = torch.cat([next(batches)[0] for _ in range(5)])[:, 0]
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()
    assert feed.statistics()[0].spread == pytest.approx(8.25)
