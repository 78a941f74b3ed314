"""What the probe found, in sentences, and how it was found."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from vlmlens.results import Cell, Finding, Glance, Verdict
from vlmlens_plugins.analysis._columns import Side, short_names, side_of
from vlmlens_plugins.analysis._tasks import ALL
from vlmlens_plugins.analysis.probe import learning_curve
from vlmlens_plugins.analysis.probe.layer_ranking import plateau_start
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.prober import Probed
from vlmlens_plugins.analysis.probe.scores import Score, least_gap, overall
from vlmlens_plugins.analysis.probe.stages import Answered, Outcome, Stage
from vlmlens_plugins.analysis.probe.tables import row

_ANSWERS = {
    Outcome.ANSWERED: "read from the {stage} ({read:.2f}) and answered ({answered:.2f})",
    Outcome.PARTLY: "read from the {stage} ({read:.2f}) better than answered ({answered:.2f})",
    Outcome.NOT_ANSWERED: "read from the {stage} ({read:.2f}), but answered no better than by "
    "guessing ({answered:.2f})",
    Outcome.NEITHER: "neither read from the vision side ({read:.2f}) nor answered ({answered:.2f})",
    Outcome.ONLY_ANSWERED: "answered ({answered:.2f}), though no vision layer shows it to a probe "
    "({read:.2f})",
    Outcome.UNCLEAR: "read from the {stage} ({read:.2f}), answered ({answered:.2f}); whether the "
    "answers use it is unclear",
}
_SAID = ("accuracy", "low", "high", "gain", "gain_low", "gain_high", "p")


def findings(probed: Sequence[Probed], options: ProbeOptions) -> list[Finding]:
    """What can be read of each target, by side where verdicts differ, and what is answered."""
    found = [finding for item in probed for finding in _of_target(item, options)]
    found += [_answer(item, item.answered) for item in probed if item.answered]
    curves = [(item.target, item.curve) for item in probed if item.curve is not None]
    return [
        *found,
        *(learning_curve.finding(t.name, curve, numbers=t.numbers) for t, curve in curves),
    ]


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


def notes(options: ProbeOptions, probed: Sequence[Probed]) -> list[str]:
    """How the numbers were made."""
    by_type = any(item.trial.by_type for item in probed)
    paper = "Hewitt and Liang, 'Designing and interpreting probes with control tasks', 2019"
    return [
        f"{_kind(options)}; {_split(options)}. Features are scaled by their mean and deviation "
        "over the training samples, without the labels.",
        "Control: the same probe at the same strength, on labels shuffled by whole groups within "
        f"each fold, {options.control_seeds} seeds. "
        + (
            f"Control task: a random label for each type, as many seeds ({paper}). Selectivity is "
            "held-out accuracy minus the control task's mean accuracy."
            if by_type
            else f"Selectivity is held-out accuracy minus mean control accuracy (after {paper})."
        ),
        "95 % intervals: percentile bootstrap over groups and control seeds, widened by the "
        "controls' extra variance between seeds.",
        "p-values are one-sided and the larger of two. Permutation: labels shuffled by whole "
        f"groups within each held-out fold, predictions kept, at least {options.draws} draws. "
        f"Retrained controls: Student's t with {options.control_seeds - 1} degrees of freedom. "
        "Both are corrected over the columns of a target (Holm 1979).",
        "Verdicts rest on the gap: accuracy - max(controls, majority). The minimum gap is "
        f"{options.min_gap:g} x (1 - majority). Encoded: corrected p <= {options.alpha:g}, the "
        "gap's interval lies above 0, and the gap reaches the minimum. Not encoded: corrected p is "
        "above that, and the interval ends below the minimum (a negative gap counts as 0). "
        f"Inconclusive: anything else{_parts(options)}. A side of the model is 'encoded' if one of "
        "its columns is, and 'not encoded' if all of them are not.",
        "Power: the smallest gap that these samples show with 80 % probability, and the number of "
        "samples that would show the measured gap. Normal approximation, with the worst case of "
        "Holm's correction.",
        "As good as the best: the paired bootstrap interval of the difference to the best column "
        "reaches 0. The earliest such column starts the plateau.",
        "The best column is chosen among all, so its accuracy is slightly too high. A linear probe "
        "finds what can be read linearly, not what the model uses.",
    ]


def _parts(options: ProbeOptions) -> str:
    if options.components is None:
        return ""
    return ", and what a probe does not find in components that keep less than 99 % of the variance"


def _kind(options: ProbeOptions) -> str:
    grid = ", ".join(f"{c:g}" for c in options.C)
    strength = (
        f"C = {grid}"
        if len(options.C) == 1
        else f"C from {grid} by inner grouped cross-validation on the true labels"
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
        return f"trained on this run and tested on {options.test_on}, no group in both"
    return {
        "group": f"{options.folds}-fold cross-validation, stratified, no group on both sides",
        "random": f"{options.folds}-fold cross-validation, stratified, groups ignored",
        "template": "cross-validation with no group and no prompt template on both sides",
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
    least = least_gap(best.majority, options)
    where = f" on the {side}" if side else ""
    values: dict[str, Cell] = {**row(target, best), "least_gap": least, "columns": len(scores)}
    if verdict is Verdict.ENCODED:
        start = plateau_start(item.places).column
        values |= {
            "plateau_start": start,
            "columns_encoded": sum(score.verdict is verdict for score in scores),
        }
        measure = "R2" if target.numbers else "accuracy"
        whole = len(scores) == len(item.scored.scores) > 1
        from_on = f"; as good as the best layer from {start} on" if whole else ""
        text = (
            f"{target.name} can be read{where} ({measure} {best.accuracy:.2f}, baseline "
            f"{best.accuracy - best.gap:.2f}){from_on}."
        )
    elif verdict is Verdict.NOT_ENCODED:
        text = (
            f"{target.name} cannot be read{where}: no layer beats its baseline by {least:.2f} or "
            "more (95 % intervals)."
        )
    else:
        text = f"{target.name}: unclear{where}. {_power(best, int(item.trial.split.tested.sum()))}"
    return Finding(text, verdict, target.name, values, scope=side)


def _power(best: Score, samples: int) -> str:
    needed = best.samples_needed
    more = f"; about {needed} would be needed" if needed is not None and needed > samples else ""
    return (
        f"The best layer is {best.gap:.2f} above its baseline, and {samples} samples only show "
        f"{best.detectable_gap:.2f} or more{more}."
    )


def _answer(item: Probed, said: Answered) -> Finding:
    """What is read from the vision side beside what the model answers."""
    vision = [best for best in item.stages if best.stage is not Stage.LANGUAGE]
    seen = max(vision, key=lambda best: best.score.accuracy) if vision else None
    values: dict[str, Cell] = {
        "outcome": said.outcome.value,
        **{f"answer_{name}": getattr(said, name) for name in _SAID},
    }
    for best in item.stages:
        values[f"{best.stage.value} accuracy"] = best.score.accuracy
    if seen is not None and seen.over_answers is not None:
        names = ("read_above_answered", "read_above_answered_low", "read_above_answered_high")
        values |= dict(zip(names, seen.over_answers, strict=True))
    text = f"{item.target.name}: {_ANSWERS[said.outcome]}."
    if seen is None:
        text = f"{item.target.name}: answered ({said.accuracy:.2f}); no vision layer was probed."
    else:
        text = text.format(stage=seen.stage.value, read=seen.score.accuracy, answered=said.accuracy)
    notable = said.outcome is Outcome.NOT_ANSWERED
    return Finding(text, Verdict.INFO, item.target.name, values, notable=notable)


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
