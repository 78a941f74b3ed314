"""Features that fire no more: an auxiliary loss for them, or a new start."""

from __future__ import annotations

import torch

from vlmlens_plugins.sae.training.kinds import Parameters

WEIGHT = 1 / 32
_SMALLER = 0.2


def auxiliary(
    p: Parameters, dead: torch.Tensor, given: torch.Tensor, error: torch.Tensor, bias: bool
) -> None:
    """Add the gradients of AuxK in the form of Gao et al. 2024 (arXiv 2406.04093).

    The `width / 2` dead features with the largest outputs, those above 0, are to write what the
    others left out: 1/32 of the mean squared norm of the difference is added to the loss. Only dead
    features learn by it.

    Args:
        p: Parameters; gradients are added to theirs.
        dead: int64: numbers of the dead features.
        given: float `[rows, inputs]`, as the encoder gets them.
        error: float `[rows, outputs]`: reconstruction minus target.
        bias: Whether the encoder has a bias.
    """
    names = ("encoder", "decoder", *(["b_enc"] if bias else []))
    own = {name: p[name].detach()[dead].requires_grad_() for name in names}
    before = given @ own["encoder"].T + (own["b_enc"] if bias else 0.0)
    most = max(1, min(len(dead), error.shape[1] // 2))
    values, places = before.topk(most, dim=1, sorted=False)
    code = torch.zeros_like(before).scatter(1, places, torch.relu(values))
    loss = WEIGHT * (code @ own["decoder"] + error).square().sum() / len(given)
    found = torch.autograd.grad(loss, list(own.values()))
    for name, gradient in zip(own, found, strict=True):
        into = p[name].grad
        if into is not None:
            into.index_add_(0, dead, gradient)


def revived(
    p: Parameters, dead: torch.Tensor, given: torch.Tensor, error: torch.Tensor,
    random: torch.Generator, moments: list[torch.Tensor],
) -> None:  # fmt: skip
    """Start dead features anew, as in Bricken et al. 2023.

    Each gets a row, drawn with probability proportional to its squared error to the square. Its
    decoder row is the direction of what is missing there, its encoder row that too (of a
    transcoder: the direction of the row), with 0.2 times the mean norm of the living.

    Args:
        p: Parameters, changed in place.
        dead: int64: numbers of the dead features.
        given: float `[rows, inputs]`, as the encoder gets them.
        error: float `[rows, outputs]`: reconstruction minus target.
        random: What rows are drawn by.
        moments: Adam's, of all parameters that have a row per feature; set to 0 for these.
    """
    weight = error.square().sum(1).square().cpu().double()
    if not float(weight.sum()) > 0 or not bool(weight.isfinite().all()):
        return
    rows = torch.multinomial(weight, len(dead), replacement=True, generator=random).to(dead.device)
    missing = torch.nn.functional.normalize(-error[rows], dim=1)
    same = given.shape[1] == error.shape[1]
    direction = missing if same else torch.nn.functional.normalize(given[rows], dim=1)
    alive = torch.ones(len(p["encoder"]), dtype=torch.bool, device=dead.device)
    alive[dead] = False
    norms = p["encoder"].norm(dim=1)
    size = norms[alive].mean() if bool(alive.any()) else norms.mean()
    p["encoder"][dead] = direction * (_SMALLER * size)
    p["decoder"][dead] = missing
    for each in moments:
        each[dead] = 0.0
