"""What the probe found, as findings and figures, and how."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from vlmlens.results import Cell, Figure, Finding, Glance, Series, Verdict
from vlmlens_plugins.analysis._columns import Side, short_names, side_of
from vlmlens_plugins.analysis._names import slug
from vlmlens_plugins.analysis._tasks import ALL
from vlmlens_plugins.analysis.probe.layers import plateau_start
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.probing import Probed
from vlmlens_plugins.analysis.probe.scores import Score, least_gap, overall
from vlmlens_plugins.analysis.probe.stages import Answered, Heard, Stage, StageBest
from vlmlens_plugins.analysis.probe.tables import row

_PHRASES = {
    Verdict.ENCODED: "is encoded",
    Verdict.NOT_ENCODED: "is not encoded",
    Verdict.INCONCLUSIVE: "may or may not be encoded (inconclusive)",
}
_HEARD = {
    Heard.SAID: "the eye sees it, and the mouth says it",
    Heard.PARTLY: "the eye sees more than the mouth says",
    Heard.IGNORED: "the eye sees it, but the mouth does not say it (seen but ignored)",
    Heard.UNSEEN: "the eye does not see it, and the mouth does not say it",
    Heard.ELSEWHERE: "the mouth says what no single column of the vision side holds",
    Heard.UNSURE: "whether the mouth says what the eye sees is open",
}


def findings(probed: Sequence[Probed], options: ProbeOptions) -> list[Finding]:
    """Per target what is encoded (by side of the model where verdicts differ), and what is said."""
    found = [finding for item in probed for finding in _of_target(item, options)]
    return [*found, *(_spoken(item, item.answered) for item in probed if item.answered)]


def overview(probed: Sequence[Probed]) -> list[Glance]:
    """One cell per task or attribute, of the target that tells most about it.

    A task's own labels come before an attribute of that name; of an attribute on several tasks,
    the one that can be read best is taken.
    """
    told: dict[str, Probed] = {}
    for item in probed:
        subject = _subject(item)
        if subject not in told or _telling(item) > _telling(told[subject]):
            told[subject] = item
    return [_glance(subject, item) for subject, item in told.items()]


def figures(probed: Sequence[Probed]) -> list[Figure]:
    """Per target, accuracy over depth with controls, majority and the model's own answers."""
    return [_figure(item) for item in probed]


def notes(options: ProbeOptions, probed: Sequence[Probed]) -> list[str]:
    """How the numbers were made."""
    by_type = any(item.trial.by_type for item in probed)
    return [
        f"{_kind(options)}; {_split(options)}. Features are scaled by their mean and deviation "
        "over the samples that are learned from; labels have no part in that.",
        f"Control: the same probe on labels shuffled by whole groups within each fold, "
        f"{options.control_seeds} seeds, at the same strength. "
        + (
            "Control task: a random label for each type, as many seeds (Hewitt and Liang, "
            "'Designing and interpreting probes with control tasks', 2019); selectivity is "
            "held-out accuracy minus its mean accuracy"
            if by_type
            else "Selectivity is held-out accuracy minus mean control accuracy (after Hewitt and "
            "Liang, 'Designing and interpreting probes with control tasks', 2019)"
        )
        + ". 95 % intervals are a percentile bootstrap over groups and control seeds, made as much "
        "wider as accuracies of controls vary more over seeds than their predictions tell.",
        f"p-values: the larger of two, one-sided (only an accuracy above the null counts): labels "
        "shuffled by whole groups within each held-out fold, predictions kept, at least "
        f"{options.draws} draws; and the accuracy among those of its retrained controls, with "
        f"Student's tail of {options.control_seeds - 1} degrees of freedom. Corrected over the "
        "columns of a target (Holm 1979).",
        "Verdicts rest on the gap = accuracy - max(controls, majority), with a least gap of "
        f"{options.min_gap:g} x (1 - majority). Encoded: corrected p <= {options.alpha:g}, the "
        "gap's 95 % interval above 0, and the gap at least the least gap. Not encoded: corrected p "
        "above that, and the interval ends below the least gap (a negative gap "
        "counts as 0). Inconclusive: anything else. A side of "
        "the model is 'encoded' if one of its columns is and 'not encoded' if all are not.",
        "Power: the smallest gap that these samples show with 80 % probability, and the samples "
        "that the gap as measured would need, by the normal approximation and the worst case of "
        "Holm's correction.",
        "Plateau: the earliest column whose paired bootstrap interval behind the best reaches 0.",
        "The best column is chosen among all and so is slightly flattered. A linear probe finds "
        "what can be read off linearly, not what the model uses.",
    ]


