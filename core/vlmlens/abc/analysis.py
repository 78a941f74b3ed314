"""Analysis: what turns columns (and, where it must, the model) into a result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from vlmlens.abc import options as base

if TYPE_CHECKING:
    from vlmlens.abc.adapter import Generation, ModelAdapter
    from vlmlens.abc.storage import ColumnInfo, ColumnStore
    from vlmlens.results import Result
    from vlmlens.samples import Sample

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


def _no_progress(done: int, total: int) -> None:
    del done, total


@dataclass(frozen=True)
class AnalysisContext:
    """What an analysis works on.

    Args:
        samples: The run's samples, in order.
        store: The run's columns, open for reading.
        model: Loads the model on first call and gives the same one afterwards (a function under
            `functools.cache`); raises `CompositionError` where the run has none (an old database,
            say).
        batch_size: How many samples to run through the model at once.
        seed: Seed of everything random.
        progress: To be called now and then.
        warn: To be called, once each, with anything that the user should know: a fallback, a
            dropped class. It is shown, and kept in the run.
        generated: What the model wrote after samples of the run, by sample id, where the run was
            asked to generate; each up to the same number of tokens.
        folder: Where the run's results lie, and an analysis may keep files beside its own, named
            `<analysis>.<what>`; None where there is no run folder.
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

    @property
    def model_loaded(self) -> bool:
        """Whether `model()` would give a model that is loaded already, at no cost."""
        info = getattr(self.model, "cache_info", None)
        return info is not None and info().currsize > 0

    def columns(self) -> list[ColumnInfo]:
        """The stored columns."""
        return self.store.columns()


class Analysis(ABC):
    """An analysis. Its manifest says what it `needs`; the runner checks that first.

    Args:
        options: The analysis's own options.
    """

    Options: ClassVar[type[base.Options]] = base.Options

    def __init__(self, options: base.Options) -> None:
        self.options = options

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """Raise what can be known to be wrong before the model is loaded.

        Args:
            samples: The run's samples.
            columns: Names of the columns that the run will have, as far as known; may be empty.

        Raises:
            MissingAnnotation: Samples lack what the analysis needs.
            CompositionError: No column suits it.
        """
        del samples, columns

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """Raise what the model's structure shows to be wrong, before its weights are loaded.

        Args:
            skeleton: From `ModelAdapter.skeleton`: its sites, tokenizer and readout's site can be
                asked for, and nothing can be computed.
            samples: The run's samples.
            columns: Names of the columns that the run will have.

        Raises:
            CompositionError: The analysis cannot read this model's columns.
            MissingAnnotation: Samples lack what this model needs for the analysis.
            SpecError: An option that means nothing for this model.
        """
        del skeleton, samples, columns

    def needs(self) -> frozenset[str]:
        """What it needs of the adapter for its options, beside what its manifest says."""
        return frozenset()

    @abstractmethod
    def run(self, context: AnalysisContext) -> Result:
        """Do it. Deterministic for equal columns, options and seed."""
