"""Check 14: training steps of an SAE, against the same mathematics as a plain dense loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from scripts.gpu_check.measuring import flags, seconds
from scripts.gpu_check.trial import Trial
from vlmlens_plugins.sae import Recipe, train
from vlmlens_plugins.sae.batches import Statistics, TensorFeed
from vlmlens_plugins.sae.training.learner import Learner, Schedule

_STEPS, _TIMED = 3, 10
_K = {"7b": 64, "small": 16, "tiny": 4}
_APART = 1e-3
_PACE = 2000


def check(trial: Trial) -> None:
    """Train from the same start on the same rows; compare losses, time and memory."""
    setting = trial.setting
    shape, device = setting.shape, torch.device(setting.device)
    rows = _rows(shape.width, shape.rows, device)
    k = _K[shape.name]
    recipe = Recipe(shape.features, "topk", k, centre=False, normalise=False)
    trial.note(width=shape.width, features=shape.features, k=k, rows=shape.rows)
    losses, spent, peaks = {}, {}, {}
    with flags(matmul=False, convolutions=False):
        for name, make in (("vlmlens", _own), ("dense", _dense)):
            wrong = setting.mistake == "weight" and name == "dense"
            step = make(recipe, rows, device, wrong)
            base = _reset(setting.device)
            losses[name] = [step() for _ in range(_STEPS)]
            spent[name] = seconds(setting.device, step, times=_TIMED)
            peaks[name] = _peak(setting.device) - base
            del step
    far = max(abs(a / b - 1) for a, b in zip(losses["vlmlens"], losses["dense"], strict=True))
    trial.note(losses=losses["vlmlens"], step_s=spent)
    trial.at_most("losses_apart", far, _APART)
    trial.note(of_dense_time=spent["vlmlens"] / spent["dense"])
    if setting.cuda:
        trial.note(of_dense_memory=peaks["vlmlens"] / max(peaks["dense"], 1))
    if setting.fast:
        trial.at_most("of_dense_time", spent["vlmlens"] / spent["dense"], 1.0)
        trial.at_most("of_dense_memory", peaks["vlmlens"] / peaks["dense"], 1.0)
    _whole(trial, rows, recipe)


def _whole(trial: Trial, rows: torch.Tensor, recipe: Recipe) -> None:
    """The training that users call runs on the device, and its loss falls."""
    feed = TensorFeed(rows.cpu(), batch=len(rows) // 2)
    (trained,) = train([recipe], feed, rows=8 * len(rows), device=trial.setting.device)
    first, last = trained.losses[0][1], trained.losses[-1][1]
    trial.note(first_loss=first, last_loss=last)
    trial.expect(last < first, "the loss of a training did not fall")


def _rows(width: int, count: int, device: torch.device) -> torch.Tensor:
    """Sums of some of 4 x width directions, with a root mean square norm of sqrt(width)."""
    random = torch.Generator(device).manual_seed(1)
    truth = torch.randn(4 * width, width, generator=random, device=device) / width**0.5
    active = torch.rand(count, 4 * width, generator=random, device=device)
    rows = (active * (active > 0.99)) @ truth
    rows -= rows.mean(0)
    made: torch.Tensor = rows.mul_((width / rows.square().sum(1).mean()).sqrt())
    return made


def _start(recipe: Recipe, width: int, device: torch.device) -> torch.Tensor:
    random = torch.Generator(device).manual_seed(0)
    start = torch.randn(recipe.features, width, generator=random, device=device)
    found: torch.Tensor = start / start.norm(dim=1, keepdim=True)
    return found


def _own(
    recipe: Recipe, rows: torch.Tensor, device: torch.device, wrong: bool
) -> Callable[[], float]:
    del wrong
    learner = Learner(recipe, (Statistics.of(rows.cpu()),), Schedule(_PACE, len(rows)), device)
    start = _start(recipe, rows.shape[1], device)
    with torch.no_grad():
        learner.p["encoder"].copy_(start)
        learner.p["decoder"].copy_(start)
    return lambda: learner.step(rows, rows)


def _dense(
    recipe: Recipe, rows: torch.Tensor, device: torch.device, wrong: bool
) -> Callable[[], float]:
    """Dense codes, autograd, fused Adam; decoder rows stay on the unit sphere."""
    start = _start(recipe, rows.shape[1], device)
    encoder, decoder = start.clone().requires_grad_(), start.clone().requires_grad_()
    if wrong:
        encoder.data.neg_()
    b_enc = torch.zeros(recipe.features, device=device, requires_grad=True)
    b_dec = torch.zeros(rows.shape[1], device=device, requires_grad=True)
    parts = [encoder, b_enc, decoder, b_dec]
    optimiser = torch.optim.Adam(parts, lr=recipe.rate, fused=True)
    schedule, done = Schedule(_PACE, len(rows)), [0]

    def step() -> float:
        before = (rows - b_dec) @ encoder.T + b_enc
        values, places = before.topk(int(recipe.k), dim=1, sorted=False)
        code = torch.zeros_like(before).scatter(1, places, torch.relu(values))
        loss = (code @ decoder + b_dec - rows).square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        with torch.no_grad():
            grad: Any = decoder.grad
            grad -= (grad * decoder).sum(1, keepdim=True) * decoder
            optimiser.param_groups[0]["lr"] = recipe.rate * schedule.pace(done[0])
            optimiser.step()
            decoder.div_(decoder.norm(dim=1, keepdim=True))
        done[0] += 1
        return float(loss.detach())

    return step


def _reset(device: str) -> int:
    """Begin to measure a peak; what is allocated now."""
    if device != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return int(torch.cuda.memory_allocated())


def _peak(device: str) -> int:
    return int(torch.cuda.max_memory_allocated()) if device == "cuda" else 0
