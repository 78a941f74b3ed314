"""What tuning has changed: sentences, notes, cells of the overview."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from vlmlens._display import count
from vlmlens.results import Finding, Glance, Result, Verdict
from vlmlens.statistics import holm
from vlmlens_plugins.analysis._estimates import Estimate
from vlmlens_plugins.analysis._sweeps.scores import number
from vlmlens_plugins.analysis._tuning.dividing import Divided
from vlmlens_plugins.analysis._tuning.gains import Gain
from vlmlens_plugins.analysis._tuning.measuring import Answers
from vlmlens_plugins.analysis.tune.options import TuneOptions
from vlmlens_plugins.analysis.tune.tables import figures, tables
from vlmlens_plugins.analysis.tune.trainings import Tuning, share


def report(
    options: TuneOptions,
    samples: Divided,
    gains: Sequence[Gain],
    before: Answers,
    tunings: Sequence[Tuning],
    control: Tuning | None,
    warnings: Sequence[str],
) -> Result:
    """The result.

    Args:
        options: Of the analysis.
        samples: What was learned from, and tested.
        gains: By task.
        before: Answers of the model as it was.
        tunings: One for each seed.
        control: The one with shuffled labels; None: there was none.
        warnings: What was said on the way.
    """
    p = holm([each.p for each in gains]).tolist()
    trained = [each.task in samples.tasks for each in gains]
    verdicts = [
        (_raised if own else _changed)(each, p_value, options.level)
        for each, own, p_value in zip(gains, trained, p, strict=True)
    ]
    findings = [
        _trained(each, verdict, options, samples, tunings[0], p_value)
        if own
        else _other(each, verdict, p_value)
        for each, verdict, own, p_value in zip(gains, verdicts, trained, p, strict=True)
    ]
    findings.append(_course(tunings[0], samples))
    if len(tunings) > 1:
        findings.append(_seeds(tunings))
    return Result(
        analysis="tune",
        title=f"Tuning {options.trainable.name}",
        findings=findings,
        tables=tables(gains, p, trained, samples, before, tunings, control),
        figures=figures(tunings, control),
        options=options.model_dump(mode="json"),
        notes=list(_notes(options, control)),
        warnings=list(warnings),
        overview=[_glance(*pair) for pair in zip(gains, verdicts, strict=True)],
    )


def _raised(one: Gain, p: float, level: float) -> Verdict:
    """Whether answers became better: more than before, and more than with shuffled labels."""
    low = [one.change.low] + ([] if one.beyond is None else [one.beyond.low])
    if not np.isfinite(low).all():
        return Verdict.INCONCLUSIVE
    return Verdict.DIFFERS if p <= level and min(low) > 0 else Verdict.NO_DIFFERENCE


def _changed(one: Gain, p: float, level: float) -> Verdict:
    """Whether answers became better or worse."""
    if not np.isfinite(one.change.low):
        return Verdict.INCONCLUSIVE
    return Verdict.DIFFERS if p <= level else Verdict.NO_DIFFERENCE


def _trained(
    one: Gain,
    verdict: Verdict,
    options: TuneOptions,
    samples: Divided,
    tuning: Tuning,
    p: float,
) -> Finding:
    part = options.trainable
    text = (
        f"{one.task}: tuning {part.name} ({part.said(tuning.numbers)}) on "
        f"{count(len(samples.train), 'sample')} {_moves(one, verdict)} on "
        f"{count(one.groups, 'test group')} (change {_interval(one.change, signed=True)})"
    )
    if one.control is not None and one.control_credit is not None:
        text += (
            f"; with shuffled labels it is {_number(one.control)}, and the label's probability "
            f"among the choices {_number(one.control_credit)} instead of {_number(one.credit)}"
        )
    text += f"; blind {_number(one.blind_before)} to {_number(one.blind_after)}."
    return Finding(text, verdict, one.task, _values(one, p), scope=part.component)


def _moves(one: Gain, verdict: Verdict) -> str:
    verb = "raises" if verdict is Verdict.DIFFERS else "takes"
    return f"{verb} accuracy from {_number(one.before)} to {_interval(one.after)}"


def _other(one: Gain, verdict: Verdict, p: float) -> Finding:
    """A task that was not trained: what it has lost or gained."""
    verb = "goes"
    if verdict is Verdict.DIFFERS:
        verb = "falls" if one.change.value < 0 else "rises"
    text = (
        f"{one.task}, which was not trained: accuracy {verb} from {_number(one.before)} to "
        f"{_interval(one.after)} (change {_interval(one.change, signed=True)})."
    )
    return Finding(text, verdict, one.task, _values(one, p))


def _values(one: Gain, p: float) -> dict[str, float | int | None]:
    return {
        "before": number(one.before.value),
        "after": number(one.after.value),
        "change": number(one.change.value),
        "control": None if one.control is None else number(one.control.value),
        "blind_before": number(one.blind_before.value),
        "blind_after": number(one.blind_after.value),
        "p": p,
        "samples": one.samples,
    }


def _course(tuning: Tuning, samples: Divided) -> Finding:
    fitted, first = tuning.fitted, tuning.fitted.curve[0]
    if not fitted.best:
        text = (
            f"No epoch of {len(fitted.curve) - 1} has a lower loss on "
            f"{count(len(samples.held), 'held-out sample')} than the {first.held:.3g} nats before "
            "training, so the part is as it began."
        )
    else:
        text = (
            f"The loss on {count(len(samples.held), 'held-out sample')} falls from "
            f"{first.held:.3g} to {fitted.lowest.held:.3g} nats per token, in epoch {fitted.best} "
            f"of {len(fitted.curve) - 1}{', where training ended early' if fitted.early else ''}."
        )
    values = {"epoch": fitted.best, "held_out_loss": fitted.lowest.held, "steps": fitted.steps}
    return Finding(text, Verdict.INFO, "", values)


def _seeds(tunings: Sequence[Tuning]) -> Finding:
    shares = [share(each.answers) for each in tunings]
    listed = ", ".join(f"{each:.2f}" for each in shares)
    text = f"Over {len(shares)} seeds, accuracy on all questions of the test is {listed}."
    return Finding(text, Verdict.INFO, "", {"lowest": min(shares), "highest": max(shares)})


def _glance(one: Gain, verdict: Verdict) -> Glance:
    beside = "" if one.control is None else f"shuffled labels {_number(one.control)}"
    return Glance(
        one.task,
        "tuned",
        f"{_number(one.before)} to {_number(one.after)}",
        verdict,
        number(one.after.value),
        beside,
    )


def _notes(options: TuneOptions, control: Tuning | None) -> Iterator[str]:
    yield (
        "Accuracy is the share of questions whose most probable choice is the label; questions "
        "without choices are answered in writing. It is measured on groups of samples (images) "
        "of which none was learned from or held out. Intervals are from resampled groups, with "
        "before and after in pairs. Blind: with gray images."
    )
    if control is not None:
        yield (
            "Shuffled labels: the same training, in which the labels of a task are dealt out anew, "
            "also those of held-out samples, evenly among the samples of each true label. It "
            "learns how frequent answers are, and no more. Accuracy is raised if it is above that "
            "of the model as it was, and the probability of the label among the choices is above "
            "that of this control: the larger p-value (groups flip signs), corrected by Holm over "
            "tasks, is at most "
            f"{options.level}."
        )
    yield (
        "The loss is the mean negative log-probability of the label's tokens. The saved part has "
        "the values of the epoch with the lowest held-out loss; the model of this run is as before."
    )


def _number(found: Estimate) -> str:
    return f"{found.value:.2f}" if np.isfinite(found.value) else "an unknown share"


def _interval(found: Estimate, *, signed: bool = False) -> str:
    value = f"{found.value:+.2f}" if signed else _number(found)
    if not np.isfinite(found.low):
        return value
    ends = (
        f"{found.low:+.2f}, {found.high:+.2f}" if signed else f"{found.low:.2f}, {found.high:.2f}"
    )
    return f"{value} [{ends}]"
