"""Training: several SAEs in one pass over the rows."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from vlmlens.errors import DataError, OutOfMemory, SpecError
from vlmlens.passes.memory import is_out_of_memory, let_go
from vlmlens_plugins.sae.batches import Batch, Feed, Statistics
from vlmlens_plugins.sae.training.checkpoint import Checkpoint
from vlmlens_plugins.sae.training.curve import Curve
from vlmlens_plugins.sae.training.folding import folded
from vlmlens_plugins.sae.training.learner import Learner, Schedule
from vlmlens_plugins.sae.training.recipe import Recipe
from vlmlens_plugins.sae.training.scaling import equal_rows
from vlmlens_plugins.sae.training.trained import Trained

_SECONDS = 300.0


def train(
    recipes: Sequence[Recipe], feed: Feed, *, rows: int, device: str = "auto",
    checkpoint: Path | None = None, every: int = 500,
    progress: Callable[[int, int], None] = lambda done, total: None,
    warn: Callable[[str], None] = lambda text: None,
) -> list[Trained]:  # fmt: skip
    """Train SAEs on the batches of a feed, all of them on each batch.

    Equal recipes and feeds give equal SAEs on a CPU, however many are trained together.

    Args:
        recipes: What is trained; with a feed of two widths, transcoders.
        feed: Where batches come from.
        rows: How many rows to train on, rounded up to whole batches.
        device: "auto" (CUDA if there is some), "cpu", "cuda", "cuda:1".
        checkpoint: A file to go on from, and to keep the state in; None: none is kept. It is
            written at the end too, so that a training that is done is not done again.
        every: Steps between two checkpoints, at most; one is written every five minutes, too.
        progress: Called with (rows done, all rows).
        warn: Called with sentences for the user.

    Returns:
        In the order of the recipes.

    Raises:
        DataError: Rows are not finite or have another width than stated, training diverged, or the
            checkpoint is damaged or of another training.
        SpecError: There is no such device, or a number is below 1.
        OutOfMemory: The SAEs do not fit in memory.
    """
    if every < 1:
        raise SpecError(
            f"A checkpoint cannot be written every {every} steps.",
            subject="every",
            hint="Expected: 1 or more.",
        )
    on = device_of(device)
    _check_size(recipes, feed.widths, on)
    try:
        return _train(_Training(recipes, feed, rows, on), checkpoint, every, progress, warn)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        let_go(error)
        raise _too_large(recipes, "did not fit in memory while they were trained") from error


def _train(
    training: _Training,
    checkpoint: Path | None,
    every: int,
    progress: Callable[[int, int], None],
    warn: Callable[[str], None],
) -> list[Trained]:
    if training.constant:
        warn("All rows are equal: an SAE cannot learn anything from them.")
    if checkpoint is not None and checkpoint.exists():
        training.restore(Checkpoint.read(checkpoint, training.plan))
    written = time.monotonic()
    for done in training.run():
        progress(done * training.feed.batch, training.rows)
        if checkpoint is None:
            continue
        late = time.monotonic() - written > _SECONDS
        if late or done % every == 0 or done == training.schedule.steps:
            training.kept().write(checkpoint)
            written = time.monotonic()
    return training.result()


class _Training:
    """Learners, their curves and the feed."""

    def __init__(
        self, recipes: Sequence[Recipe], feed: Feed, rows: int, device: torch.device
    ) -> None:
        if rows < 1:
            raise SpecError(
                f"An SAE cannot be trained on {rows} rows.",
                subject="rows",
                hint="Expected: 1 or more.",
            )
        found = _checked(feed.statistics())
        self.feed, self.device, self.found = feed, device, found
        self.schedule = Schedule(math.ceil(rows / feed.batch), feed.batch)
        self.rows = self.schedule.steps * feed.batch
        self.learners = [Learner(one, found, self.schedule, device) for one in recipes]
        self.curves = [Curve(self.schedule.steps) for _ in recipes]
        self.constant = any(equal_rows(one) for one in found)
        self.plan: dict[str, Any] = {
            "recipes": [one.record() for one in recipes],
            "steps": self.schedule.steps, "batch": feed.batch, "widths": list(feed.widths),
            "squares": [float(f"{one.square:.5g}") for one in found], "device": device.type,
        }  # fmt: skip

    @property
    def done(self) -> int:
        """How many steps are done."""
        return self.learners[0].steps if self.learners else self.schedule.steps

    def run(self) -> Iterator[int]:
        """Steps to the end; after each, how many are done."""
        batches = iter(self.feed)
        while self.done < self.schedule.steps:
            batch = next(batches, None)
            if batch is None:
                raise DataError(
                    f"The rows ended after {self.done} of {self.schedule.steps} batches.",
                    subject="rows",
                    hint="A feed must give rows again when they are used up.",
                )
            self._step(batch)
            yield self.done

    def _step(self, batch: Batch) -> None:
        number = self.done
        _check(batch, self.feed, number)
        moved = tuple(part.to(self.device) for part in batch)
        scaled: dict[tuple[bool, bool], tuple[torch.Tensor, torch.Tensor]] = {}
        for learner, curve in zip(self.learners, self.curves, strict=True):
            key = learner.recipe.centre, learner.recipe.normalise
            if key not in scaled:
                given = learner.input(moved[0])
                scaled[key] = given, learner.output(moved[1]) if len(moved) > 1 else given
            loss = learner.step(*scaled[key])
            if not math.isfinite(loss):
                raise _diverged(learner.recipe, number)
            curve.add(loss)

    def kept(self) -> Checkpoint:
        """The state after the last step."""
        feed, tensors = {}, {}
        for name, value in self.feed.state().items():
            if isinstance(value, torch.Tensor):
                tensors[f"feed/{name}"] = value
            else:
                feed[name] = value
        learners = [learner.state() for learner in self.learners]
        for number, (_, parts) in enumerate(learners):
            tensors |= {f"{number}/{name}": part for name, part in parts.items()}
        state = {
            "feed": feed,
            "learners": [data for data, _ in learners],
            "curves": [curve.state() for curve in self.curves],
        }
        return Checkpoint(self.plan, state, tensors)

    def restore(self, kept: Checkpoint) -> None:
        """Go on from there."""
        for number, learner in enumerate(self.learners):
            learner.restore(kept.state["learners"][number], kept.part(f"{number}/"))
        for curve, state in zip(self.curves, kept.state["curves"], strict=True):
            curve.restore(state)
        self.feed.restore({**kept.state["feed"], **kept.part("feed/")})

    def result(self) -> list[Trained]:
        """What was trained."""
        return [self._trained(*pair) for pair in zip(self.learners, self.curves, strict=True)]

    def _trained(self, learner: Learner, curve: Curve) -> Trained:
        steps, batch = self.schedule.steps, self.schedule.batch
        counted = (steps - self.schedule.last) * batch
        density = (learner.fired.double() / counted).float().cpu()
        losses = curve.points(batch, self._share(learner))
        record = learner.recipe.record() | {
            "rows": self.rows, "steps": steps, "batch": batch, "loss": losses[-1][1],
            "l0": float(density.double().sum()), "dead": int((density == 0).sum()),
            "counted": counted, "scale": learner.input.scale,
        }  # fmt: skip
        if "coefficient" in learner.sparsity.numbers:
            record["coefficient"] = learner.sparsity.numbers["coefficient"]
        record = json.loads(json.dumps(record))
        return Trained(
            folded(learner, record), learner.recipe, self.rows, steps, losses, density, counted
        )

    def _share(self, learner: Learner) -> float:
        """What a squared error of training is multiplied by to be a share of the variance."""
        spread = self.found[-1].spread * learner.output.scale**2
        return 1 / spread if spread > 0 and not equal_rows(self.found[-1]) else 1.0


def device_of(name: str) -> torch.device:
    """The device that a name means.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:1".

    Raises:
        SpecError: There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    hint = "Expected: auto, cpu, cuda, or cuda:NUMBER of a card that is there."
    try:
        found = torch.device(name)
    except RuntimeError as error:
        raise SpecError(f"There is no device {name!r}.", subject=name, hint=hint) from error
    there = torch.cuda.device_count() if found.type == "cuda" else int(found.type == "cpu")
    if (found.index or 0) >= there:
        raise SpecError(f"There is no device {name!r}.", subject=name, hint=hint)
    return found


