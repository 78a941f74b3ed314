"""Analysis: turns columns (and the model, if needed) into a result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from vlmlens.abc import options as base

if TYPE_CHECKING:
    from vlmlens.abc.adapter import Generation, ModelAdapter
    from vlmlens.abc.model_work import JSON, ModelWork, WorkUnit
    from vlmlens.abc.storage import ColumnInfo, ColumnStore
    from vlmlens.results import Result
    from vlmlens.samples import Sample

Progress = Callable[[int, int], None]
"""A function that is called with (steps done, total steps)."""

COLUMNS, MODEL = "columns", "model"
"""What an analysis can use of a run, see `Analysis.uses`."""

UnitRunner = Callable[["ModelWork", Sequence["WorkUnit"], Progress], "list[JSON]"]
"""Runs units of model work: see `AnalysisContext.run_units`."""

UnitLookup = Callable[["ModelWork", Sequence["WorkUnit"]], "list[JSON] | None"]
"""Finds results of units: see `AnalysisContext.known_units`."""


def _no_progress(done: int, total: int) -> None:
    del done, total


@dataclass(frozen=True)
class AnalysisContext:
    """What an analysis works on.

    Args:
        samples: The run's samples, in order.
        store: The run's columns, open for reading.
        model: Loads the model on the first call, and returns the same one afterwards (a function
            under `functools.cache`). Raises `CompositionError` if the run has no model, such as
            an old database.
        batch_size: How many samples to run through the model at once.
        seed: The seed of everything random.
        progress: Call this now and then with the progress.
        warn: Call this once for each thing that the user should know: a fallback, a dropped
            class. The warning is shown, and kept in the run.
        generated: The texts that the model generated, by sample id, if the run asked for them; all
            have the same maximum number of tokens.
        folder: The folder of the run's results. An analysis may keep files of its own there, named
            `<analysis>.<what>`. None: there is no run folder.
        runner: What `run_units` hands units to. None: they are run here and now, and nothing is
            kept.
        lookup: What `known_units` asks. None: nothing is known.
        drawn_from: How many samples the run has, if `samples` are some of them, drawn for this
            analysis. None: they are all.
    """

    samples: Sequence[Sample]
    store: ColumnStore
    model: Callable[[], ModelAdapter]
    batch_size: int = 16
    seed: int = 0
    progress: Progress = _no_progress
    warn: Callable[[str], None] = field(default=lambda message: None)
    generated: Mapping[str, Generation] = field(default_factory=dict)
    folder: Path | None = None
    runner: UnitRunner | None = None
    lookup: UnitLookup | None = None
    drawn_from: int | None = None

    def run_units(
        self, work: ModelWork, units: Sequence[WorkUnit], *, progress: Progress | None = None
    ) -> list[JSON]:
        """Have the model do some work, unit by unit; loads it.

        Batches, progress and storage are taken care of. A result that the run has from before is
        not computed again, so an analysis that was stopped goes on where it was.

        Args:
            work: What to do.
            units: What to do it with. Equal ones are run once.
            progress: Called with (units done, all units); None: the context's own.

        Returns:
            The result of each unit, in order.

        Raises:
            OutOfMemory: A single unit does not fit in memory.
            DataError: Arguments are no JSON.
            BrokenPlugin: Results are no JSON, or not one for each unit.
        """
        from vlmlens.abc.unit_batches import run_here

        if not units:
            return []
        told = self.progress if progress is None else progress
        if self.runner is not None:
            return self.runner(work, units, told)
        return run_here(self.model(), work, units, self.batch_size, warn=self.warn, progress=told)

    def known_units(self, work: ModelWork, units: Sequence[WorkUnit]) -> list[JSON] | None:
        """What the run's own model once said, without loading a model.

        Args:
            work: What was done.
            units: What it was done with.

        Returns:
            The result of each unit, in order; None unless the run has all of them, from the model
            that it says it has. `run_units` then computes them; it also does if the model is
            another one by now, say under another version of torch.
        """
        return None if self.lookup is None else self.lookup(work, units)

    @property
    def model_loaded(self) -> bool:
        """Whether the model is already loaded, so that `model()` costs nothing."""
        info = getattr(self.model, "cache_info", None)
        return info is not None and info().currsize > 0

    def columns(self) -> list[ColumnInfo]:
        """The stored columns."""
        return self.store.columns()


class Analysis(ABC):
    """Base class of analyses. The manifest says what it `needs`; this is checked before it runs.

    Args:
        options: The analysis's own options.
    """

    Options: ClassVar[type[base.Options]] = base.Options

    def __init__(self, options: base.Options) -> None:
        self.options = options

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """Raise an error for anything that is known to be wrong before the model is loaded.

        Args:
            samples: The run's samples.
            columns: Names of the columns that the run will have. Empty while they are not known.

        Raises:
            MissingAnnotation: Samples lack something that the analysis needs.
            CompositionError: The analysis can use none of the columns.
        """
        del samples, columns

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """Raise an error for anything that the model's structure shows to be wrong.

        This runs before the weights are loaded.

        Args:
            skeleton: From `ModelAdapter.skeleton`. It has sites, a tokenizer and the readout's
                site, but cannot compute anything.
            samples: The run's samples.
            columns: Names of the columns that the run will have.

        Raises:
            CompositionError: The analysis cannot read this model's columns.
            MissingAnnotation: Samples lack something that the analysis needs with this model.
            SpecError: An option has no meaning for this model.
        """
        del skeleton, samples, columns

    def cost(self, skeleton: ModelAdapter, samples: Sequence[Sample]) -> str:
        """About what it costs, in a few words; said before the model is loaded.

        Args:
            skeleton: As of `check_model`.
            samples: The run's samples.

        Returns:
            For example "about 90 passes of the model"; "" if nothing is to be said.
        """
        del skeleton, samples
        return ""

    def needs(self) -> frozenset[str]:
        """What it needs with these options, in addition to the manifest's.

        Words that adapters offer, or "answers".
        """
        return frozenset()

    def uses(self, samples: Sequence[Sample]) -> frozenset[str]:
        """What it uses of a run with these options and samples: `COLUMNS`, `MODEL`.

        Where no analysis of a run uses columns, none is extracted, unless the user names sites. If
        none uses the model either, it is not opened, and images are not checked. Default: both.

        Args:
            samples: The run's samples; `check` has accepted them.
        """
        del samples
        return frozenset({COLUMNS, MODEL})

    @abstractmethod
    def run(self, context: AnalysisContext) -> Result:
        """Run the analysis. Equal columns, options and seed give equal results."""
