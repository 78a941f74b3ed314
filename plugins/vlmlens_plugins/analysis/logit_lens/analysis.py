"""The logit lens over stored columns.

nostalgebraist, "interpreting GPT: the logit lens" (2020): the final norm and the unembedding are
applied to every block's output, as if the model stopped there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options, Readout
from vlmlens.errors import CompositionError, MissingAnnotation, ReadoutError, did_you_mean
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens.tokens import TokenKind
from vlmlens_plugins.analysis._columns import choose
from vlmlens_plugins.analysis._label_tokens import LabelTokens, label_tokens
from vlmlens_plugins.analysis._scoring import AnswerScorer
from vlmlens_plugins.analysis.logit_lens import fresh_positions, report, several_report, tuned_gain
from vlmlens_plugins.analysis.logit_lens.figures import figures
from vlmlens_plugins.analysis.logit_lens.model_check import check_rows
from vlmlens_plugins.analysis.logit_lens.options import LensOptions
from vlmlens_plugins.analysis.logit_lens.positions import (
    Group,
    first_with_rows,
    groups,
    nothing_finite,
    readable,
    stream,
)
from vlmlens_plugins.analysis.logit_lens.readings import Reader
from vlmlens_plugins.analysis.logit_lens.several_positions import read_several
from vlmlens_plugins.analysis.logit_lens.single_position import Lens, finite_lens, read_single
from vlmlens_plugins.analysis.logit_lens.tables import tables
from vlmlens_plugins.analysis.logit_lens.vocabulary import Vocabulary
from vlmlens_plugins.analysis.logit_lens.words import spellings

_CHECKED = 4


class LogitLens(Analysis):
    """Reads every language block's output with the model's own final norm and unembedding."""

    Options: ClassVar[type[Options]] = LensOptions
    options: LensOptions

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`."""
        self._shown(samples)
        if self.options.tuned:
            tuned_gain.check_groups(samples)
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

    def cost(self, skeleton: ModelAdapter, samples: Sequence[Sample]) -> str:
        """See `Analysis.cost`: which positions the family does not have, so that none are shown."""
        asked = [samples[i] for i in sorted(self._shown(samples))]
        known = ((n, fresh_positions.shown(n, skeleton, asked, 1)[1]) for n in self._positions)
        return " ".join(_not_shown(name, why) for name, why in known if why).rstrip(".")

    @property
    def _positions(self) -> list[str]:
        return list(dict.fromkeys(self.options.positions))

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
        labels = label_tokens(AnswerScorer(vlm).answer_ids, context.samples)
        parts, errors = [], []
        for number, group in enumerate(found):
            progress = _progress(context, number, len(found))
            part, error = self._read(context, vlm, reader, group, labels, progress)
            parts.append(part)
            errors.append(error)
        if self.options.tuned:
            parts.append(self._learn(context, reader, found))
        fresh = self._fresh(context, vlm, reader, found)
        parts = [*fresh, *parts]
        notes = report.notes(self.options, max(errors), reader.words)
        if any(part.figures for part in fresh):
            notes.append(fresh_positions.NOTE)
        return Result(
            analysis="logit-lens",
            title="Where the answer forms",
            findings=[each for part in parts for each in part.findings],
            tables=[each for part in parts for each in part.tables],
            figures=[each for part in parts for each in part.figures],
            options=self.options.model_dump(mode="json"),
            notes=[*notes, *self._unread(context)],
            overview=next((part.overview for part in parts if part.overview), ()),
        )

    def _fresh(
        self, context: AnalysisContext, vlm: ModelAdapter, reader: Reader, found: Sequence[Group]
    ) -> list[Result]:
        """Figures of positions that are asked for and not stored; on the page they come first."""
        asked = [context.samples[i] for i in sorted(self._shown(context.samples))]
        sites = [name.partition("/")[0] for name in found[0].columns]
        stored = {group.name for group in found}
        parts = []
        for name in self._positions:
            if name not in stored:
                shown, why = fresh_positions.shown(name, vlm, asked)
                if why:
                    context.warn(_not_shown(name, why))
                words = self.options.words
                parts.append(fresh_positions.part(name, sites, vlm, reader, shown, words))
        return parts

    def _read(
        self,
        context: AnalysisContext,
        vlm: ModelAdapter,
        reader: Reader,
        group: Group,
        labels: LabelTokens,
        progress: Callable[[int], None],
    ) -> tuple[Result, float]:
        """What a group's columns tell, and the error of the check."""
        final = _final(
            group, reader.vocabulary.readout.site, [info.name for info in context.columns()]
        )
        ids = [sample.id for sample in context.samples]
        checked = first_with_rows(context.store, final, ids, _CHECKED)
        if not checked:
            raise nothing_finite(group)
        some = [context.samples[i] for i in checked]
        stored = context.store.read(final, [sample.id for sample in some])
        error = check_rows(vlm, reader.vocabulary, group.selector, some, stored)
        same = group.columns.index(final) if final in group.columns else None
        rows = stream(context.store, group, final, ids, self.options.chunk)
        shown = self._shown(context.samples)
        if stored.ragged:
            many = read_several(
                reader, group, context.samples, rows,
                labels.tokens if group.selector.kind == TokenKind.IMAGE else None,
                self.options.words, same=same, shown=set(shown), progress=progress,
            )  # fmt: skip
            self._say_left_out(context, group, many.left_out)
            return several_report.part(many, vlm), error
        readings, complete = read_single(
            reader, rows, labels.tokens, same=same, shown=set(shown), progress=progress
        )
        k = min(self.options.k, reader.vocabulary.size)
        words = tuple(self.options.words)
        lens, kept = finite_lens(Lens(group, context.samples, readings, complete, k, words, labels))
        self._say_left_out(context, group, len(ids) - len(kept))
        place = {number: i for i, number in enumerate(kept)}
        shown = [place[number] for number in shown if number in place]
        part = Result(
            "",
            "",
            findings=report.findings(lens),
            tables=tables(lens, shown, vlm, context.seed),
            figures=figures(lens, shown, vlm),
            overview=report.overview(lens),
        )
        return part, error

    def _say_left_out(self, context: AnalysisContext, group: Group, count: int) -> None:
        if count:
            context.warn(
                f"{group.name}: {count:,} of {len(context.samples):,} samples are left out: they "
                "have no such position, or numbers that are not finite."
            )

    def _learn(self, context: AnalysisContext, reader: Reader, found: Sequence[Group]) -> Result:
        lenses = [tuned_gain.learn(context, reader, group) for group in found]
        tuned_gain.keep(context, reader, lenses, self.options.tuned_file)
        return Result(
            "",
            "",
            findings=[tuned_gain.finding(lens) for lens in lenses],
            tables=[tuned_gain.table(lens) for lens in lenses],
            figures=[tuned_gain.figure(lens) for lens in lenses],
        )

    def _vocabulary(self, context: AnalysisContext, vlm: ModelAdapter, group: Group) -> Vocabulary:
        readout = _readout(vlm)
        ids = [sample.id for sample in context.samples]
        for number in first_with_rows(context.store, group.columns[-1], ids, 1):
            row = context.store.read(group.columns[-1], [ids[number]]).numpy()[0]
            return Vocabulary(readout, row)
        raise nothing_finite(group)

    def _unread(self, context: AnalysisContext) -> list[str]:
        """A note on stored positions that nobody asked to read."""
        if self.options.columns is not None:
            return []
        names = [info.name for info in context.columns()]
        read = {group.name for group in self._groups(names)}
        left = sorted({group.name for group in groups(readable(names))} - read)
        wanted = ",".join(f"llm.block.*/{name}" for name in left)
        return [f"Also stored, and read with columns=[{wanted}]."] if left else []

    def _groups(self, columns: Sequence[str]) -> list[Group]:
        if self.options.columns is not None:
            return groups(choose(self.options.columns, columns))
        held = readable(columns)
        last = [name for name in held if name.endswith("/last")]
        over_image = [name for name in held if name.endswith("/image")]
        if last and last[-1].replace("/last", "/image") in over_image:
            last += over_image
        return groups(last or held or choose(["llm.block.*/last"], columns))

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


def _not_shown(name: str, why: str) -> str:
    return f"the {name} positions are not shown where there are none: {why}"


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