def _kind(options: ProbeOptions) -> str:
    grid = ", ".join(f"{c:g}" for c in options.C)
    strength = (
        f"C = {grid}"
        if len(options.C) == 1
        else f"C out of {grid} by inner grouped cross-validation on the true labels"
    )
    return {
        "logistic": f"Logistic regression with L2 penalty (as scikit-learn's, {strength})",
        "ridge": f"Ridge regression (penalty 1 / C, {strength}); accuracies are R2",
        "centroid": "Nearest centroids (for two classes, the difference of their means)",
        "mlp": f"A two-layer perceptron ({options.hidden} hidden units, early stopping on a tenth "
        "of the training groups)",
    }[options.model]


def _split(options: ProbeOptions) -> str:
    if options.test_on is not None:
        return f"learned from this run and tested on {options.test_on}, no group in both"
    return {
        "group": f"{options.folds}-fold cross-validation, stratified, no group on both sides",
        "random": f"{options.folds}-fold cross-validation, stratified, groups not looked at",
        "template": "cross-validation with neither a group nor a prompt template on both sides",
        "value": f"each value of {options.hold_out} held out in turn; for p-values labels are "
        "exchanged over all values",
    }[options.split]


def _of_target(item: Probed, options: ProbeOptions) -> list[Finding]:
    by_side: dict[Side, list[Score]] = {}
    for score in item.scored.scores:
        by_side.setdefault(side_of(score.column), []).append(score)
    verdicts = {overall(scores)[0] for scores in by_side.values()}
    if len(verdicts) == 1:
        side = "" if len(by_side) > 1 else next(iter(by_side)).value
        return [_finding(item, item.scored.scores, side, options)]
    return [_finding(item, scores, side.value, options) for side, scores in by_side.items()]


def _finding(item: Probed, scores: Sequence[Score], side: str, options: ProbeOptions) -> Finding:
    target = item.target
    verdict, best = overall(scores)
    where = f" on the {side}" if side else ""
    least = least_gap(best.majority, options)
    shown = len([score for score in scores if score.verdict is verdict])
    share = f", in {shown} of {len(scores)} columns" if verdict is Verdict.ENCODED else ""
    measure = "R2" if target.numbers else "accuracy"
    task = "" if best.control_task is None else f", control task {best.control_task:.2f}"
    text = (
        f"{target.name} {_PHRASES[verdict]}{where}{share} (best {best.column}: {measure} "
        f"{best.accuracy:.2f} [{best.accuracy_low:.2f}, {best.accuracy_high:.2f}], control "
        f"{best.control:.2f}{task}, majority {best.majority:.2f}; gap {best.gap:.2f} "
        f"[{best.gap_low:.2f}, {best.gap_high:.2f}], corrected p = {best.corrected:.2g}"
        f"{_closing(item, verdict, best, least, side)})."
    )
    values: dict[str, Cell] = {**row(target, best), "least_gap": least, "columns": len(scores)}
    if verdict is Verdict.ENCODED:
        values["plateau_start"] = plateau_start(item.places).column
    return Finding(text, verdict, target.name, values, scope=side)


def _closing(item: Probed, verdict: Verdict, best: Score, least: float, side: str) -> str:
    if verdict is Verdict.ENCODED:
        start = plateau_start(item.places).column
        return "" if side or start == best.column else f"; not worse from {start} on"
    if verdict is Verdict.NOT_ENCODED:
        return f"; in every column a gap of {least:.2f} is ruled out"
    needed = best.samples_needed
    more = (
        f"; this gap would need about {needed} samples"
        if needed is not None and needed > int(item.trial.split.tested.sum())
        else ""
    )
    return (
        f"; a gap that counts ({least:.2f}) is neither shown nor ruled out, these samples show "
        f"gaps from {best.detectable:.2f} on{more}"
    )


