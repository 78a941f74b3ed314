"""AnalysisTests: the kit of analyses, on data with a known (planted) truth."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vlmlens.abc.analysis import COLUMNS, Analysis, AnalysisContext
from vlmlens.abc.storage import ColumnBlock, Values
from vlmlens.errors import CompositionError, MissingAnnotation, VlmlensError
from vlmlens.manifest import PluginKind
from vlmlens.registry._target import is_file
from vlmlens.report.files import to_json, write_result
from vlmlens.results import Result, Verdict
from vlmlens.runs.result_files import read_results
from vlmlens.samples import Sample
from vlmlens.testing._checks import CheckFailed, expect, skip
from vlmlens.testing._plugin_checks import PluginChecks
from vlmlens.testing.planting import Planted, Signal, in_columns, in_model

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.abc.analysis import Progress, UnitRunner
    from vlmlens.abc.model_work import JSON, ModelWork, WorkUnit
    from vlmlens.abc.storage import ColumnStore

__all__ = ["AnalysisTests", "Planted"]

_SAID = frozenset({Verdict.ENCODED, Verdict.USES_IMAGE, Verdict.DIFFERS})
_CHECKED_UNITS = 4
_WITHOUT_MODEL = frozenset({"labels", "choices", "images", "activations"})


@dataclass
class _Heard:
    """The progress and warnings of an analysis, and the model work that it asked for."""

    steps: list[tuple[int, int]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    asked: list[tuple[ModelWork, Sequence[WorkUnit]]] = field(default_factory=list)


class AnalysisTests(PluginChecks):
    """The conformance kit of analyses.

    Subclass it as `Test...` and set `manifest`. The data has labels, choices, pictures and groups.
    If the manifest needs a model, the analysis gets a tiny LLaVA and its columns; if not, it must
    not ask for one. `Signal` describes what is planted. Override `planted` if the analysis looks
    for something else, and `claims` if its verdicts express a claim in another way.
    """

    _data: ClassVar[Planted]
    _first_result: ClassVar[Result]
    _second_run: ClassVar[tuple[str, _Heard]]
    _known_work: ClassVar[dict[bytes, JSON]]

    def planted(self, signal: Signal) -> Planted:
        """Data in which the signal is present, absent, or confounded (it only looks present)."""
        needs_model = bool(self.manifest.needs - _WITHOUT_MODEL)
        return in_model(signal) if needs_model else in_columns(signal)

    def claims(self, result: Result) -> bool | None:
        """Whether a result claims that the planted signal is there; None: it cannot be told.

        By default, the verdicts decide: "encoded", "uses the image" and "differs" are claims, and
        "info" alone means that it cannot be told.
        """
        verdicts = {finding.verdict for finding in result.findings}
        return None if verdicts <= {Verdict.INFO} else bool(verdicts & _SAID)

    # ------------------------------------------------------------------ what is planted

    def check_what_is_present_is_found(self, folder: Path) -> None:
        """If the signal is planted, the result says so."""
        claimed = self._claimed("present", folder)
        expect(claimed, "the planted signal is not found")

    def check_what_is_absent_is_not_claimed(self, folder: Path) -> None:
        """If there is no signal, the result does not claim one."""
        claimed = self._claimed("absent", folder)
        expect(not claimed, "it claims a signal that is not there")

    def check_what_is_confounded_is_not_claimed(self, folder: Path) -> None:
        """If a confounder explains everything, the result does not claim the signal."""
        claimed = self._claimed("confounded", folder)
        expect(not claimed, "it claims a signal that the confounder explains")

    # ------------------------------------------------------------------ the result

    def check_result_is_complete(self, folder: Path) -> None:
        """The result has the plugin's name, a title, findings, options, and no empty table.

        Findings and notes are whole sentences on one line. Samples named in findings and tables
        are samples of the run. `options` are the options that the analysis ran with.
        """
        data, result = self._present, self._found(folder)
        expect(isinstance(result, Result), f"`run` gives {type(result).__name__}, no Result")
        name, own = result.analysis, self.manifest.name
        expect(name == own or is_file(own), f"the result is named {name!r}, the plugin {own!r}")
        expect(bool(result.title.strip()), "the result has no title")
        expect(bool(result.findings), "the result has no finding")
        for text in (*(finding.text for finding in result.findings), *result.notes):
            whole = text == text.strip() and text.endswith((".", "!", "?")) and "\n" not in text
            expect(whole, f"{text!r} is not one sentence on one line")
        empty = [table.name for table in result.tables if not len(table)]
        expect(not empty, f"tables without rows: {', '.join(empty)}")
        for kind, named_so in (("tables", result.tables), ("figures", result.figures)):
            names = [each.name for each in named_so]
            expect(len(set(names)) == len(names), f"two {kind} have one name: {sorted(names)}")
        known = {sample.id for sample in data.samples}
        named = {name for finding in result.findings for name in finding.samples}
        for table in result.tables:
            named |= set(map(str, table.columns.get("sample", ())))
        expect(named <= known, f"it names unknown samples: {sorted(named - known)[:3]}")
        ran = self.chosen().model_dump(mode="json")
        said = json.loads(to_json(result))["options"]
        right = said == json.loads(json.dumps(ran))
        how = 'pass options=self.options.model_dump(mode="json") to Result'
        expect(right, f"Result.options is {said}, but it ran with {ran}: {how}")
        for cell in result.overview:
            words = (cell.subject, cell.question, cell.text)
            expect(all(words) and "\n" not in "".join(words), f"{cell} lacks words, or has lines")

    def check_result_survives_json(self, folder: Path) -> None:
        """Writing the result as strict JSON and reading it back gives the same result."""
        result = self._found(folder)
        text = to_json(result)
        json.loads(text, parse_constant=_refuse_constant)
        expect(to_json(Result.from_dict(json.loads(text))) == text, "the result changes in JSON")

    def check_result_can_be_shown(self, folder: Path) -> None:
        """Its tables and figures can be written to files, and the terminal can print it."""
        from rich.console import Console

        from vlmlens.report.terminal import print_results

        result = self._found(folder)
        written = write_result(result, folder / "results")
        pictures = sum(path.suffix == ".svg" for path in written)
        expect(pictures == len(result.figures), f"{pictures} of {len(result.figures)} figures")
        (back,) = read_results(folder / "results")
        expect(to_json(back) == to_json(result), "the written results differ")
        print_results([result], Console(file=io.StringIO(), width=100))

    # ------------------------------------------------------------------ manners

    def check_equal_seeds_give_equal_results(self, folder: Path) -> None:
        """Two runs with the same seed give exactly the same result."""
        first, (second, _) = to_json(self._found(folder)), self._again(folder)
        expect(first == second, "two runs with the same seed differ")

    def check_progress_and_warnings(self, folder: Path) -> None:
        """Progress never goes back, and ends complete. Each warning is given once."""
        _, heard = self._again(folder)
        done = [step for step, _ in heard.steps]
        expect(done == sorted(done), f"progress goes back: {done}")
        expect(all(step <= total for step, total in heard.steps), "more steps than the total")
        if heard.steps:
            last, total = heard.steps[-1]
            expect(last == total, f"it ends after {last} of {total} steps")
        twice = len(set(heard.warnings)) < len(heard.warnings)
        expect(not twice, f"a warning is given twice: {heard.warnings}")

    def check_suitable_data_pass_the_check(self, folder: Path) -> None:
        """`check` accepts what `run` accepts, also while the columns are not known."""
        del folder
        data = self._present
        for columns in (list(data.columns), []):
            self.plugin(self.chosen()).check(data.samples, columns)

    def check_what_it_needs_is_missed(self, folder: Path) -> None:
        """Without labels, choices or pictures: a result, or a `VlmlensError` before the model.

        vlmlens itself checks what the manifest `needs`. `check` has no model; `run` must work with
        everything that `check` accepts.
        """
        data = self._present
        without: dict[str, dict[str, Any]] = {
            "labels": {"label": None}, "choices": {"choices": ()}, "images": {"images": ()},
        }  # fmt: skip
        for what, nothing in without.items():
            if what in self.manifest.needs:
                continue
            samples = [replace(sample, **nothing) for sample in data.samples]
            if self._passes_check(samples, list(data.columns), f"without {what}"):
                self._expect_result_or_error(replace(data, samples=samples), folder, what)

    def check_few_samples(self, folder: Path) -> None:
        """Three samples: a result, or a `VlmlensError`."""
        data = self._present
        self._expect_result_or_error(_first(data, 3), folder, "with three samples")

    def check_values_that_are_not_finite(self, folder: Path) -> None:
        """A column with NaN: a result in strict JSON, or a `VlmlensError`."""
        data = self._present
        if COLUMNS not in self.plugin(self.chosen()).uses(data.samples):
            raise skip(f"{self.manifest.name} uses no columns")
        columns = dict(data.columns)
        name = list(columns)[-1]
        spoilt = columns[name].array.copy()
        spoilt[0] = np.nan
        columns[name] = Values(spoilt, columns[name].dtype, columns[name].lengths)
        self._expect_result_or_error(replace(data, columns=columns), folder, "with NaN")

    def check_model_work_depends_on_its_unit_alone(self, folder: Path) -> None:
        """What it has the model do gives the same in any batch, order and process: `check_work`."""
        from vlmlens.testing.work import check_work

        data = self._present
        if data.model is None:
            raise skip(f"{self.manifest.name} needs no model")
        _, heard = self._again(folder)
        if not heard.asked:
            raise skip(f"{self.manifest.name} hands over no model work")
        for work, units in heard.asked:
            for together in _together(units):
                check_work(data.model(), work, together)

    # ------------------------------------------------------------------ running

    def analyse(
        self,
        data: Planted,
        folder: Path,
        *,
        seed: int = 0,
        heard: _Heard | None = None,
        runner: UnitRunner | None = None,
    ) -> Result:
        """Check and run a new instance on the given data."""
        heard = heard or _Heard()
        analysis: Analysis = self.plugin(self.chosen())
        analysis.check(data.samples, list(data.columns))
        with _stored(data) as store:
            context = AnalysisContext(
                data.samples,
                store,
                data.model or _no_model,
                seed=seed,
                progress=lambda done, total: heard.steps.append((done, total)),
                warn=heard.warnings.append,
                folder=folder,
                runner=runner,
            )
            return analysis.run(context)

    @property
    def _present(self) -> Planted:
        """The data where the signal is present; it is made once for all checks."""
        cls = type(self)
        if "_data" not in vars(cls):
            cls._data = self.planted("present")
        return cls._data

    def _found(self, folder: Path) -> Result:
        """The result where the signal is present; it is computed once for all checks."""
        cls = type(self)
        if "_first_result" not in vars(cls):
            cls._first_result = self.analyse(self._present, folder)
        return cls._first_result

    def _again(self, folder: Path) -> tuple[str, _Heard]:
        """A second run on the same data, once for all checks: its result as JSON, what it said."""
        cls = type(self)
        if "_second_run" not in vars(cls):
            heard = _Heard()
            known = cls._known_work = {}
            result = self.analyse(
                self._present, folder, heard=heard, runner=_runner(self._present, heard, known)
            )
            cls._second_run = to_json(result), heard
        return cls._second_run

    def _claimed(self, signal: Signal, folder: Path) -> bool:
        present = signal == "present"
        result = self._found(folder) if present else self.analyse(self.planted(signal), folder)
        claimed = self.claims(result)
        if claimed is None:
            raise skip(f"{self.manifest.name} makes no claim in its verdicts")
        return claimed

    def _passes_check(self, samples: Sequence[Sample], columns: list[str], what: str) -> bool:
        try:
            self.plugin(self.chosen()).check(samples, columns)
        except (MissingAnnotation, CompositionError):
            return False
        except Exception as error:
            raise CheckFailed(f"{what}, `check` raises {type(error).__name__}: {error}") from error
        return True

    def _expect_result_or_error(self, data: Planted, folder: Path, what: str) -> None:
        """Run on data that differ from the ones where the signal is present, of the same model.

        As in a run, what the model did in the second run there is not done again.
        """
        heard, known = _Heard(), vars(type(self)).get("_known_work", {})
        try:
            result = self.analyse(data, folder, heard=heard, runner=_runner(data, heard, known))
            json.loads(to_json(result), parse_constant=_refuse_constant)
        except (VlmlensError, CheckFailed) as error:
            if isinstance(error, CheckFailed):
                raise
        except Exception as error:
            raise CheckFailed(f"{what}: {type(error).__name__}: {error}") from error


@contextmanager
def _stored(data: Planted) -> Iterator[ColumnStore]:
    """A store with the data's columns, open for reading."""
    import tempfile

    from vlmlens.registry import Registry

    registry = Registry.default()
    manifest = registry.find(PluginKind.STORAGE, "lmdb")
    store: type[ColumnStore] = registry.load(manifest)
    options = registry.options(manifest, {"sync": False})
    ids = tuple(sample.id for sample in data.samples)
    with tempfile.TemporaryDirectory() as folder:
        with store.open(folder, mode="a", options=options) as opened:
            opened.write(ColumnBlock(ids, data.columns))
        with store.open(folder, mode="r", options=options) as opened:
            yield opened


