"""The logit lens over stored columns.

nostalgebraist, "interpreting GPT: the logit lens" (2020): the final norm and the unembedding are
applied to every block's output, as if the model stopped there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options, Readout
from vlmlens.errors import CompositionError, MissingAnnotation, ReadoutError, did_you_mean
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens.tokens import TokenKind
from vlmlens_plugins.analysis._columns import choose
from vlmlens_plugins.analysis._scoring import AnswerScorer
from vlmlens_plugins.analysis.logit_lens import learned, maps, report, spread_report, tasks
from vlmlens_plugins.analysis.logit_lens.checks import check_groups, check_rows
from vlmlens_plugins.analysis.logit_lens.positions import (
    Group,
    groups,
    readable,
    stream,
)
from vlmlens_plugins.analysis.logit_lens.readings import Reader
from vlmlens_plugins.analysis.logit_lens.spread import read_single, read_spread
from vlmlens_plugins.analysis.logit_lens.vocabulary import Ints, Vocabulary
from vlmlens_plugins.analysis.logit_lens.words import spellings

_CHECKED = 4


class LensOptions(Options):
    """Options of the logit lens."""

    k: int = Field(5, ge=1, le=100, description="Top tokens per layer in tables and maps.")
    norm: bool = Field(True, description="Apply the final norm before the unembedding.")
    columns: list[str] | None = Field(
        None,
        min_length=1,
        description="Columns of language blocks' outputs: /last, /all, /text, /image, /steps. "
        "Default: llm.block.*/last, or where that is not stored, all others that hold positions.",
    )
    samples: int | list[str] = Field(
        2, description="Samples to show token by token: their ids, or how many of each task."
    )
    words: list[str] = Field(
        default_factory=list,
        description="Words to follow, all their single-token spellings taken together.",
    )
    chunk: int = Field(
        256, ge=1, description="About how many megabytes of rows and logits to hold at once."
    )
    tuned: bool = Field(
        False, description="Train a tuned lens per layer, and test it on held-out samples."
    )
    tuned_file: str | None = Field(
        None, description="Where it is kept (safetensors); default: beside the run's results."
    )


@dataclass
class _Found:
    """Results on their way."""

    parts: list[Result]

    def add(self, **values: object) -> None:
        self.parts.append(Result("", "", **values))  # type: ignore[arg-type]

    def result(self, title: str, options: LensOptions, notes: Sequence[str]) -> Result:
        return Result(
            analysis="logit-lens",
            title=title,
            findings=[one for part in self.parts for one in part.findings],
            tables=[one for part in self.parts for one in part.tables],
            figures=[one for part in self.parts for one in part.figures],
            options=options.model_dump(mode="json"),
            notes=notes,
            overview=[one for part in self.parts for one in part.overview],
        )


class LogitLens(Analysis):
    """Reads every language block's output with the model's own final norm and unembedding."""

    Options: ClassVar[type[Options]] = LensOptions
    options: LensOptions

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`."""
        self._shown(samples)
        if self.options.tuned:
            check_groups(samples)
        if columns:
            self._groups(columns)

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """See `Analysis.check_model`."""
        del samples
        site = _readout(skeleton).site
        for group in self._groups(columns):
            _final(group, site, columns)
        head = skeleton.sites.canonical.get("llm.head")
        size = skeleton.widths().get(head.path) if head else None
        if size is not None:
            spellings(skeleton, self.options.words, size)

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        found = self._groups([info.name for info in context.columns()])
        vlm = context.model()
        vocabulary = self._vocabulary(context, vlm, found[0])
        reader = Reader(
            vocabulary,
            k=self.options.k,
            norm=self.options.norm,
            words=spellings(vlm, self.options.words, vocabulary.size),
            megabytes=self.options.chunk,
        )
        labels = _label_tokens(AnswerScorer(vlm), context.samples)
        made, errors = _Found([]), []
        for number, group in enumerate(found):
            progress = _progress(context, number, len(found))
            errors.append(self._read(context, vlm, reader, group, labels, made, progress))
        if self.options.tuned:
            self._learn(context, reader, found, made)
        notes = [*self._notes(max(errors), reader.words), *self._unread(context)]
        return made.result("Where the answer forms", self.options, notes)

    def _read(
        self,
        context: AnalysisContext,
        vlm: ModelAdapter,
        reader: Reader,
        group: Group,
        labels: Ints,
        made: _Found,
        progress: Callable[[int], None],
    ) -> float:
        """Read a group and add what is found; the error of the check."""
        site = reader.vocabulary.readout.site
        final = _final(group, site, [info.name for info in context.columns()])
        ids = [sample.id for sample in context.samples]
        stored = context.store.read(final, ids[:_CHECKED])
        some = context.samples[:_CHECKED]
        error = check_rows(vlm, reader.vocabulary, group.selector, some, stored)
        same = group.columns.index(final) if final in group.columns else None
        parts = stream(context.store, group, final, ids, self.options.chunk)
        shown = self._shown(context.samples)
        if stored.ragged:
            spread = read_spread(
                reader, group, context.samples, parts,
                labels if group.selector.kind == TokenKind.IMAGE else None,
                self.options.words, same=same, shown=shown, error=error, progress=progress,
            )  # fmt: skip
            made.add(
                findings=spread_report.findings(spread),
                tables=spread_report.tables(spread),
                figures=maps.figures(spread, vlm),
            )
        else:
            readings = read_single(reader, parts, labels, same=same, progress=progress)
            words = tuple(self.options.words)
            lens = report.Lens(group, tuple(context.samples), readings, words, error)
            several = len(lens.tasks) > 1
            first = not any(part.overview for part in made.parts)
            made.add(
                overview=report.overview(lens) if first else [],
                findings=report.findings(lens),
                tables=[
                    *report.tables(lens, shown, vlm),
                    *([tasks.table(lens, context.seed)] if several else []),
                ],
                figures=[
                    *report.figures(lens, shown, vlm),
                    *([tasks.figure(lens)] if several else []),
                ],
            )
        return error

    def _learn(
        self, context: AnalysisContext, reader: Reader, found: Sequence[Group], made: _Found
    ) -> None:
        lenses = [learned.learn(context, reader, group) for group in found]
        learned.keep(context, reader, lenses, self.options.tuned_file)
        made.add(
            findings=[learned.finding(lens) for lens in lenses],
            tables=[learned.table(lens) for lens in lenses],
            figures=[learned.figure(lens) for lens in lenses],
        )

    def _vocabulary(self, context: AnalysisContext, vlm: ModelAdapter, group: Group) -> Vocabulary:
        readout = _readout(vlm)
        row = context.store.read(group.columns[-1], [context.samples[0].id]).numpy()[0]
        return Vocabulary(readout, row)

    def _notes(self, error: float, words: Sequence[Ints]) -> list[str]:
        normed = "the final norm and the unembedding"
        if not self.options.norm:
            normed = "the unembedding, WITHOUT the norm,"
        notes = [
            f"Logit lens (nostalgebraist 2020): {normed} of the model applied to each language "
            "block's output at the stored positions; softmax over the whole vocabulary.",
            "Checked first: the lens at the last block (with the norm) gives the model's own "
            f"logits within {error:.1e} of the largest logit.",
            "The answer is the model's own most probable next token. A label is represented by the "
            "first token that the model would write for it. The settling layer is the first one "
            "from which the answer stays top-1 to the end. Entropy is in nats, and so is the "
            "divergence, KL(final layer || layer). Bands are quartiles.",
            "Early blocks write into a space that the unembedding was not trained on: a token that "
            "is not top-1 there may still be encoded.",
        ]
        if words:
            each = ", ".join(
                f"{word} ({len(tokens)})"
                for word, tokens in zip(self.options.words, words, strict=True)
            )
            notes.append(f"Chosen words, with their number of single-token spellings: {each}.")
        if self.options.tuned:
            notes.append(
                "Tuned lens (Belrose et al. 2023): an affine map per layer, trained on three "
                "fifths of the groups, stopped by a fifth, tested on a fifth; intervals resample "
                "whole groups. All other numbers are of the plain lens."
            )
        return notes

    def _unread(self, context: AnalysisContext) -> list[str]:
        """A note on stored positions that nobody asked to read."""
        if self.options.columns is not None:
            return []
        names = [info.name for info in context.columns()]
        read = {group.name for group in self._groups(names)}
        left = sorted({group.name for group in groups(readable(names))} - read)
        wanted = ",".join(f"llm.block.*/{name}" for name in left)
        return [f"Stored, too, and read with columns=[{wanted}]."] if left else []

    def _groups(self, columns: Sequence[str]) -> list[Group]:
        if self.options.columns is not None:
            return groups(choose(self.options.columns, columns))
        held = readable(columns)
        default = [name for name in held if name.endswith("/last")]
        return groups(default or held or choose(["llm.block.*/last"], columns))

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


def _readout(vlm: ModelAdapter) -> Readout:
    readout = vlm.readout()
    if readout is None:
        raise ReadoutError(
            "The model has no final norm and unembedding to read with.",
            hint="Choose another analysis, or an adapter that offers a readout.",
        )
    return readout


def _final(group: Group, site: str, columns: Sequence[str]) -> str:
    name = group.final(site)
    if name not in columns:
        raise CompositionError(
            f"The logit lens needs the column {name!r}, which holds the model's own answer.",
            subject=name,
            hint=f"Add {name} to --sites.",
        )
    return name


def _progress(context: AnalysisContext, number: int, groups: int) -> Callable[[int], None]:
    total = len(context.samples)
    return lambda done: context.progress(number * total + done, groups * total)


def _label_tokens(scorer: AnswerScorer, samples: Sequence[Sample]) -> Ints:
    """int64 `[n]`: the first token of each label, -1 without one."""
    tokens = [
        -1 if sample.label is None else (scorer.answer_ids(sample.label) or [-1])[0]
        for sample in samples
    ]
    return np.array(tokens, dtype=np.int64)
