"""The analysis: SAEs of some columns, made or opened, judged, shown, and tried out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options
from vlmlens.errors import CompositionError, MissingAnnotation, SpecError, did_you_mean
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._sweeps.sweeping import heard
from vlmlens_plugins.analysis.sae import report
from vlmlens_plugins.analysis.sae.held import split
from vlmlens_plugins.analysis.sae.options import SaeOptions
from vlmlens_plugins.analysis.sae.pages import Explainer, asked_for
from vlmlens_plugins.analysis.sae.places import Place, check_options, check_rows, places
from vlmlens_plugins.analysis.sae.reading import Reading
from vlmlens_plugins.analysis.sae.sources import embedded_by
from vlmlens_plugins.sae import check_belongs, open_kept
from vlmlens_plugins.sae.training import device_of


class SaeAnalysis(Analysis):
    """SAEs of columns, held against what nobody trained, feature by feature."""

    Options: ClassVar[type[Options]] = SaeOptions
    options: SaeOptions

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`."""
        check_options(self.options)
        if self.options.model == "off" and self.options.source == "model":
            raise SpecError(
                "source=model runs the model, and model=off forbids it.",
                subject="model",
                hint="Leave one of them out.",
            )
        groups = {sample.split_group for sample in samples}
        if len(groups) < 2:
            raise MissingAnnotation(
                f"An SAE is judged on other samples than it learns from, and there is "
                f"{len(groups)} group of samples.",
                subject="samples",
                hint="Give more pictures or prompts. By default samples on one image are a group.",
            )
        known = sorted({name for sample in samples for name in sample.attributes})
        for name in self.options.by:
            if name != "label" and name not in known:
                raise MissingAnnotation(
                    f"No sample has an attribute {name!r}.",
                    subject=name,
                    hint=did_you_mean(name, known) or f"Known: {', '.join(known) or 'none'}.",
                )
        device_of(self.options.device)
        self._check_features()
        if self.options.embeddings is not None:
            check_rows(self.options.embeddings, "embeddings")
        if self.options.explainer is not None:
            Explainer.load(self.options.explainer)
        if columns and self.options.source == "store":
            self._places(None, columns)

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """See `Analysis.check_model`."""
        vlm = None if self.options.model == "off" else skeleton
        embedded_by(self.options.embeddings, vlm, columns)
        for place in self._places(vlm, columns) if vlm is not None or columns else ():
            for name in place.columns:
                split(samples, name, self.options.held_out, 0)

    def cost(self, skeleton: ModelAdapter, samples: Sequence[Sample]) -> str:
        """See `Analysis.cost`."""
        found = [] if self.options.model == "off" else self._places(skeleton, ())
        some = {
            number
            for place in found
            if not place.stored
            for number in split(samples, place.column, self.options.held_out, 0).alike
        }
        return f"{len(some):,} samples through the model for rows" if some else ""

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        self.check(context.samples, ())
        told, warnings = heard(context)
        with _folder(context) as folder:
            found = self._result(told, folder)
        return replace(found, warnings=warnings)

    def _result(self, context: AnalysisContext, folder: Path) -> Result:
        vlm = self._model(context)
        stored = [info.name for info in context.columns()]
        there = self._places(vlm, stored, context.store.get_meta().get("fingerprint"))
        reading = Reading(context, vlm, there, self.options, folder)
        for place in there:
            reading.check(place)
        found = [reading.at(place) for place in there]
        for warning in filter(None, map(report.few_rows, found)):
            context.warn(warning)
        return Result(
            analysis="sae",
            title="Sparse autoencoders",
            findings=report.findings(found),
            tables=report.tables(found),
            figures=report.figures(found),
            options=self.options.model_dump(mode="json"),
            notes=report.notes(found, self.options),
            overview=report.overview(found),
        )

    def _model(self, context: AnalysisContext) -> ModelAdapter | None:
        """The model; None, which is said, where there is none or it is not wanted."""
        if self.options.model == "off":
            context.warn("The model was not asked what rows stand for, since model=off.")
            return None
        try:
            return context.model()
        except CompositionError as error:
            context.warn(
                f"Nothing is asked of the model, so it is not known what rows stand for: "
                f"{error.message}"
            )
            return None

    def _check_features(self) -> None:
        """Raise an error for features that the SAE that is shown is known not to have."""
        options, asked = self.options, self.options.features or ()
        if self._files() and options.file:
            asked_for(asked, open_kept(options.file[0]).features)
        elif options.width and not options.width[0].endswith("x"):
            asked_for(asked, int(options.width[0]))

    def _files(self) -> dict[str, str]:
        """The files that the options name, each with the column that it knows, or ""."""
        return {file: open_kept(file).about.column for file in self.options.file or ()}

    def _places(
        self,
        vlm: ModelAdapter | None,
        stored: Sequence[str],
        store_of: Mapping[str, Any] | None = None,
    ) -> list[Place]:
        """The places; `store_of` is what tells the model whose rows are stored."""
        options = self.options
        files = self._files()
        if files and options.column is None:
            known = sorted(set(files.values()))
            if known == [""] or not known:
                raise SpecError(
                    "The SAE does not say which column it belongs to.",
                    subject="column",
                    hint="Name it with `column`: SITE/SELECTOR.",
                )
            options = options.model_copy(update={"column": tuple(filter(None, known))})
        found = places(options, vlm, stored)
        for file in files:
            self._check_file(file, found, store_of if vlm is None else vlm.describe())
        columns = {place.column for place in found}
        for column in columns if files else ():
            if all(known in columns - {column} for known in files.values()):
                raise SpecError(
                    f"No SAE of `file` belongs to {column!r}.",
                    subject=column,
                    hint="Leave the column out, or name an SAE that was trained there.",
                )
        return found

    def _check_file(
        self, file: str, found: Sequence[Place], model: Mapping[str, Any] | None
    ) -> None:
        sae = open_kept(file)
        if sae.about.scales or sae.about.target:
            raise SpecError(
                f"{file!r} is a crosscoder or transcoder; only those just trained are judged.",
                subject=file,
                hint="Train it again with `join` or `target`.",
            )
        fits = [place for place in found if sae.about.column in ("", place.column)]
        for place in fits or found:
            site, _, selector = place.column.partition("/")
            check_belongs(
                sae, model=model or sae.about.model, site=site, selector=selector,
                width=sae.inputs, anyway=self.options.anyway,
            )  # fmt: skip


@contextmanager
def _folder(context: AnalysisContext) -> Iterator[Path]:
    """The folder of the results, or one for the time being."""
    if context.folder is not None:
        context.folder.mkdir(parents=True, exist_ok=True)
        yield context.folder
        return
    with TemporaryDirectory(prefix="vlmlens-sae-") as name:
        yield Path(name)