def _spoken(item: Probed, said: Answered) -> Finding:
    eye = [best for best in item.stages if best.stage is not Stage.LANGUAGE]
    seen = max(eye, key=lambda best: best.score.accuracy) if eye else None
    parts = [_stage(best) for best in item.stages]
    text = (
        f"{item.target.name}: {_HEARD[said.heard]} ({'; '.join(parts)}; answers "
        f"{said.accuracy:.2f} [{said.low:.2f}, {said.high:.2f}], "
        f"{said.gain:+.2f} [{said.gain_low:+.2f}, {said.gain_high:+.2f}] beside the majority"
        f"{_more(seen)})."
    )
    values: dict[str, Cell] = {
        "heard": said.heard.value,
        "answer_accuracy": said.accuracy,
        "answer_low": said.low,
        "answer_high": said.high,
        "answer_gain": said.gain,
        "answer_gain_low": said.gain_low,
        "answer_gain_high": said.gain_high,
        "answer_p": said.p,
    }
    for best in item.stages:
        values[f"{best.stage.value} accuracy"] = best.score.accuracy
    if seen is not None and seen.over_answers is not None:
        names = ("seen_above_said", "seen_above_said_low", "seen_above_said_high")
        values.update(dict(zip(names, seen.over_answers, strict=True)))
    notable = said.heard is Heard.IGNORED
    return Finding(text, Verdict.INFO, item.target.name, values, notable=notable)


def _stage(best: StageBest) -> str:
    score = best.score
    interval = f"[{score.accuracy_low:.2f}, {score.accuracy_high:.2f}]"
    return f"{best.stage.value} {score.accuracy:.2f} {interval}"


def _more(seen: StageBest | None) -> str:
    if seen is None or seen.over_answers is None:
        return ""
    more, low, high = seen.over_answers
    return f"; seen above said {more:+.2f} [{low:+.2f}, {high:+.2f}]"


def _subject(item: Probed) -> str:
    if item.target.task is not None and item.target.samples[0].task is None:
        return ALL
    return item.target.name.partition("@")[0] if item.target.task is None else item.target.name


def _telling(item: Probed) -> tuple[bool, bool, float]:
    verdict, best = overall(item.scored.scores)
    return item.target.task is not None, verdict is Verdict.ENCODED, best.gap


def _glance(subject: str, item: Probed) -> Glance:
    verdict, best = overall(item.scored.scores)
    curve: dict[str, float] = {}
    for score in item.scored.scores:
        site = score.column.partition("/")[0]
        curve[site] = max(score.accuracy, curve.get(site, -inf))
    return Glance(
        subject,
        "can be read from",
        _where(item, verdict),
        verdict,
        value=best.accuracy,
        beside=f"baseline {best.accuracy - best.gap:.2f}",
        curve=list(curve.values()),
    )


def _where(item: Probed, verdict: Verdict) -> str:
    """The earliest column as good as the best; "on" where what follows is encoded, too."""
    if verdict is Verdict.NOT_ENCODED:
        return "nowhere"
    if verdict is Verdict.INCONCLUSIVE:
        return "unclear"
    scores = item.scored.scores
    elsewhere = [score for score in scores if side_of(score.column) is not Side.LANGUAGE]
    if elsewhere and all(score.verdict is Verdict.NOT_ENCODED for score in elsewhere):
        return "language model only"
    names = [score.column for score in scores]
    start = names.index(plateau_start(item.places).column)
    later = scores[start + 1 :]
    on = " on" if later and all(score.verdict is Verdict.ENCODED for score in later) else ""
    return short_names(names)[start] + on


def _figure(item: Probed) -> Figure:
    scores = item.scored.scores
    series = [
        Series(
            "probe",
            [score.accuracy for score in scores],
            low=[score.accuracy_low for score in scores],
            high=[score.accuracy_high for score in scores],
        ),
        _level("control (shuffled labels)", [score.control for score in scores]),
    ]
    if item.trial.by_type:
        series.append(_level("control task (by type)", [score.control_task for score in scores]))
    series.append(_level("majority", [score.majority for score in scores]))
    if item.answered is not None:
        series.append(_level("the model's answers", [item.answered.accuracy] * len(scores)))
    numbers = item.target.numbers
    return Figure(
        name=f"probe-{slug(item.target.name)}",
        title=f"How well {item.target.name} can be read from each layer",
        kind="line",
        x=short_names([score.column for score in scores]),
        x_label="layer, from the picture to the answer",
        y_label=f"held-out {'R2' if numbers else 'accuracy'} (band: 95 % interval)",
        series=series,
        y_range=None if numbers else (0.0, 1.0),
    )


def _level(name: str, values: Sequence[float | None]) -> Series:
    return Series(name, list(values), dashed=True)
