"""One SAE while it is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from vlmlens_plugins.sae.batches import Statistics
from vlmlens_plugins.sae.training.batchtopk import BatchTopKSparsity
from vlmlens_plugins.sae.training.dead import auxiliary, revived
from vlmlens_plugins.sae.training.entries import Entries, encoded
from vlmlens_plugins.sae.training.gated import GatedSparsity
from vlmlens_plugins.sae.training.jumprelu import JumpReluSparsity
from vlmlens_plugins.sae.training.kinds import Loss, Parameters, Piece, Setting, Sparsity
from vlmlens_plugins.sae.training.matryoshka import MatryoshkaSparsity
from vlmlens_plugins.sae.training.recipe import Recipe
from vlmlens_plugins.sae.training.scaling import scalings
from vlmlens_plugins.sae.training.standard import StandardSparsity
from vlmlens_plugins.sae.training.topk import TopKSparsity

KINDS: dict[str, type[Sparsity]] = {
    "batchtopk": BatchTopKSparsity, "topk": TopKSparsity, "matryoshka": MatryoshkaSparsity,
    "jumprelu": JumpReluSparsity, "standard": StandardSparsity, "gated": GatedSparsity,
}  # fmt: skip

_AT_ONCE = {"cpu": 2**22, "cuda": 2**28}
_ENTRIES = {"cpu": 2**21, "cuda": 2**25}
_AUXILIARY = 8
_LONG, _SHORT = 10_000_000, 250
_WARM = 1000


@dataclass(frozen=True, slots=True)
class Schedule:
    """How training goes on with time.

    The learning rate rises over the first twentieth, 1000 steps at most, and falls to 0 over the
    last fifth, linearly. A feature is dead if it did not fire for a tenth of the rows, 250 batches
    at least, 10 million rows at most.

    Args:
        steps: How many there are.
        batch: Rows per step.
    """

    steps: int
    batch: int

    def pace(self, step: int) -> float:
        """The learning rate of a step, counted from 0, as a part of the highest."""
        warm = min(_WARM, self.steps // 20)
        rising = (step + 1) / (warm + 1)
        falling = (self.steps - step) / max(1, self.steps - self.last)
        return min(1.0, rising, falling)

    @property
    def last(self) -> int:
        """The step with which the last fifth begins."""
        return self.steps - max(1, self.steps // 5)

    @property
    def patience(self) -> int:
        """After how many rows without firing a feature is dead."""
        return max(_SHORT * self.batch, min(_LONG, self.steps * self.batch // 10))


class Learner:
    """An SAE, its optimiser and what it knows of its features.

    Args:
        recipe: What is trained.
        found: Of the rows; of a transcoder also of the targets.
        schedule: How long.
        device: Where.
        dtype: Of parameters; float64 is for tests.
    """

    def __init__(
        self, recipe: Recipe, found: tuple[Statistics, ...], schedule: Schedule,
        device: torch.device, dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        self.recipe, self.schedule, self.device = recipe, schedule, device
        self.subtract = len(found) == 1
        self.input, self.output = scalings(found, recipe)
        width, unit, spread = len(found[0].mean), self.input.unit, self.output.square
        setting = Setting(width, unit, spread, schedule.steps)
        self.sparsity = KINDS[recipe.kind](recipe, setting)
        self.random = torch.Generator().manual_seed(recipe.seed)
        start = _start(recipe, (len(found[0].mean), len(found[-1].mean)), self)
        self.p: Parameters = {
            name: part.to(device, dtype).requires_grad_() for name, part in start.items()
        }
        groups: dict[float, list[torch.Tensor]] = {}
        for name, part in self.p.items():
            groups.setdefault(self.sparsity.faster(name), []).append(part)
        self.optimiser = torch.optim.Adam(
            [{"params": parts, "faster": by} for by, parts in groups.items()],
            lr=recipe.rate, fused=True,
        )  # fmt: skip
        self.steps = 0
        self.silent = torch.zeros(recipe.features, dtype=torch.int64, device=device)
        self.fired = torch.zeros(recipe.features, dtype=torch.int64, device=device)

    def step(self, rows: torch.Tensor, target: torch.Tensor) -> float:
        """Learn from one batch.

        Args:
            rows: float `[batch, inputs]`, scaled.
            target: float `[batch, outputs]`, scaled; of an autoencoder the rows.

        Returns:
            The mean over rows of the squared error, before the step.
        """
        given = rows - self.p["b_dec"].detach() if self.subtract else rows
        entries = self.choose(given)
        loss, code, error = self.backward(given, target, entries)
        self._auxiliary(given, error)
        self._update()
        self._count(entries.fired(code), len(rows), entries)
        self._revive(given, error)
        self.steps += 1
        return loss

    @torch.no_grad()
    def choose(self, given: torch.Tensor) -> Entries:
        """Where features may fire; the encoder's output is never kept for the whole batch."""
        if self.steps == 0 and not self.sparsity.numbers.get("begun"):
            self.sparsity.begin(next(self._before(given))[0], self.p)
            self.sparsity.numbers["begun"] = 1.0
        while True:
            parts = [self.sparsity.choose(before, self.p) for before in self._before(given)]
            found = self.sparsity.settle(Entries.joined(parts), self.p)
            if found is not None:
                return found

    def backward(
        self, given: torch.Tensor, target: torch.Tensor, entries: Entries
    ) -> tuple[float, torch.Tensor, torch.Tensor]:
        """Put gradients of the loss into the parameters.

        Returns:
            The mean squared error, the code at the entries, and the error of the first rows.
        """
        some = max(1, len(given) // _AUXILIARY)
        total, codes, errors = torch.zeros((), device=given.device), [], []
        for own, part in entries.pieces(_ENTRIES[self.device.type]):
            loss = self._loss(given[own], target[own], part, len(given))
            loss.total.backward()
            total = total + loss.squared
            codes.append(loss.code)
            if own.start < some:
                errors.append(loss.error[: some - own.start].clone())
        return float(total), torch.cat(codes), torch.cat(errors)

    def _loss(self, given: torch.Tensor, target: torch.Tensor, entries: Entries, size: int) -> Loss:
        bias = self.p["b_enc"] if self.sparsity.bias else None
        centre = self.p["b_dec"] if self.subtract else None
        before = encoded(self.p["encoder"], bias, centre, given, entries)
        return self.sparsity.loss(Piece(entries, before, target, size), self.p)

    def _before(self, given: torch.Tensor) -> Iterator[torch.Tensor]:
        """The encoder's output, some rows at a time; each is overwritten by the next."""
        step = max(1, _AT_ONCE[self.device.type] // self.recipe.features)
        weight = self.p["encoder"].detach()
        small = self.recipe.dtype == "bfloat16"
        weight = weight.bfloat16() if small else weight
        room = given.new_empty(min(step, len(given)), self.recipe.features)
        for start in range(0, len(given), step):
            part = given[start : start + step]
            out = room[: len(part)]
            if small:
                out.copy_(part.bfloat16() @ weight.T)
            else:
                torch.mm(part, weight.T, out=out)
            yield out.add_(self.p["b_enc"].detach()) if self.sparsity.bias else out

    def _auxiliary(self, given: torch.Tensor, error: torch.Tensor) -> None:
        """AuxK on the first eighth of the rows."""
        if self.sparsity.auxiliary:
            dead = (self.silent >= self.schedule.patience).nonzero()[:, 0]
            if len(dead):
                auxiliary(self.p, dead, given[: len(error)], error, self.sparsity.bias)

    @torch.no_grad()
    def _update(self) -> None:
        """A step of Adam; decoder rows stay on the unit sphere."""
        decoder = self.p["decoder"]
        if decoder.grad is not None:
            along = torch.linalg.vecdot(decoder.grad, decoder)
            decoder.grad.addcmul_(decoder, along[:, None], value=-1)
        for group in self.optimiser.param_groups:
            group["lr"] = group["faster"] * self.recipe.rate * self.schedule.pace(self.steps)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        decoder.div_(decoder.norm(dim=1, keepdim=True).clamp_min_(1e-30))
        self.sparsity.keep(self.p)

    def _count(self, counts: torch.Tensor, rows: int, entries: Entries) -> None:
        self.silent += rows
        self.silent[counts > 0] = 0
        if self.steps >= self.schedule.last:
            self.fired += counts
        mean = float(counts.sum()) / rows
        self.sparsity.after(entries, mean, self.schedule.pace(self.steps))

    @torch.no_grad()
    def _revive(self, given: torch.Tensor, error: torch.Tensor) -> None:
        """Start dead features anew where AuxK cannot help, until the last fifth."""
        if self.sparsity.auxiliary or self.steps >= self.schedule.last:
            return
        dead = (self.silent >= self.schedule.patience).nonzero()[:, 0]
        if not len(dead):
            return
        moments = [
            state[name]
            for part, state in self.optimiser.state.items()
            if len(part) == self.recipe.features and part is not self.p["b_dec"]
            for name in ("exp_avg", "exp_avg_sq")
        ]
        revived(self.p, dead, given[: len(error)], error, self.random, moments)
        self.sparsity.revive(self.p, dead)
        self.silent[dead] = 0

    def state(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """All that `restore` needs: JSON-ready data, and tensors."""
        tensors = {"silent": self.silent, "fired": self.fired, "random": self.random.get_state()}
        for name, part in self.p.items():
            tensors[f"p/{name}"] = part
            kept = self.optimiser.state.get(part, {})
            tensors |= {f"adam/{name}/{key}": value for key, value in kept.items()}
        return {"steps": self.steps, "numbers": self.sparsity.numbers}, tensors

    @torch.no_grad()
    def restore(self, data: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from a state."""
        self.steps, self.sparsity.numbers = data["steps"], dict(data["numbers"])
        self.random.set_state(tensors["random"])
        self.silent.copy_(tensors["silent"])
        self.fired.copy_(tensors["fired"])
        for name, part in self.p.items():
            part.copy_(tensors[f"p/{name}"])
            keys = [key for key in tensors if key.startswith(f"adam/{name}/")]
            self.optimiser.state[part] = {
                key.rpartition("/")[2]: tensors[key].to(self.device) for key in keys
            }


def _start(recipe: Recipe, widths: tuple[int, int], learner: Learner) -> dict[str, Any]:
    """Random decoder rows of unit norm; the encoder is its transpose, or random likewise."""
    shape = recipe.features, widths[1]
    decoder = torch.randn(shape, generator=learner.random, dtype=torch.float64)
    decoder /= decoder.norm(dim=1, keepdim=True)
    encoder = decoder.clone()
    if not learner.subtract:
        other = recipe.features, widths[0]
        encoder = torch.randn(other, generator=learner.random, dtype=torch.float64)
        encoder *= 1 / math.sqrt(widths[0])
    found = {"encoder": encoder, "decoder": decoder, "b_dec": torch.zeros(widths[1])}
    if learner.sparsity.bias:
        found["b_enc"] = torch.zeros(recipe.features)
    return found | learner.sparsity.own(recipe.features)
