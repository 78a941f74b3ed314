"""The logit lens over stored columns.

nostalgebraist, "interpreting GPT: the logit lens" (2020): the final norm and the unembedding are
applied to every block's output, as if the model stopped there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options, Readout
from vlmlens.errors import CompositionError, MissingAnnotation, ReadoutError, did_you_mean
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._columns import choose, in_order, is_ragged
from vlmlens_plugins.analysis._scoring import AnswerScorer
from vlmlens_plugins.analysis.logit_lens import report
from vlmlens_plugins.analysis.logit_lens.readings import (
    Ints,
    check_readout,
    read_layer,
    top_tokens,
)

_CHECKED = 4


class LensOptions(Options):
    """Options of the logit lens."""

    k: int = Field(5, ge=1, le=100, description="Top tokens per layer in the tables.")
    norm: bool = Field(True, description="Apply the final norm before the unembedding.")
    columns: list[str] = Field(
        default_factory=lambda: ["llm.block.*/last"],
        min_length=1,
        description="Columns that hold language blocks' outputs, one row per sample.",
    )
    samples: int | list[str] = Field(
        2, description="Samples to show token by token: their ids, or how many of each task."
    )


class LogitLens(Analysis):
    """Reads every language block's output with the model's own final norm and unembedding."""

    Options: ClassVar[type[Options]] = LensOptions
    options: LensOptions

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`."""
        self._shown(samples)
        if columns:
            self._columns(columns)

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        columns = self._columns([info.name for info in context.columns()])
        vlm = context.model()
        readout = vlm.readout()
        if readout is None:
            raise ReadoutError(
                "The model has no final norm and unembedding to read with.",
                hint="Choose another analysis, or an adapter that offers a readout.",
            )
        lens = self._read(context, vlm, readout, columns)
        return Result(
            analysis="logit-lens",
            title="Where the answer forms",
            findings=report.findings(lens),
            tables=report.tables(lens, self._shown(context.samples), vlm),
            figures=report.figures(lens, vlm),
            options=self.options.model_dump(mode="json"),
            notes=report.notes(lens, norm=self.options.norm),
        )

    def _read(
        self, context: AnalysisContext, vlm: ModelAdapter, readout: Readout, columns: list[str]
    ) -> report.Lens:
        ids = [sample.id for sample in context.samples]
        last = _last_column(readout, [info.name for info in context.columns()])
        some = context.samples[:_CHECKED]
        error = check_readout(vlm, readout, some, context.store.read(last, ids[:_CHECKED]))
        answers = top_tokens(readout, context.store.read(last, ids).numpy())
        labels = _label_tokens(AnswerScorer(vlm), context.samples)
        layers = []
        for i, column in enumerate(columns):
            hidden = context.store.read(column, ids).numpy()
            options = self.options
            layers.append(
                read_layer(readout, hidden, answers, labels, k=options.k, norm=options.norm)
            )
            context.progress(i + 1, len(columns))
        return report.Lens(tuple(context.samples), tuple(columns), tuple(layers), answers, error)

    def _columns(self, columns: Sequence[str]) -> list[str]:
        chosen = choose(self.options.columns, columns)
        unfit = [name for name in chosen if is_ragged(name) or not name.startswith("llm.")]
        if unfit:
            raise CompositionError(
                f"The logit lens cannot read {unfit[0]!r}: it needs one row per sample of the "
                "language model's residual stream.",
                subject=unfit[0],
                hint="Use llm.block.*/last.",
            )
        return in_order(chosen)

    def _shown(self, samples: Sequence[Sample]) -> list[int]:
        """Numbers of the samples to show token by token."""
        wanted = self.options.samples
        if isinstance(wanted, int):
            by_task: dict[str | None, list[int]] = {}
            for i, sample in enumerate(samples):
                by_task.setdefault(sample.task, []).append(i)
            return [i for members in by_task.values() for i in members[:wanted]]
        numbers = {sample.id: i for i, sample in enumerate(samples)}
        for name in wanted:
            if name not in numbers:
                raise MissingAnnotation(
                    f"The run has no sample {name!r} to show.",
                    subject=name,
                    hint=did_you_mean(name, numbers),
                )
        return [numbers[name] for name in wanted]


def _last_column(readout: Readout, columns: Sequence[str]) -> str:
    name = f"{readout.site}/last"
    if name not in columns:
        raise CompositionError(
            f"The logit lens needs the column {name!r}, which holds the model's own answer.",
            subject=name,
            hint=f"Add {name} to --sites.",
        )
    return name


def _label_tokens(scorer: AnswerScorer, samples: Sequence[Sample]) -> Ints:
    """int64 `[n]`: the first token of each label, -1 without one."""
    tokens = [
        -1 if sample.label is None else (scorer.answer_ids(sample.label) or [-1])[0]
        for sample in samples
    ]
    return np.array(tokens, dtype=np.int64)
