"""The kinds "lens", "attention" and "occlusion": installed analyses, run on one question."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens.compose.plan import compose
from vlmlens.report._markup import join
from vlmlens.report._pictures import Pictures
from vlmlens.report._sections import analysis as drawn
from vlmlens.runner.execution import execute
from vlmlens.sample_table import SampleTable
from vlmlens.view.live.commands import run_commands
from vlmlens.view.live.edits import opened

if TYPE_CHECKING:
    from vlmlens.results import Result
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
    """

    analysis: str
    options: Mapping[str, Any]
    sites: tuple[str, ...] = ()


VIEWS: Mapping[str, View] = {
    "lens": View("logit-lens", {"positions": ["image"]}, ("llm.block.*/last",)),
    "attention": View("attention", {"source": "model", "maps": 1}),
    "occlusion": View(
        "occlusion", {"methods": ["occlusion"], "grid": 8, "window": 2, "only_right": False}
    ),
}


def show(name: str, model: LiveModel, question: LiveQuestion, step: Step) -> dict[str, Any]:
    """Run an analysis on a question, with its covers and edits, and draw what it found."""
    view, vlm = VIEWS[name], model.load()
    sample = model.sample(question, changed=True)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="vlmlens-live-"))
        stack.enter_context(vlm.edited(opened(model, question.edits), others=[sample]))
        result = _result(model, view, sample, Path(folder) / "run", step)
    pictures = Pictures(SampleTable.of([sample]))
    figures = drawn(result, f"live-{name}", None, pictures, [sample])
    return {
        "html": join([figures, pictures.block()]),
        "said": [*(finding.text for finding in result.findings), *result.warnings],
        "commands": run_commands(model, question, view.analysis, view.options, view.sites),
    }


KINDS: Mapping[str, Answering] = {name: partial(show, name) for name in VIEWS}
"""By kind, what answers it."""


def _result(model: LiveModel, view: View, sample: Sample, folder: Path, step: Step) -> Result:
    """Run the analysis in a folder of its own, with the model that is loaded already."""
    spec = model.spec.model_copy(
        update={
            "analysis": {view.analysis: dict(view.options)},
            "sites": list(view.sites),
            "edits": [],
            "out": str(folder),
        }
    )
    told = Told(step)
    plan = compose(spec, model.registry, observer=told, data=[sample])
    run = execute(replace(plan, load=model.load), observer=told)
    return run.results[view.analysis]


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
