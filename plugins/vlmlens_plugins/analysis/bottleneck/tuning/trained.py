"""The trainings: each component by itself, from the model as it is; what was done is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmlens._files import replacing
from vlmlens.abc import AnalysisContext
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis._tuning.dividing import Divided
from vlmlens_plugins.analysis._tuning.shuffling import with_shuffled_labels
from vlmlens_plugins.analysis.bottleneck.options import BottleneckOptions
from vlmlens_plugins.analysis.bottleneck.tuning.snapshot import Snapshot, snapshot
from vlmlens_plugins.tuning.fit import fit
from vlmlens_plugins.tuning.making import PROMPT, Method, Trainable
from vlmlens_plugins.tuning.recipe import Recipe

_VERSION = 1
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Training:
    """One component, trained once, and what the model then does.

    Args:
        component: What was trained.
        kind: How: "lora", "weights" or "prompt".
        seed: Its number.
        parameters: How many numbers were trained.
        epochs: How many passes through the training samples were made.
        train: Mean loss of the training samples in each pass, nats; None before the first.
        held: That of the held-out samples before the first pass and after each.
        best: The number of the pass whose values count; 0: those before the first.
        shuffled: Whether the training labels were shuffled: the control.
        after: What was measured.
    """

    component: str
    kind: str
    seed: int
    parameters: int
    epochs: int
    train: Sequence[float | None]
    held: Sequence[float]
    best: int
    shuffled: bool
    after: Snapshot

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data."""
        own = {name: getattr(self, name) for name in _PLAIN}
        return {**own, "after": self.after.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Training:
        """From what `to_json` gave."""
        return cls(**{**data, "after": Snapshot.from_json(data["after"])})


_PLAIN = ("component", "kind", "seed", "parameters", "epochs", "train", "held", "best", "shuffled")


class Trainings:
    """Trains components of one model on the samples of one task.

    Args:
        context: Of the analysis.
        options: Of the analysis.
        task: The task, for messages and names of files.
        parts: Its samples.
    """

    def __init__(
        self, context: AnalysisContext, options: BottleneckOptions, task: str, parts: Divided
    ) -> None:
        self._context, self._options, self._task, self._parts = context, options, task, parts

    def before(self) -> Snapshot:
        """What the model does as it is."""
        vlm = self._context.model()
        return snapshot(self._context, vlm, self._parts, self._options)

    def trained(
        self, component: str, number: int, *, shuffled: bool = False, progress: Progress
    ) -> Training:
        """Train a component, unless the run has it from before.

        Args:
            component: Which.
            number: Of the training: its seed.
            shuffled: Whether labels are dealt anew among the training samples.
            progress: See `fit`.
        """
        kept = self._file(component, number, shuffled=shuffled)
        found = None if kept is None else _read(kept, len(self._parts.test))
        if found is not None:
            return found
        made = self._train(component, number, shuffled, progress)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with replacing(kept) as path:
                path.write_text(json.dumps(made.to_json()), encoding="utf-8")
        return made

    def _train(self, component: str, number: int, shuffled: bool, progress: Progress) -> Training:
        vlm, options = self._context.model(), self._options
        trainable = trainable_of(component, options)
        part = trainable.made(vlm, number)
        train, held = self._parts.train, self._parts.held
        if shuffled:
            rng = generator(self._context.seed, "bottleneck", "dealt", str(number))
            train, held = with_shuffled_labels(train, rng), with_shuffled_labels(held, rng)
        done = fit(
            vlm,
            part,
            train,
            held,
            recipe_of(trainable, options, number),
            checkpoint=self._checkpoint(component, number, shuffled),
            progress=progress,
            warn=self._context.warn,
        )
        with part.attached(vlm):
            numbers = sum(each.numel() for each in part.parameters())
            after = snapshot(self._context, vlm, self._parts, options)
        self._forget(component, number, shuffled)
        return Training(
            component,
            part.kind,
            number,
            numbers,
            len(done.curve) - 1,
            [each.train for each in done.curve],
            [each.held for each in done.curve],
            done.best,
            shuffled,
            after,
        )

    def _file(self, component: str, number: int, *, shuffled: bool) -> Path | None:
        if self._context.folder is None:
            return None
        name = f"{self._stem(component, number, shuffled)}.{self._digest()}.json"
        return self._context.folder / "bottleneck.tuning" / name

    def _checkpoint(self, component: str, number: int, shuffled: bool) -> Path | None:
        kept = self._file(component, number, shuffled=shuffled)
        return None if kept is None else kept.with_suffix(".checkpoint")

    def _forget(self, component: str, number: int, shuffled: bool) -> None:
        checkpoint = self._checkpoint(component, number, shuffled)
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)

    def _stem(self, component: str, number: int, shuffled: bool) -> str:
        return f"{component}-{number}{'-shuffled' if shuffled else ''}"

    def _digest(self) -> str:
        """Of everything on which a training depends."""
        said = {
            "version": _VERSION,
            "model": dict(self._context.model().describe()),
            "options": self._options.model_dump(mode="json", exclude={"components", "seeds"}),
            "seed": self._context.seed,
            "samples": [
                [f"{one.id}: {one.label} of {', '.join(one.choices)}", one.fingerprint()]
                for part in (self._parts.train, self._parts.held, self._parts.test)
                for one in part
            ],
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def trainable_of(component: str, options: BottleneckOptions) -> Trainable:
    """What is trained of a component: virtual tokens, all weights of the projector, or LoRA."""
    whole = options.whole_weights and component != PROMPT
    method: Method | None = "weights" if whole else None
    return Trainable.of(component, method, rank=options.rank, tokens=options.tokens)


def recipe_of(trainable: Trainable, options: BottleneckOptions, seed: int) -> Recipe:
    """How it is trained: the same for all, but for the rate that suits the kind."""
    return Recipe(epochs=options.epochs, rate=trainable.usual_rate, seed=seed)


def _read(path: Path, tested: int) -> Training | None:
    """A training that the run keeps; None if there is none, or a damaged one: it is done again."""
    try:
        found = Training.from_json(json.loads(path.read_text(encoding="utf-8")))
        lengths = {len(found.after.right), len(found.after.blind), len(found.after.said)}
        lengths |= {len(hits) for hits in found.after.read.values()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return found if lengths == {tested} else None
