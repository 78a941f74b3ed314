"""Training a part: AdamW on the loss of the answers, until the held-out loss stops falling."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vlmlens.abc import ModelAdapter
from vlmlens.errors import CompositionError, DataError, MissingAnnotation, SpecError
from vlmlens.passes.gradients import check_differentiable
from vlmlens.passes.memory import free_memory, is_out_of_memory, let_go
from vlmlens.passes.modes import differentiable
from vlmlens.samples import Sample
from vlmlens_plugins.tuning.checkpoint import Checkpoint
from vlmlens_plugins.tuning.curve import Epoch, Fitted
from vlmlens_plugins.tuning.micro_batches import MicroBatches, Numbers, composed
from vlmlens_plugins.tuning.part import Part
from vlmlens_plugins.tuning.recipe import Recipe

_SECONDS = 180.0


def fit(
    vlm: ModelAdapter,
    part: Part,
    train: Sequence[Sample],
    held: Sequence[Sample],
    recipe: Recipe,
    *,
    checkpoint: Path | None = None,
    seconds: float = _SECONDS,
    progress: Callable[[int, int], None] = lambda done, total: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Fitted:
    """Train a part; it then has the values of the best epoch, and the model is as before.

    The same arguments give the same values on a CPU, bit for bit, also if the training was killed
    and went on from its checkpoint.

    Args:
        vlm: The model.
        part: What is trained; it must not be attached.
        train: The training samples; the label of each is the answer that is learned.
        held: The samples whose loss says when to stop.
        recipe: How.
        checkpoint: A file to go on from, and to keep the state in; None: none is kept. It is
            written after each epoch, and at the end, so that a training that is done is not done
            again.
        seconds: It is written after this time, too.
        progress: Called with (training samples seen, those of all epochs).
        warn: Called with sentences for the user.

    Raises:
        SpecError: A number of the recipe is out of range.
        DataError: There are no samples, the training diverged, or the checkpoint is damaged or of
            another training.
        MissingAnnotation: A sample has no label.
        CompositionError: The model is quantized, or its loss does not depend on the part.
        OutOfMemory: One sample does not fit in memory.
    """
    check_recipe(recipe)
    check_differentiable(vlm)
    for samples, name in ((train, "train"), (held, "held")):
        _check_samples(samples, name)
    base = _digest(vlm.describe())
    with part.attached(vlm):
        training = _Training(vlm, part, train, held, recipe, warn)
        training.plan["model"] = base
        if checkpoint is not None and checkpoint.exists():
            training.restore(Checkpoint.read(checkpoint, training.plan))
        written = time.monotonic()
        for full in training.run():
            progress(training.seen, training.total)
            if checkpoint is not None and (full or time.monotonic() - written >= seconds):
                training.kept().write(checkpoint)
                written = time.monotonic()
        progress(training.total, training.total)
        return training.result()


class _Training:
    """Where a training stands."""

    def __init__(
        self,
        vlm: ModelAdapter,
        part: Part,
        train: Sequence[Sample],
        held: Sequence[Sample],
        recipe: Recipe,
        warn: Callable[[str], None],
    ) -> None:
        self._part, self._recipe = part, recipe
        self._device = next(vlm.module.parameters()).device
        samples = [*train, *held]
        self._data = MicroBatches(vlm, part, samples, recipe, warn)

        def numbers(some: Sequence[Sample], first: int) -> list[Numbers]:
            found = composed(some, lambda one: vlm.encode([one]), recipe.batch_size, recipe.seed)
            return [tuple(first + number for number in each) for each in found]

        self._batches = numbers(train, 0)
        self._held = numbers(held, len(train))
        self._held_size = len(held)
        self._steps = math.ceil(len(self._batches) / recipe.accumulate)
        self.total = recipe.epochs * len(train)
        self._parameters = list(part.parameters())
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=recipe.rate, weight_decay=recipe.weight_decay
        )
        self.plan: dict[str, Any] = {
            "recipe": asdict(recipe),
            "part": [part.kind, [list(each.shape) for each in self._parameters]],
            "samples": [_digest([one.to_dict() for one in some]) for some in (train, held)],
            "device": self._device.type,
        }
        self._curve: list[Epoch] = []
        self._best, self._values = 0, part.state()
        self.steps = self.seen = 0
        self._lost = 0.0

    @property
    def _done(self) -> bool:
        epochs, recipe = len(self._curve) - 1, self._recipe
        tired = 0 < recipe.patience <= epochs - self._best
        return epochs >= recipe.epochs or (bool(self._curve) and tired)

    def run(self) -> Iterator[bool]:
        """To the end, step by step; yields whether an epoch is done."""
        if not self._curve:
            self._close(None)
            yield True
        while not self._done:
            order = self._order(len(self._curve))
            at = self.steps % self._steps
            for step in order[at:]:
                self._lost += self._step(step)
                self.steps += 1
                self.seen += sum(map(len, step))
                if self.steps % self._steps:
                    yield False
            self._close(self._lost / sum(map(len, self._batches)))
            yield True

    def result(self) -> Fitted:
        """What came out; the part gets its best values."""
        self._part.load_state(self._values)
        early = len(self._curve) - 1 < self._recipe.epochs
        return Fitted(tuple(self._curve), self._best, self.steps, self.seen, early)

    def kept(self) -> Checkpoint:
        """The state after the last step."""
        tensors = {f"now/{name}": value for name, value in self._part.state().items()}
        tensors |= {f"best/{name}": value for name, value in self._values.items()}
        for number, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"adam/{number}/{name}": value for name, value in state.items()}
        state = {
            "curve": [[each.number, each.train, each.held] for each in self._curve],
            "best": self._best, "steps": self.steps, "seen": self.seen, "lost": self._lost,
        }  # fmt: skip
        return Checkpoint(self.plan, state, tensors)

    def restore(self, kept: Checkpoint) -> None:
        """Go on from there."""
        self._curve = [Epoch(*each) for each in kept.state["curve"]]
        self._best, self._lost = kept.state["best"], kept.state["lost"]
        self.steps, self.seen = kept.state["steps"], kept.state["seen"]
        self._part.load_state(kept.part("now/"))
        self._values = kept.part("best/")
        adam: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in kept.part("adam/").items():
            number, _, key = name.partition("/")
            adam.setdefault(int(number), {})[key] = value
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": adam, "param_groups": groups})

    def _order(self, epoch: int) -> list[list[Numbers]]:
        """The micro-batches of each step of an epoch."""
        drawn = torch.randperm(len(self._batches), generator=self._generator("order", epoch))
        batches = [self._batches[number] for number in drawn.tolist()]
        each = self._recipe.accumulate
        return [batches[at : at + each] for at in range(0, len(batches), each)]

    def _close(self, train: float | None) -> None:
        """End an epoch: the held-out loss, and whether it is the best."""
        epoch = Epoch(len(self._curve), train, self._held_loss())
        if not math.isfinite(epoch.held):
            raise self._diverged("held-out loss")
        self._curve.append(epoch)
        self._lost = 0.0
        if epoch.number and epoch.held < self._curve[self._best].held:
            self._best, self._values = epoch.number, self._part.state()

    def _held_loss(self) -> float:
        total = 0.0
        for numbers in self._held:
            with torch.inference_mode():
                total += self._whatever_fits([numbers], self._sum)
        return total / self._held_size

    def _step(self, batches: Sequence[Numbers]) -> float:
        """One step of the optimizer; the sum of its samples' losses before it."""
        with torch.random.fork_rng(devices=self._random_devices()), differentiable():
            self._seed(self._generator("step", self.steps).initial_seed())
            lost = self._whatever_fits(batches, self._gradients)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._recipe.clip or math.inf)
        if not math.isfinite(lost) or not bool(norm.isfinite()):
            raise self._diverged("gradient" if math.isfinite(lost) else "loss")
        for group in self._optimizer.param_groups:
            group["lr"] = rate_at(self.steps, self._steps * self._recipe.epochs, self._recipe)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._part.stepped()
        return lost

    def _whatever_fits(
        self, batches: Sequence[Numbers], run: Callable[[Sequence[Numbers]], float]
    ) -> float:
        """What `run` gives, in smaller pieces after each time that memory did not suffice."""
        while True:
            try:
                return run(batches)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                let_go(error)
                self._data.halve(max(batches, key=len), error)
            self._optimizer.zero_grad(set_to_none=True)
            free_memory()

    def _sum(self, batches: Sequence[Numbers]) -> float:
        with self._autocast():
            pieces = [piece.double().sum() for each in batches for piece in self._data.losses(each)]
        return float(torch.stack(pieces).sum())

    def _gradients(self, batches: Sequence[Numbers]) -> float:
        """Gradients of the mean over all samples; their sum of losses."""
        size, total = sum(map(len, batches)), 0.0
        for numbers in batches:
            losses = self._data.losses(numbers)
            while True:
                with self._autocast():
                    piece = next(losses, None)
                if piece is None:
                    break
                if not piece.requires_grad:
                    raise _independent(self._part)
                (piece.sum() / size).backward()
                total += float(piece.detach().double().sum())
        return total

    def _autocast(self) -> AbstractContextManager[Any]:
        wanted = self._recipe.autocast
        if wanted == "none" or (wanted == "auto" and self._device.type != "cuda"):
            return nullcontext()
        return torch.autocast(self._device.type, dtype=torch.bfloat16)

    def _generator(self, what: str, number: int) -> torch.Generator:
        seed = hashlib.sha256(f"{what}/{self._recipe.seed}/{number}".encode()).digest()[:7]
        return torch.Generator().manual_seed(int.from_bytes(seed))

    def _seed(self, seed: int) -> None:
        """On a processor no accelerator is seeded: those not yet used would note each seed."""
        if self._device.type == "cpu":
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def _random_devices(self) -> list[torch.device]:
        return [self._device] if self._device.type == "cuda" else []

    def _diverged(self, what: str) -> DataError:
        return DataError(
            f"Training diverged in step {self.steps + 1}: the {what} is not finite.",
            subject="rate",
            hint=f"Choose a lower rate than {self._recipe.rate:g}; if the first step fails, the "
            "model itself gives numbers that are not finite: try another dtype.",
        )


