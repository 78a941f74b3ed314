"""What was found of errors: sentences, notes, cells of the overview."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vlmlens._display import count
from vlmlens.results import Cell, Finding, Glance, Result, Verdict
from vlmlens_plugins.analysis._estimates import Estimate
from vlmlens_plugins.analysis._sweeps.scores import number
from vlmlens_plugins.analysis.bottleneck.calibration import Understood
from vlmlens_plugins.analysis.bottleneck.causes import NOT_CARRIED, NOT_SAID, Cause
from vlmlens_plugins.analysis.bottleneck.charts import Bottlenecks
from vlmlens_plugins.analysis.bottleneck.measured import Condition, Measured
from vlmlens_plugins.analysis.bottleneck.options import BLIND, IMAGE, BottleneckOptions
from vlmlens_plugins.analysis.bottleneck.tables import figures, tables
from vlmlens_plugins.analysis.bottleneck.tuning import report as tuned
from vlmlens_plugins.analysis.bottleneck.tuning.closing import Closing
from vlmlens_plugins.analysis.bottleneck.tuning.words import percent, with_ends


def report(
    found: Sequence[Measured],
    charts: Mapping[str, Sequence[Bottlenecks]],
    closed: Closing | None,
    options: BottleneckOptions,
    warnings: Sequence[str],
) -> Result:
    """The result.

    Args:
        found: By task.
        charts: By task, what the representation lacks; empty where it was not asked for.
        closed: What tuning each component says; None where it was not asked for.
        options: The analysis's options.
        warnings: What was said on the way.
    """
    of_tuning = [] if closed is None else [closed]
    findings = [each for one in of_tuning for each in tuned.findings(one)]
    findings += [_headline(one) for one in found]
    findings += [each for one in found for each in _beside(one)]
    findings += [_chart(task, each) for task, own in charts.items() for each in own]
    return Result(
        analysis="bottleneck",
        title="Where errors come from" if closed is None else "Where is the bottleneck?",
        findings=findings,
        tables=[each for one in of_tuning for each in tuned.tables(one)] + tables(found, charts),
        figures=[each for one in of_tuning for each in tuned.figures(one)] + figures(found),
        options=options.model_dump(mode="json"),
        notes=[note for one in of_tuning for note in tuned.notes(one)]
        + list(_notes(found, options)),
        warnings=warnings,
        overview=[*map(tuned.glance, of_tuning), *map(_glance, found)],
    )


def _headline(one: Measured) -> Finding:
    """Which cause errors have."""
    total = len(one.cases)
    if one.main is None:
        return Finding(f"{one.task}: no answer of {total} is wrong.", Verdict.INFO, one.task)
    shares = sorted(
        ((cause, share) for cause, share in one.shares.items() if share.value > 0),
        key=lambda each: -each[1].value,
    )
    listed = "; ".join(f"{cause.value} {with_ends(share)}" for cause, share in shares)
    text = (
        f"{one.task}: {one.errors} of {total} answers {'is' if one.errors == 1 else 'are'} wrong. "
        f"{'It is' if one.errors == 1 else 'These errors are'} put down to: {listed}. "
        f"{one.main.value.capitalize()}: {_meaning(one, one.main)}."
    )
    if not one.sure and one.main is not Cause.UNTOLD:
        text += " Which cause is the most frequent is not sure."
    values: dict[str, Cell] = {"samples": total, "errors": one.errors, "cause": one.main.value}
    values |= {cause.value: number(share.value) for cause, share in one.shares.items()}
    return Finding(text, Verdict.INFO if one.sure else Verdict.INCONCLUSIVE, one.task, values)


def _meaning(one: Measured, cause: Cause) -> str:
    """What a cause says, with the more exact part that holds for most of its errors."""
    counts = {detail: n for (own, detail), n in one.details.items() if own is cause}
    most = max(counts, key=lambda detail: counts[detail])
    if cause is Cause.UNTOLD:
        return f"{most} for {counts[most]} of them, since {_why_untold(one)}"
    if cause is Cause.EYE and one.blind_to_all:
        return f"{cause.meaning}, which is also so where images do not show it or labels are wrong"
    if not most:
        return cause.meaning
    return f"{cause.meaning}; {_DETAILS[most]} ({counts[most]} of {sum(counts.values())} errors)"


def _why_untold(one: Measured) -> str:
    """Why probes do not tell causes apart: of the question with the most such errors."""
    untold = {row for row, each in enumerate(one.found) if each and each.cause is Cause.UNTOLD}
    question = max(one.questions, key=lambda each: len(untold.intersection(each.rows)))
    return question.why_not or "probes do not decide it"


_DETAILS = {
    NOT_CARRIED: "it does not reach the row from which the model answers",
    NOT_SAID: "it reaches the row from which the model answers",
}


def _beside(one: Measured) -> Iterator[Finding]:
    """What the causes rest on: descriptions, blind answers, texts, and the control."""
    if one.main is None:
        return
    yield Finding(f"{one.task}: {_text(one.understood, one.shares)}", Verdict.INFO, one.task)
    same = with_ends(one.repeats_blind)
    sight = ""
    if np.isfinite(one.right_blind.value):
        sight = (
            f"; {with_ends(one.right_blind)} of the right answers are right blind, too, and are no "
            "evidence of sight"
        )
    text = f"{one.task}: {same} of the errors repeat the blind answer{sight}."
    values: dict[str, Cell] = {
        "errors_as_blind": number(one.repeats_blind.value),
        "right_as_blind": number(one.right_blind.value),
    }
    yield Finding(text, Verdict.INFO, one.task, values)
    helped = [each for each in one.conditions if each.name not in (IMAGE, BLIND)]
    if helped:
        listed = "; ".join(map(_mends, helped))
        yield Finding(f"{one.task}: {listed}.", Verdict.INFO, one.task)
    control = _control(one)
    if control:
        yield Finding(control, Verdict.INFO, one.task)


def _text(text: Understood, shares: Mapping[Cause, Estimate]) -> str:
    unsure = "so reasoning is not told from the other causes"
    if shares[Cause.EYE].value > 0:
        unsure = "so reasoning is not told from the other causes, least of all from eye"
    if text.understood is None:
        return f"{text.why_not}, {unsure}."
    numbers = (
        f"{percent(text.text)} right with the description alone, {percent(text.blind)} blind "
        f"({text.samples} samples: {text.source.value})"
    )
    if text.understood:
        return f"descriptions are understood: {numbers}."
    return f"descriptions are not understood: {numbers}; {unsure}."


def _mends(one: Condition) -> str:
    """What a text changes."""
    told = f"{one.name} mends {with_ends(one.mends)} of the errors"
    if np.isfinite(one.breaks.value):
        told += f" and breaks {with_ends(one.breaks)} of the right answers"
    return told


def _control(one: Measured) -> str:
    """How often probes call the fact of a right answer lost."""
    lost = [one.lost_when_right.get(cause) for cause in (Cause.EYE, Cause.ALIGNMENT)]
    values = [each.value for each in lost if each is not None]
    if not values or not any(each.stages for each in one.questions):
        return ""
    return (
        f"{one.task}: of the right answers, probes call {percent(values[0])} lost in the eye and "
        f"{percent(values[1])} in alignment; errors are to be held against that."
    )


def _chart(task: str, one: Bottlenecks) -> Finding:
    text = (
        f"{task}: {one.measure} finds {with_ends(one.held)} of the answers to {one.question!r} in "
        f"the representation (vision-encoder bottleneck {with_ends(one.encoder)})"
    )
    if np.isfinite(one.answered.value):
        text += (
            f", the model says {with_ends(one.answered)} (extraction bottleneck "
            f"{with_ends(one.extraction)})"
        )
    elif np.isfinite(one.probe.value):
        text += f"; a linear probe of the vision tower reads {with_ends(one.probe)}"
    values: dict[str, Cell] = {
        "encoder_bottleneck": number(one.encoder.value),
        "extraction_bottleneck": number(one.extraction.value),
    }
    return Finding(f"{text}.", Verdict.INFO, task, values)


def _glance(one: Measured) -> Glance:
    question = "errors come from"
    if one.main is None:
        return Glance(one.task, question, "no error", Verdict.INFO)
    share = one.shares[one.main].value
    return Glance(
        one.task,
        question,
        one.main.value,
        Verdict.INFO if one.sure else Verdict.INCONCLUSIVE,
        share,
        count(one.errors, "error"),
    )


def _notes(found: Sequence[Measured], options: BottleneckOptions) -> Iterator[str]:
    """How the numbers were made."""
    yield (
        "An error is a wrong answer from the image. It is put down to the first of these that "
        "holds. Prior: the blind answer is the same, and the image raises the log-odds of the "
        f"label against it by {options.min_shift} nats, over blind and over other images. "
        "Reasoning: the answer from the description alone is wrong, and descriptions are shown to "
        "be understood. Else the place where the fact is lost: eye, alignment, language."
    )
    yield (
        "A fact is there at a stage if a probe that did not learn from its group reads it right, "
        "and the stage counts as readable: better than the best of "
        f"{options.controls} sets of shuffled labels (p <= {options.alpha}), and at least "
        f"{options.min_skill} of the way from guessing to perfect. What is there at one stage was "
        "there at all earlier ones."
    )
    yield (
        "Probes are linear, on the mean over image rows or on the last row. They look for the "
        f"attribute {options.fact!r}, or else for the label. Where the label is more than what is "
        "seen, and that attribute does not say what, eye can stand for reasoning."
    )
    if any(len(one.questions) > 1 for one in found):
        yield (
            "Samples with the same prompt are one question, which is probed by itself: the image "
            "alone does not tell the answers to different questions apart."
        )
    yield f"Blind answers, and those from the description alone, are given on: {options.blank}."
    yield (
        "Intervals are from resampled groups of samples. They hold for shares of the errors, "
        "taking the cause of each error as it is."
    )
