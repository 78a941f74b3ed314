"""The stages of steering: what each costs, and one progress over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from vlmlens.abc import AnalysisContext
from vlmlens.errors import SpecError
from vlmlens_plugins.analysis.steering.aims import Parts
from vlmlens_plugins.analysis.steering.options import SteeringOptions


@dataclass(slots=True)
class Stages:
    """Contexts for the stages, one after the other.

    Args:
        context: The context of the analysis.
        sizes: Of each stage, how many cells it has, and how many samples.
    """

    context: AnalysisContext
    sizes: Sequence[tuple[int, int]]
    _next: int = field(default=0, init=False)

    @classmethod
    def of(
        cls,
        context: AnalysisContext,
        options: SteeringOptions,
        parts: Parts,
        sites: int,
        kinds: int,
    ) -> Stages:
        """Reading rows, moving answers, touching other questions, random directions.

        Args:
            context: The context of the analysis.
            options: Strengths and controls.
            parts: The samples.
            sites: How many sites there are.
            kinds: How many kinds of controls.
        """
        wanted, untouched = len(parts.wanted), len(parts.untouched)
        strengths, draws = len(options.strengths), options.controls
        sizes = [
            (1, len(parts.learn)),
            (sites * (strengths + kinds * draws), wanted),
            (sites * strengths, untouched),
            (len(options.acting) * draws, wanted + untouched),
        ]
        return cls(context, sizes)

    def check(self, most: int) -> None:
        """Raise an error if all of them need too many passes.

        Raises:
            SpecError: They do.
        """
        size = self.context.batch_size
        passes = sum(cells * -(-items // size) for cells, items in self.sizes)
        if passes > most:
            raise SpecError(
                f"Steering needs {passes:,} passes over a batch of at most {size} samples. "
                f"max_passes is {most:,}.",
                subject="max_passes",
                hint="Name fewer sites or strengths, set samples, learn or controls lower, or "
                "--batch-size or max_passes higher.",
            )

    def next(self) -> AnalysisContext:
        """The context of the next stage: its progress goes on from the stages before."""
        units = [cells * items for cells, items in self.sizes]
        before, total = sum(units[: self._next]), sum(units)
        self._next += 1

        def progress(done: int, of: int) -> None:
            del of
            self.context.progress(before + done, total)

        return replace(self.context, progress=progress)
