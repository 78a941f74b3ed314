"""The trainings of an analysis, each with a checkpoint in the run's folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from vlmlens._disk import disk_errors
from vlmlens._files import replacing
from vlmlens.abc import AnalysisContext, ModelAdapter
from vlmlens.tuned.record import FOLDER
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis._tuning.dividing import Divided
from vlmlens_plugins.analysis._tuning.measuring import Answers, Examiner
from vlmlens_plugins.analysis._tuning.shuffling import with_shuffled_labels
from vlmlens_plugins.analysis.tune.options import TuneOptions
from vlmlens_plugins.tuning.curve import Fitted
from vlmlens_plugins.tuning.fit import fit
from vlmlens_plugins.tuning.part import Part

_NAME = Path(FOLDER).name
_CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True, eq=False)
class Tuning:
    """One training, and what the model answers then.

    Args:
        seed: Its number, from 0.
        shuffled: Whether labels were shuffled.
        fitted: Its curve.
        numbers: How many numbers were trained.
        answers: To the questions of the test.
        blind: On gray images; None: not asked.
    """

    seed: int
    shuffled: bool
    fitted: Fitted
    numbers: int
    answers: Answers
    blind: Answers | None


@dataclass(frozen=True, slots=True, eq=False)
class Trainings:
    """What all trainings of an analysis have in common.

    Args:
        context: Of the analysis.
        vlm: The model.
        options: Of the analysis.
        samples: What is learned from, held out, and tested.
        examiner: Asks the questions of the test.
        folder: Where checkpoints are, and what is saved.
    """

    context: AnalysisContext
    vlm: ModelAdapter
    options: TuneOptions
    samples: Divided
    examiner: Examiner
    folder: Path

    def trained(self, number: int, *, shuffled: bool = False, save: bool = False) -> Tuning:
        """Train once, and ask again; goes on from a checkpoint of the same training.

        Args:
            number: Of the seed, from 0.
            shuffled: Whether labels are shuffled: the control.
            save: Whether the part is kept, and asked on gray images, too.
        """
        seed = self.context.seed + number
        part = self.options.trainable.made(self.vlm, seed)
        train, held = self.samples.train, self.samples.held
        if shuffled:
            train, held = (
                with_shuffled_labels(some, generator(seed, "tuning", "shuffled", name))
                for some, name in ((train, "train"), (held, "held"))
            )
        fitted = fit(
            self.vlm, part, train, held, self.options.recipe(seed),
            checkpoint=self._checkpoint(number, shuffled=shuffled),
            progress=self.context.progress, warn=self.context.warn,
        )  # fmt: skip
        numbers = sum(value.numel() for value in part.state().values())
        with part.attached(self.vlm):
            answers = self.examiner.ask()
            blind = self.examiner.ask(blind=True) if save else None
        if save:
            self._save(part, fitted, numbers)
        return Tuning(number, shuffled, fitted, numbers, answers, blind)

    def clean_up(self) -> None:
        """Remove the checkpoints, once there is a result."""
        names = [(number, False) for number in range(self.options.seeds)]
        for number, shuffled in [*names, (0, True)]:
            self._checkpoint(number, shuffled=shuffled).unlink(missing_ok=True)

    def _checkpoint(self, number: int, *, shuffled: bool) -> Path:
        """Its name tells what is trained, so that no other training goes on from it."""
        options = self.options.model_dump(mode="json")
        for measured in ("tests", "max_new_tokens", "level", "draws", "seeds", "control"):
            del options[measured]
        ids = [[one.id for one in some] for some in (self.samples.train, self.samples.held)]
        said = json.dumps([options, self.context.seed, ids, self.vlm.describe()], default=str)
        digest = hashlib.sha256(said.encode()).hexdigest()[:12]
        kind = "shuffled" if shuffled else f"seed-{number}"
        return self.folder / f"tune.{kind}.{digest}.{_CHECKPOINT}"

    def _save(self, part: Part, fitted: Fitted, numbers: int) -> None:
        """Replace what was saved before, in one step."""
        place = self.folder / _NAME
        with disk_errors(), _emptied(place) as made:
            part.save(made, self._about(fitted, numbers))

    def _about(self, fitted: Fitted, numbers: int) -> dict[str, Any]:
        lowest = fitted.lowest
        return {
            "component": self.options.trainable.component,
            "base": self.vlm.describe(),
            "method": asdict(self.options.trainable),
            "recipe": asdict(self.options.recipe(self.context.seed)),
            "parameters": numbers,
            "tasks": list(self.samples.tasks),
            "samples": len(self.samples.train),
            "held_out": len(self.samples.held),
            "epoch": fitted.best,
            "held_out_loss": lowest.held,
        }


@contextmanager
def folder_of(context: AnalysisContext) -> Iterator[Path]:
    """The folder of the run's results, or one for the time being."""
    if context.folder is not None:
        context.folder.mkdir(parents=True, exist_ok=True)
        yield context.folder
        return
    context.warn("There is no run folder, so what is trained is not kept.")
    with TemporaryDirectory() as made:
        yield Path(made)


@contextmanager
def _emptied(place: Path) -> Iterator[Path]:
    """A new folder, which takes the place of what was there."""
    with replacing(place) as made:
        made.mkdir()
        yield made
        if place.exists():
            place.rename(made.parent / "before")


def share(found: Answers) -> float:
    """The share of right answers."""
    return float(np.nanmean(found.right)) if np.isfinite(found.right).any() else float("nan")
