"""The kinds "lens", "attention" and "occlusion": installed analyses, run on one question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from vlmlens.abc.analysis import AnalysisContext
from vlmlens.compose.looking import ANALYSIS as LOOK
from vlmlens.compose.plan import compose
from vlmlens.report._figure import draw_figures
from vlmlens.report._markup import Markup, join
from vlmlens.report._pictures import Pictures
from vlmlens.report._sections import analysis as drawn
from vlmlens.runner.execution import execute
from vlmlens.sample_table import SampleTable
from vlmlens.view.live.commands import Commands, look_commands, names_regions, run_commands
from vlmlens.view.live.edits import opened

if TYPE_CHECKING:
    from vlmlens.results import Finding, Result
    from vlmlens.samples import Sample
    from vlmlens.view.live.model import Answering, LiveModel, Step
    from vlmlens.view.live.question import LiveQuestion


@dataclass(frozen=True)
class View:
    """What is run for a kind.

    Args:
        analysis: The analysis.
        options: Its options.
        sites: Columns that it reads.
        figures: Names of the figures that are shown, without tables; none: everything is.
    """

    analysis: str
    options: Mapping[str, Any] = field(default_factory=dict)
    sites: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()


VIEWS: Mapping[str, View] = {
    "look": View(LOOK),
    "lens": View("logit-lens", {"positions": ["image"]}, ("llm.block.*/last",)),
    "attention": View("attention", {"source": "model", "maps": 1}),
    "occlusion": View(LOOK, figures=("look-map",)),
}


def show(name: str, model: LiveModel, question: LiveQuestion, step: Step) -> dict[str, Any]:
    """Run an analysis on a question, with its covers and edits, and draw what it found."""
    view, vlm = VIEWS[name], model.load()
    sample = model.sample(question, changed=True)
    if not names_regions([*model.spec.edits, *question.edits]):
        sample = replace(sample, attributes={})  # the question may be about another region
    if view.analysis != LOOK:
        sample = replace(sample, choices=())
    with (
        TemporaryDirectory(dir=model.folder, ignore_cleanup_errors=True) as folder,
        vlm.edited(opened(model, question.edits), others=[sample]),
    ):
        result = _result(model, view, sample, Path(folder) / "run", step)
    pictures = Pictures(SampleTable.of([sample]))
    return {
        "html": join([_drawn(result, view, name, pictures, sample), pictures.block()]),
        "said": [*map(_sentence, result.findings), *result.warnings],
        "commands": _commands(model, question, view),
    }


def _drawn(result: Result, view: View, name: str, pictures: Pictures, sample: Sample) -> Markup:
    if not view.figures:
        return drawn(result, f"live-{name}", None, pictures, [sample])
    shown = [figure for figure in result.figures if figure.name in view.figures]
    return draw_figures(shown, None, f"live-{name}", pictures)


def _sentence(finding: Finding) -> str:
    """What was found; of which sample is known, since there is one."""
    text = finding.text
    for subject in (finding.subject, "all samples"):
        text = text.removeprefix(f"{subject}: ")
    return text[:1].upper() + text[1:]


def _commands(model: LiveModel, question: LiveQuestion, view: View) -> Commands:
    if view.analysis == LOOK:
        return look_commands(model, question)
    return run_commands(model, question, view.analysis, view.options, view.sites)


KINDS: Mapping[str, Answering] = {name: partial(show, name) for name in VIEWS}
"""By kind, what answers it."""


def _result(model: LiveModel, view: View, sample: Sample, folder: Path, step: Step) -> Result:
    """Run the analysis with the model that is loaded already, in a folder of its own.

    A run would also write figures for papers and a report, which take most of its time.
    """
    spec = model.spec.model_copy(
        update={
            "analysis": {view.analysis: dict(view.options)},
            "sites": list(view.sites),
            "edits": [],
            "out": str(folder),
        }
    )
    told, load = Told(step), cache(model.load)
    load()
    plan = compose(spec, model.registry, observer=told, data=[sample])
    run = execute(replace(plan, load=load), observer=told, extract_only=True)
    (analysis,) = plan.analyses.values()
    warnings: list[str] = []
    with run.store() as store:
        context = AnalysisContext(
            samples=run.samples,
            store=store,
            model=load,
            batch_size=spec.samples_at_once,
            seed=spec.seed,
            progress=step,
            warn=warnings.append,
        )
        result = analysis.run(context)
    return replace(result, warnings=list(dict.fromkeys([*result.warnings, *warnings])))


class Told:
    """An observer that tells how far a job is, and so ends one that was cancelled.

    Args:
        step: Called between passes.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._total: int | None = None

    def stage(self, name: str, total: int | None) -> None:
        """See `Observer.stage`."""
        del name
        self._total = total
        self._step(0, total)

    def advance(self, done: int) -> None:
        """See `Observer.advance`."""
        self._step(done, self._total)

    def note(self, message: str) -> None:
        """Ignored."""

    def warn(self, message: str) -> None:
        """Ignored: warnings are part of the result."""

    def result(self, result: Result) -> None:
        """Ignored."""
