"""The probe: what can be read from each stored column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from vlmlens.abc import Analysis, AnalysisContext, Options
from vlmlens.errors import CompositionError, MissingAnnotation, did_you_mean
from vlmlens.hf.load_options import pick_device
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._columns import choose, in_order, is_ragged
from vlmlens_plugins.analysis.probe import report
from vlmlens_plugins.analysis.probe.column_evaluation import check_columns, notes_on_blocks
from vlmlens_plugins.analysis.probe.export import export
from vlmlens_plugins.analysis.probe.features import Features
from vlmlens_plugins.analysis.probe.figures import figures
from vlmlens_plugins.analysis.probe.model_answers import model_answers
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.prober import Probed, Prober
from vlmlens_plugins.analysis.probe.stored_columns import Columns, OtherRun
from vlmlens_plugins.analysis.probe.tables import tables
from vlmlens_plugins.analysis.probe.targets import Target, find_targets, joined

_PARTS = 20
"""Steps of the progress for each column and target."""


class Probe(Analysis):
    """Probes on every column, against controls, the majority, and shortcuts.

    The verdict rests on the gap between the probe and the best of its baselines, on its interval,
    and on a corrected permutation p-value; see `scores.judge`.
    """

    Options: ClassVar[type[Options]] = ProbeOptions
    options: ProbeOptions

    def needs(self) -> frozenset[str]:
        """See `Analysis.needs`."""
        return frozenset({"answers"} if self.options.answers == "ask" else ())

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`."""
        self._check_names(samples)
        self._targets(samples)
        if columns:
            self._columns({name: is_ragged(name) for name in columns})

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        warner = Warner(context)
        targets, warnings = self._targets(context.samples)
        for message in warnings:
            warner.warn(message)
        answers, source = model_answers(context, self.options.answers)
        names = self._columns({info.name: info.ragged for info in context.columns()})
        with OtherRun.opened(self.options.test_on) as other:
            if other is not None:
                targets = [joined(target, other.samples) for target in targets]
                names = other.shared(names)
            columns = Columns(context.store, other)
            for target in targets:
                check_columns(names, columns, len(target.y), self.options)
            steps = len(targets) * len(names)
            prober = Prober(
                self.options,
                columns,
                context.seed,
                self._device(),
                Features(warner.warn),
                answers,
                context.folder,
                self.options.learning_curve or context.drawn_from is not None,
            )
            probed = []
            for i, target in enumerate(targets):

                def advance(done: float, before: int = i * len(names)) -> None:
                    context.progress(int(_PARTS * (before + done)), _PARTS * steps)

                probed.append(prober.probe(target, names, warner.warn, advance))
            most = max(len(target.y) for target in targets)
            blocks = notes_on_blocks(names, columns, most, self.options)
            written = self._export(probed, prober)
        return Result(
            analysis="probe",
            title="What each layer encodes",
            findings=report.findings(probed, self.options),
            tables=tables(probed),
            figures=figures(probed),
            options=self.options.model_dump(mode="json"),
            notes=[
                *report.notes(self.options, probed),
                *blocks,
                *([source] if source else []),
                *written,
            ],
            warnings=warner.messages,
            overview=report.overview(probed),
        )

    def _export(self, probed: Sequence[Probed], prober: Prober) -> list[str]:
        if self.options.export is None:
            return []
        return [export(item, prober, self.options) for item in probed]

    def _targets(self, samples: Sequence[Sample]) -> tuple[list[Target], list[str]]:
        return find_targets(
            self.options.targets,
            samples,
            folds=self.options.folds,
            min_per_class=self.options.min_per_class,
            numbers=self.options.model == "ridge",
        )

    def _check_names(self, samples: Sequence[Sample]) -> None:
        options = self.options
        if options.split == "value" and options.hold_out is None:
            raise MissingAnnotation(
                "split=value needs the attribute whose values are held out.",
                subject="hold_out",
                hint="Set hold_out to an attribute (shape), or to several (shape+color).",
            )
        named = [] if options.hold_out is None else options.hold_out.split("+")
        if options.types not in (None, "group"):
            named.append(str(options.types))
        known = sorted({key for sample in samples for key in sample.attributes})
        for name in named:
            if name not in known:
                raise MissingAnnotation(
                    f"No sample has an attribute {name!r}.",
                    subject=name,
                    hint=did_you_mean(name, known) or f"Known: {', '.join(known) or 'none'}.",
                )

    def _columns(self, ragged: dict[str, bool]) -> list[str]:
        """The columns to probe, which have one row per sample."""
        chosen = choose(self.options.columns, list(ragged))
        flat = [name for name in chosen if not ragged[name]]
        if not flat:
            subject = next(iter(chosen), None)
            raise CompositionError(
                "The probe needs a column with one row per sample; "
                + (f"{subject!r} has several." if subject else "no column is stored."),
                subject=subject,
                hint="Pool it or pick a token, for example image.mean or last.",
            )
        return in_order(flat)

    def _device(self) -> torch.device:
        if self.options.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return pick_device(self.options.device)


class Warner:
    """Tells the user once, and keeps what was told for the result."""

    def __init__(self, context: AnalysisContext) -> None:
        self._context = context
        self.messages: list[str] = []

    def warn(self, message: str) -> None:
        """Tell it, unless it was told."""
        if message not in self.messages:
            self.messages.append(message)
            self._context.warn(message)