def rate_at(step: int, steps: int, recipe: Recipe) -> float:
    """The learning rate of a step, from 0: a line up to the recipe's rate, then a cosine to zero.

    >>> [round(rate_at(step, 4, Recipe(rate=1.0, warmup=0.5)), 2) for step in range(4)]
    [0.5, 1.0, 1.0, 0.5]
    """
    rising = round(recipe.warmup * steps)
    if step < rising:
        return recipe.rate * (step + 1) / rising
    return recipe.rate * (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2


def check_recipe(recipe: Recipe) -> None:
    """Raise an error if a number is out of range.

    Raises:
        SpecError: It names the number.
    """
    least = {"epochs": 1, "batch_size": 1, "accumulate": 1, "patience": 0, "cache_bytes": 0}
    least |= {"weight_decay": 0, "clip": 0, "warmup": 0, "seed": 0}
    for name, low in least.items():
        value = getattr(recipe, name)
        if not low <= value < math.inf or (name == "warmup" and value > 1):
            raise _out_of_range(name, value, f"{low} or more" if name != "warmup" else "0 to 1")
    if not 0 < recipe.rate < math.inf:
        raise _out_of_range("rate", recipe.rate, "a number above 0")
    if recipe.autocast not in ("auto", "bfloat16", "none"):
        raise _out_of_range("autocast", recipe.autocast, "auto, bfloat16 or none")


def _out_of_range(name: str, value: Any, expected: str) -> SpecError:
    return SpecError(
        f"The recipe's {name} is {value!r}.", subject=name, hint=f"Expected: {expected}."
    )


def _check_samples(samples: Sequence[Sample], name: str) -> None:
    if not samples:
        raise DataError(
            f"There are no samples to train with: {name!r} is empty.",
            subject=name,
            hint="Training takes samples to learn from, and held-out ones that say when to stop.",
        )
    bare = next((one for one in samples if not one.label), None)
    if bare is not None:
        raise MissingAnnotation(
            f"The sample {bare.id!r} has no label, which training takes as its answer.",
            subject=bare.id,
            hint="Give every sample a label, or leave those without one out.",
        )


def _independent(part: Part) -> CompositionError:
    return CompositionError(
        f"The loss does not depend on the part ({part.kind}), so it cannot be trained.",
        subject=part.kind,
        hint="In the adapter's `forward`, use `vlmlens.passes.modes.inference()` in place of "
        "`torch.inference_mode()`; and choose a component that the answer depends on.",
    )


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()
