"""One way of training a TopK SAE, in a process of its own, a few steps whenever it is told.

Run by `benchmarks/sae.py`; the way of SAELens runs in the environment that has it, so this file
imports nothing of vlmlens at its top. A line "n" on stdin runs n steps and answers with JSON:
seconds, processor seconds, the losses of these steps (squared error per row) and the MiB by which
memory has grown at most since the rows were made.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

BATCHES, TRUE, ACTIVE = 4, 2048, 24
STEPS, WARM = 2000, 100


class Told:
    """Answers between steps."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self._base = _status("VmRSS")
        self._left, self._losses = 0, list[float]()
        self._wall = self._cpu = 0.0
        print("ready", flush=True)
        self._wait()

    def step(self, loss: float | None) -> None:
        """After each step."""
        self._losses.append(math.nan if loss is None else loss)
        self._left -= 1
        if self._left == 0:
            wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
            grown = (_status("VmHWM") - self._base) / 1024
            answer = {"wall": wall, "cpu": cpu, "losses": self._losses, "grown": grown}
            print(json.dumps(answer), flush=True)
            self._wait()

    def _wait(self) -> None:
        line = sys.stdin.readline()
        if not line.strip():
            sys.exit(0)
        self._left, self._losses = int(line), []
        self._wall, self._cpu = time.perf_counter(), time.process_time()


def main() -> None:
    """Arguments: the way, width, features, k, rows per batch, threads."""
    way, *numbers = sys.argv[1:]
    width, features, k, batch, threads = map(int, numbers)
    torch.set_num_threads(threads)
    rows = made_rows(width, batch)
    start = torch.randn(features, width, generator=torch.Generator().manual_seed(0))
    start /= start.norm(dim=1, keepdim=True)
    {"ours": ours, "dense": dense, "saelens": saelens}[way](rows, start, k, batch)


def made_rows(width: int, batch: int) -> torch.Tensor:
    """Sums of some of 2048 directions, mean 0, root mean square norm sqrt(width)."""
    random = torch.Generator().manual_seed(1)
    truth = torch.randn(TRUE, width, generator=random) / width**0.5
    parts = []
    for _ in range(BATCHES):
        there = torch.rand(batch, TRUE, generator=random) < ACTIVE / TRUE
        parts.append((there * torch.rand(batch, TRUE, generator=random)) @ truth)
    rows = torch.cat(parts)
    rows -= rows.mean(0)
    return rows.mul_((width / rows.square().sum(1).mean()).sqrt())


def batches(rows: torch.Tensor, batch: int) -> Iterator[torch.Tensor]:
    """The same batches again and again."""
    while True:
        yield from rows.split(batch)


def rate(features: int) -> float:
    """The highest learning rate."""
    return 2e-4 / math.sqrt(features / 2**14)


def ours(rows: torch.Tensor, start: torch.Tensor, k: int, batch: int) -> None:
    """The loop of vlmlens."""
    from vlmlens_plugins.sae.batches import Statistics
    from vlmlens_plugins.sae.training.learner import Learner, Schedule
    from vlmlens_plugins.sae.training.recipe import Recipe

    recipe = Recipe(len(start), "topk", k, centre=False, normalise=False)
    found = (Statistics.of(rows),)
    learner = Learner(recipe, found, Schedule(STEPS, batch), torch.device("cpu"))
    with torch.no_grad():
        learner.p["encoder"].copy_(start)
        learner.p["decoder"].copy_(start)
    told = Told()
    for part in batches(rows, batch):
        given = learner.input(part)
        told.step(learner.step(given, given))


def dense(rows: torch.Tensor, start: torch.Tensor, k: int, batch: int) -> None:
    """The same mathematics as anybody writes them down: dense codes, autograd, fused Adam."""
    encoder, decoder = start.clone().requires_grad_(), start.clone().requires_grad_()
    b_enc = torch.zeros(len(start), requires_grad=True)
    b_dec = torch.zeros(rows.shape[1], requires_grad=True)
    highest = rate(len(start))
    optimiser = torch.optim.Adam([encoder, b_enc, decoder, b_dec], lr=highest, fused=True)
    told = Told()
    for number, part in enumerate(batches(rows, batch)):
        before = (part - b_dec) @ encoder.T + b_enc
        values, places = before.topk(k, dim=1, sorted=False)
        code = torch.zeros_like(before).scatter(1, places, torch.relu(values))
        loss = (code @ decoder + b_dec - part).square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        with torch.no_grad():
            assert decoder.grad is not None
            along = (decoder.grad * decoder).sum(1, keepdim=True)
            decoder.grad -= along * decoder
            optimiser.param_groups[0]["lr"] = highest * min(1.0, (number + 1) / (WARM + 1))
            optimiser.step()
            decoder /= decoder.norm(dim=1, keepdim=True)
        told.step(float(loss))


def saelens(rows: torch.Tensor, start: torch.Tensor, k: int, batch: int) -> None:
    """SAELens' trainer, batches from memory, nothing logged."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    size = TopKTrainingSAEConfig(d_in=rows.shape[1], d_sae=len(start), k=k)
    sae: Any = TopKTrainingSAE(size)
    with torch.no_grad():
        sae.W_enc.copy_(start.T)
        sae.W_dec.copy_(start)
    config = SAETrainerConfig(
        total_training_samples=STEPS * batch, train_batch_size_samples=batch,
        lr=rate(len(start)), lr_end=rate(len(start)) / 10, lr_warm_up_steps=WARM,
    )  # fmt: skip
    trainer: Any = SAETrainer(config, sae, batches(rows, batch))
    told, inner = Told(), trainer.step

    def step(given: torch.Tensor) -> Any:
        found = inner(given)
        told.step(float(found.losses["mse_loss"]))
        return found

    trainer.step = step
    trainer.fit()


def _status(field: str) -> int:
    """KiB, as Linux tells them."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise KeyError(field)


if __name__ == "__main__":
    main()
