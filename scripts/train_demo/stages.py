"""The two training stages: the vision tower on labels, then the whole model on questions."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from scripts.train_demo.data import PAIRS, Batch, SceneData, draw_batch, normalize
from scripts.train_demo.packing import Packed, Packer, packed_hidden
from vlmlens_plugins.demo.questions import TASKS

LOG = logging.getLogger("train_demo")
POOLED = {"color": 8, "shape": 3, "number": 4, "surface": 2}
DENSE = {"color": 9, "shape": 4, "role": 3}


@dataclass(frozen=True)
class Settings:
    """Hyperparameters of one stage."""

    steps: int
    batch: int
    rate: float
    vision_rate: float
    seed: int
    log_every: int = 100
    blank_share: float = 0.0
    auxiliary: float = 1.0
    presence: int = 3
    number_weight: float = 1.0


class Heads(nn.Module):
    """Linear read-outs that teach the vision tower; they are not shipped."""

    def __init__(self, width: int) -> None:
        """Make the heads for patch states of a width."""
        super().__init__()
        self.pooled = nn.Linear(width, sum(POOLED.values()) + len(PAIRS))
        self.dense = nn.Linear(width, sum(DENSE.values()) + 1)

    def forward(self, patches: Tensor, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The summed loss and the pooled accuracies; blank images do not count."""
        keep = ~batch.blank
        patches = patches[keep].float()
        pooled = self.pooled(patches.mean(1)).split([*POOLED.values(), len(PAIRS)], 1)
        dense = self.dense(patches).split([*DENSE.values(), 1], 2)
        loss = 4 * functional.binary_cross_entropy_with_logits(pooled[-1], batch.present[keep])
        scores = {}
        for column, name in enumerate(POOLED):
            truth = batch.labels[keep, column]
            loss = loss + functional.cross_entropy(pooled[column], truth)
            scores[name] = float((pooled[column].argmax(1) == truth).float().mean())
        for column in range(len(DENSE)):
            truth = batch.patches[keep, column]
            loss = loss + 2 * functional.cross_entropy(dense[column].flatten(0, 1), truth.flatten())
        centers = batch.patches[keep, 3].float()
        loss = loss + 4 * functional.binary_cross_entropy_with_logits(dense[-1][..., 0], centers)
        return loss, scores