def _check_size(recipes: Sequence[Recipe], widths: Sequence[int], device: torch.device) -> None:
    """Raise an error for SAEs that fit at no batch size: Adam keeps two numbers for each weight."""
    weights = sum(one.features for one in recipes) * (widths[0] + widths[-1])
    needed, there = 3 * 4 * weights, _memory(device)
    if needed > there:
        raise _too_large(
            recipes,
            f"cannot be trained: that takes {needed / 2**30:,.0f} GiB or more, and {device.type} "
            f"has {there / 2**30:,.0f} GiB",
        )


def _memory(device: torch.device) -> int:
    """How many bytes a device has."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _too_large(recipes: Sequence[Recipe], why: str) -> OutOfMemory:
    sizes = " and ".join(f"{number:,}" for number in sorted({one.features for one in recipes}))
    saes = f"{len(recipes)} SAEs" if len(recipes) > 1 else "An SAE"
    return OutOfMemory(
        f"{saes} with {sizes} features {why}.",
        subject="width",
        hint="Choose fewer features, fewer SAEs at once, or smaller batches.",
    )


def _checked(found: tuple[Statistics, ...]) -> tuple[Statistics, ...]:
    for one in found:
        if not math.isfinite(one.square) or not bool(one.mean.isfinite().all()):
            raise DataError(
                "Rows that SAEs are to be trained on have numbers that are not finite, or too "
                "large to be squared.",
                subject="rows",
                hint="Look at the column: such a model overflows. Extract with another dtype.",
            )
    return found


def _check(batch: Batch, feed: Feed, number: int) -> None:
    shapes = [tuple(part.shape) for part in batch]
    wanted = [(feed.batch, width) for width in feed.widths]
    if shapes != wanted:
        raise DataError(
            f"Batch {number} has the shapes {shapes}, expected {wanted}.",
            subject="rows",
            hint="The feed of rows is at fault, not the rows.",
        )
    for part in batch:
        if not bool(part.sum().isfinite()) and not bool(part.isfinite().all()):
            wrong = int((~part.isfinite()).any(1).sum())
            raise DataError(
                f"Batch {number} has {wrong} of {len(part)} rows with numbers that are not finite.",
                subject="rows",
                hint="Look at the column: such a model overflows. Extract with another dtype.",
            )


def _diverged(recipe: Recipe, number: int) -> DataError:
    return DataError(
        f"Training of {recipe.kind} with {recipe.features} features diverged in step {number}: its "
        "loss is not finite.",
        subject=recipe.kind,
        hint=f"Choose a lower learning rate than {recipe.rate:g}.",
    )