def _runner(data: Planted, heard: _Heard, known: dict[bytes, JSON]) -> UnitRunner | None:
    """Runs units here, but those whose results are known, and notes them; None without a model."""
    from vlmlens.abc.unit_batches import run_here

    model, warn = data.model, heard.warnings.append
    if model is None:
        return None

    def run(work: ModelWork, units: Sequence[WorkUnit], progress: Progress) -> list[JSON]:
        heard.asked.append((work, units))
        return run_here(model(), work, units, 16, warn=warn, progress=progress, known=known)

    return run


def _first(data: Planted, count: int) -> Planted:
    columns = {name: values.take(range(count)) for name, values in data.columns.items()}
    return Planted(data.samples[:count], columns, data.model)


def _no_model() -> ModelAdapter:
    raise CheckFailed("it asks for the model, but its manifest does not need one")


def _together(units: Sequence[WorkUnit]) -> Iterator[list[WorkUnit]]:
    """Some units that may be in one batch: the first ones, and the last ones if they differ."""
    for batch in dict.fromkeys((units[0].batch, units[-1].batch)):
        group = [unit for unit in units if unit.batch == batch][:_CHECKED_UNITS]
        if len(group) > 1:
            yield group


def _refuse_constant(name: str) -> None:
    raise CheckFailed(f"the result's JSON holds {name}")