def patch_states(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """Last vision-layer states of the patches, ``[batch, 64, width]``, as the projector gets."""
    states: Tensor = model.model.vision_tower(pixels).last_hidden_state
    return states[:, 1:]


def train_vision(
    model: LlavaForConditionalGeneration,
    heads: Heads,
    processor: LlavaProcessor,
    data: SceneData,
    settings: Settings,
) -> None:
    """Stage 1: teach the vision tower the planted attributes."""
    modules = [model.model.vision_tower, heads]
    run = _Run(settings, [{"params": _parameters(modules), "lr": settings.vision_rate}])
    for batch in run.batches(data):
        with run.autocast():
            patches = patch_states(model, normalize(batch.pixels, processor.image_processor))
        loss, scores = heads(patches, batch)
        run.step(loss, {"loss": loss.item(), **scores})


def train_answers(
    model: LlavaForConditionalGeneration,
    heads: Heads,
    processor: LlavaProcessor,
    data: SceneData,
    settings: Settings,
    *,
    every: int,
    evaluate: Callable[[int], None],
) -> None:
    """Stage 2: teach projector and language model to answer, the vision tower along with them."""
    packer = Packer(processor.tokenizer, settings.presence)
    rng = random.Random(settings.seed)
    vision = _parameters([model.model.vision_tower, heads])
    language = _parameters(
        [model.model.multi_modal_projector, model.model.language_model, model.lm_head]
    )
    groups = [
        {"params": language, "lr": settings.rate},
        {"params": vision, "lr": settings.vision_rate},
    ]
    run = _Run(settings, groups)
    for batch in run.batches(data):
        with run.autocast():
            pixels = normalize(batch.pixels, processor.image_processor)
            packed = packer.pack(batch.scenes, batch.blank, rng)
            patches = patch_states(model, pixels)
            hidden = packed_hidden(model, packer.head, patches, packed.ids)
            loss, scores = _answer_loss(model, hidden, packed, batch, settings.number_weight)
            loss = loss + 0.1 * _text_loss(model, packer, batch, rng)
        side, _ = heads(patches, batch)
        run.step(
            loss + settings.auxiliary * side, {"loss": loss.item(), "aux": side.item(), **scores}
        )
        if run.done % every == 0 or run.done == settings.steps:
            evaluate(run.done)


def _answer_loss(
    model: LlavaForConditionalGeneration,
    hidden: Tensor,
    packed: Packed,
    batch: Batch,
    number_weight: float,
) -> tuple[Tensor, dict[str, float]]:
    tasks = [task for task, _, _ in packed.asked[0]]
    hidden = hidden.flatten(0, 1)
    rows, at = torch.arange(len(hidden)), packed.answer_at.flatten()
    logits = model.lm_head(hidden[rows, at]).float()
    targets = packed.targets.flatten(0, 1)
    losses = functional.cross_entropy(logits, targets, reduction="none")
    weights = torch.tensor([number_weight if task == "number" else 1.0 for task in tasks])
    loss = (losses.view(-1, len(tasks)) * weights).mean()
    loss = loss + 0.2 * _end_loss(model, hidden[rows, at + 1])
    right = (logits.argmax(1) == targets.argmax(1)).view(packed.answer_at.shape)[~batch.blank]
    scores = {
        task: float(right[:, [n for n, t in enumerate(tasks) if t == task]].float().mean())
        for task in TASKS
    }
    return loss, scores


def _text_loss(
    model: LlavaForConditionalGeneration, packer: Packer, batch: Batch, rng: random.Random
) -> Tensor:
    ids, at, targets = packer.text_only(batch.scenes[:16], rng)
    hidden = model.model.language_model(input_ids=ids, use_cache=False).last_hidden_state
    rows = torch.arange(len(ids))
    loss = functional.cross_entropy(model.lm_head(hidden[rows, at]).float(), targets)
    return loss + 0.2 * _end_loss(model, hidden[rows, at + 1])


def _end_loss(model: LlavaForConditionalGeneration, hidden: Tensor) -> Tensor:
    end = torch.full((len(hidden),), int(model.generation_config.eos_token_id))
    return functional.cross_entropy(model.lm_head(hidden).float(), end)


def _parameters(modules: list[nn.Module]) -> list[nn.Parameter]:
    return [parameter for module in modules for parameter in module.parameters()]


class _Run:
    """Optimiser, schedule, batches and log of one stage."""

    def __init__(self, settings: Settings, groups: list[dict[str, object]]) -> None:
        self.settings = settings
        self.done = 0
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.02, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._factor)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.sums: dict[str, float] = {}
        self.started = time.perf_counter()

    def _factor(self, step: int) -> float:
        warm = 0.04 * self.settings.steps
        if step < warm:
            return (step + 1) / warm
        share = (step - warm) / max(1, self.settings.steps - warm)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16)

    def batches(self, data: SceneData) -> Iterator[Batch]:
        rng = np.random.default_rng(self.settings.seed)
        order: npt.NDArray[np.int64] = np.empty(0, np.int64)
        for _ in range(self.settings.steps):
            if len(order) < self.settings.batch:
                order = rng.permutation(len(data))
            rows, order = order[: self.settings.batch], order[self.settings.batch :]
            yield draw_batch(data, rows, rng, self.settings.blank_share)

    def step(self, loss: Tensor, scores: dict[str, float]) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.done += 1
        for name, value in scores.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        if self.done % self.settings.log_every == 0:
            self._report()

    def _report(self) -> None:
        means = {name: total / self.settings.log_every for name, total in self.sums.items()}
        numbers = " ".join(f"{name} {value:.3f}" for name, value in means.items())
        elapsed = time.perf_counter() - self.started
        LOG.info("step %5d  %4.0f s  %s", self.done, elapsed, numbers)
        self.sums.clear()
