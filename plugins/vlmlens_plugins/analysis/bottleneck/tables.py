"""Tables and figures of bottlenecks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlmlens.results import Cell, Figure, Series, Table
from vlmlens_plugins.analysis._estimates import Estimate
from vlmlens_plugins.analysis._results import slug, table
from vlmlens_plugins.analysis._sweeps.scores import number
from vlmlens_plugins.analysis.bottleneck.asked import Case
from vlmlens_plugins.analysis.bottleneck.causes import Attributed, Cause
from vlmlens_plugins.analysis.bottleneck.charts import Bottlenecks
from vlmlens_plugins.analysis.bottleneck.measured import CONDITIONS, Measured
from vlmlens_plugins.analysis.bottleneck.options import BLIND
from vlmlens_plugins.analysis.bottleneck.reading import Question, StageRead


def tables(found: Sequence[Measured], charts: Mapping[str, Sequence[Bottlenecks]]) -> list[Table]:
    """Causes by task; conditions; stages of each question; samples; the bottlenecks of charts."""
    made = [
        table("bottleneck-tasks", "Tasks", [_task(one) for one in found], ["task"]),
        table(
            "bottleneck-causes",
            "Where errors come from (shares of the task's errors)",
            [_cause(one, cause) for one in found for cause in one.shares],
            ["task", "cause"],
        ),
        table(
            "bottleneck-conditions",
            "Answers under each condition",
            [
                {
                    "task": one.task,
                    "condition": each.name,
                    "samples": each.samples,
                    **interval("right", each.right),
                    **interval("mends", each.mends),
                    **interval("breaks", each.breaks),
                }
                for one in found
                for each in one.conditions
            ],
            ["task", "condition"],
        ),
        table(
            "bottleneck-stages",
            "What probes read of the fact at each stage",
            [
                _stage(one.task, question, read)
                for one in found
                for question in one.questions
                for read in (question.stages or {}).values()
            ],
            ["task", "question", "stage"],
        ),
        table(
            "bottleneck-samples",
            "Answers under each condition, and the cause of each error",
            [
                _sample(one.task, case, each)
                for one in found
                for case, each in zip(one.cases, one.found, strict=True)
            ],
        ),
        table(
            "bottleneck-charts",
            "What the representation lacks, and what is not taken out of it",
            [_chart(task, each) for task, own in charts.items() for each in own],
            ["task", "question"],
        ),
    ]
    return [each for each in made if len(each)]


def figures(found: Sequence[Measured]) -> list[Figure]:
    """Shares of causes over tasks; and what is readable, stage by stage, of the asked questions."""
    failed = [one for one in found if one.shares]
    made = [_causes(failed)] if failed else []
    return made + [_path(one) for one in found if any(each.stages for each in one.questions)]


def interval(name: str, found: Estimate) -> dict[str, Cell]:
    """A number with the ends of its interval."""
    low, high = number(found.low), number(found.high)
    return {name: number(found.value), f"{name}_low": low, f"{name}_high": high}


def _task(one: Measured) -> dict[str, Cell]:
    text = one.understood
    return {
        "task": one.task,
        "samples": len(one.cases),
        "errors": one.errors,
        "always_right": one.always_right,
        "always_wrong": one.always_wrong,
        "cause": None if one.main is None else one.main.value,
        **interval("errors_as_blind", one.repeats_blind),
        **interval("right_as_blind", one.right_blind),
        "text_understood": text.understood,
        **interval("text_use", text.use),
        "text_shown_by": text.source.value,
        "text_samples": text.samples,
    }


def _cause(one: Measured, cause: Cause) -> dict[str, Cell]:
    control = one.lost_when_right.get(cause)
    return {
        "task": one.task,
        "cause": cause.value,
        "errors": sum(each is not None and each.cause is cause for each in one.found),
        **interval("share", one.shares[cause]),
        "same_of_right_answers": None if control is None else number(control.value),
    }


def _stage(task: str, question: Question, read: StageRead) -> dict[str, Cell]:
    return {
        "task": task,
        "question": question.name,
        "stage": read.stage,
        "site": read.site,
        "status": read.status.value,
        "samples": len(question.probed),
        **interval("accuracy", read.accuracy),
        "guessing": number(read.base),
        **interval("skill", read.skill),
        "p": number(read.p),
    }


def _sample(task: str, case: Case, found: Attributed | None) -> dict[str, Cell]:
    texts = {name: case.answers.get(name) for name in CONDITIONS}
    return {
        "sample": case.sample.id,
        "task": task,
        "label": case.sample.label,
        **{name: None if one is None else one.text for name, one in texts.items()},
        "right_under": ", ".join(n for n, one in texts.items() if one and one.right) or None,
        "as_blind": case.repeats_blind if BLIND in case.answers else None,
        "cause": None if found is None else found.cause.value,
        "detail": None if found is None else found.detail or None,
    }


def _chart(task: str, one: Bottlenecks) -> dict[str, Cell]:
    return {
        "task": task,
        "question": one.question,
        "samples": one.samples,
        "measured_by": one.measure,
        **interval("held", one.held),
        **interval("answered", one.answered),
        **interval("encoder_bottleneck", one.encoder),
        **interval("extraction_bottleneck", one.extraction),
        **interval("probe", one.probe),
    }


def _causes(found: Sequence[Measured]) -> Figure:
    kept = [cause for cause in Cause if any(one.shares[cause].value > 0 for one in found)]
    return Figure(
        "bottleneck",
        "Where errors come from",
        "bar",
        x=[one.task for one in found],
        x_label="task",
        y_label="share of the errors",
        series=[
            Series(
                cause.value,
                [number(one.shares[cause].value) for one in found],
                [number(one.shares[cause].low) for one in found],
                [number(one.shares[cause].high) for one in found],
            )
            for cause in kept
        ],
        y_range=(0.0, 1.0),
    )


def _path(one: Measured) -> Figure:
    """The accuracy of the best probe of each stage, for the question with the most samples."""
    probed = [each for each in one.questions if each.stages]
    question = max(probed, key=lambda each: len(each.probed))
    reads = list((question.stages or {}).values())
    asked = f" ({question.name})" if len(probed) > 1 else ""
    return Figure(
        slug(f"bottleneck stages {one.task}"),
        f"{one.task}: what probes read of the fact on its way to the answer{asked}",
        "line",
        x=[read.stage for read in reads],
        x_label="stage",
        y_label="accuracy",
        series=[
            Series(
                "probe",
                [number(read.accuracy.value) for read in reads],
                [number(read.accuracy.low) for read in reads],
                [number(read.accuracy.high) for read in reads],
            ),
            Series("guessing", [number(read.base) for read in reads], dashed=True),
        ],
        y_range=(0.0, 1.0),
    )
