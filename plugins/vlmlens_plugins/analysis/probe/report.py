"""What the probe found, as findings, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmlens.results import Cell, Figure, Finding, Series, Table, Verdict
from vlmlens_plugins.analysis._columns import Side, short_names, side_of
from vlmlens_plugins.analysis._names import slug
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.scores import Score, least_gap, overall
from vlmlens_plugins.analysis.probe.targets import Target

_PHRASES = {
    Verdict.ENCODED: "is encoded",
    Verdict.NOT_ENCODED: "is not encoded",
    Verdict.INCONCLUSIVE: "may or may not be encoded (inconclusive)",
}


@dataclass(frozen=True, slots=True)
class Probed:
    """A target with the scores of its columns, in order."""

    target: Target
    scores: Sequence[Score]


def findings(probed: Sequence[Probed], options: ProbeOptions) -> list[Finding]:
    """One finding per target, or one per side of the model where the verdicts differ."""
    return [finding for item in probed for finding in _of_target(item, options)]


def tables(probed: Sequence[Probed]) -> list[Table]:
    """The complete numbers: one table per target and column, one of the targets."""
    rows = [_row(item.target, score) for item in probed for score in item.scores]
    complete = {name: [row[name] for row in rows] for name in rows[0]}
    targets: dict[str, list[Cell]] = {
        "target": [item.target.name for item in probed],
        "samples": [len(item.target.y) for item in probed],
        "groups": [item.target.n_groups for item in probed],
        "classes": [", ".join(item.target.classes) for item in probed],
    }
    return [
        Table("probe-columns", "Probe accuracy and controls by target and column", complete),
        Table("probe-targets", "What was probed for", targets),
    ]


def figures(probed: Sequence[Probed]) -> list[Figure]:
    """Accuracy over depth with controls and majority, one figure per target."""
    return [_figure(item) for item in probed]


def notes(options: ProbeOptions) -> list[str]:
    """How the numbers were made."""
    kind = (
        f"Logistic regression with L2 penalty (scikit-learn's C = {options.C:g})"
        if options.model == "logistic"
        else f"A two-layer perceptron ({options.hidden} hidden units, early stopping on a tenth of "
        "the training groups)"
    )
    return [
        f"{kind}, {options.folds}-fold cross-validation: stratified, no group on both sides, "
        "features standardized on the training part of each fold.",
        f"Control: the same probe on labels shuffled by whole groups, {options.control_seeds} "
        "seeds. Selectivity is held-out accuracy minus mean control accuracy (after Hewitt and "
        "Liang, 'Designing and interpreting probes with control tasks', 2019); its 95 % interval "
        "is a percentile bootstrap over groups and control seeds, for the probes as trained.",
        f"p-values: labels shuffled by whole groups within each held-out fold, predictions kept, "
        f"at least {options.draws} draws, one-sided (only an accuracy above the null counts), "
        "corrected over the columns of a target (Holm 1979).",
        "Verdicts rest on the gap = accuracy - max(control, majority), with a least gap of "
        f"{options.min_gap:g} x (1 - majority). Encoded: corrected p <= {options.alpha:g}, the "
        "gap's 95 % interval above 0, and the gap at least the least gap. Not encoded: corrected p "
        "above that, and the interval ends below the least gap (a negative gap "
        "counts as 0). Inconclusive: anything else. A side of "
        "the model is 'encoded' if one of its columns is and 'not encoded' if all are not.",
        "The best column is chosen among all and so is slightly flattered. A linear probe finds "
        "what can be read off linearly, not what the model uses.",
    ]


def _of_target(item: Probed, options: ProbeOptions) -> list[Finding]:
    by_side: dict[Side, list[Score]] = {}
    for score in item.scores:
        by_side.setdefault(side_of(score.column), []).append(score)
    verdicts = {overall(scores)[0] for scores in by_side.values()}
    if len(verdicts) == 1:
        side = "" if len(by_side) > 1 else next(iter(by_side)).value
        return [_finding(item.target, item.scores, side, options)]
    return [_finding(item.target, scores, side.value, options) for side, scores in by_side.items()]


def _finding(target: Target, scores: Sequence[Score], side: str, options: ProbeOptions) -> Finding:
    verdict, best = overall(scores)
    where = f" on the {side}" if side else ""
    least = least_gap(best.majority, options)
    closing = {
        Verdict.ENCODED: "",
        Verdict.NOT_ENCODED: f"; in every column a gap of {least:.2f} is ruled out",
        Verdict.INCONCLUSIVE: f"; a gap that counts ({least:.2f}) is neither shown nor ruled out",
    }[verdict]
    shown = len([score for score in scores if score.verdict is verdict])
    share = f", in {shown} of {len(scores)} columns" if verdict is Verdict.ENCODED else ""
    text = (
        f"{target.name} {_PHRASES[verdict]}{where}{share} (best {best.column}: accuracy "
        f"{best.accuracy:.2f}, control {best.control:.2f}, majority {best.majority:.2f}; "
        f"selectivity {best.selectivity:.2f} [{best.low:.2f}, {best.high:.2f}], corrected "
        f"p = {best.corrected:.2g}{closing})."
    )
    values: dict[str, Cell] = {**_row(target, best), "least_gap": least, "columns": len(scores)}
    return Finding(text, verdict, target.name, values, scope=side)


def _row(target: Target, score: Score) -> dict[str, Cell]:
    return {
        "target": target.name,
        "column": score.column,
        "verdict": score.verdict.value,
        "accuracy": score.accuracy,
        "control": score.control,
        "majority": score.majority,
        "selectivity": score.selectivity,
        "selectivity_low": score.low,
        "selectivity_high": score.high,
        "gap": score.gap,
        "gap_low": score.gap_low,
        "gap_high": score.gap_high,
        "p": score.p,
        "p_corrected": score.corrected,
        "train_accuracy": score.train_accuracy,
        "train_control": score.train_control,
        "control_sd": score.control_sd,
    }


def _figure(item: Probed) -> Figure:
    scores = item.scores
    accuracy = Series(
        "probe",
        [score.accuracy for score in scores],
        low=[score.control + score.low for score in scores],
        high=[min(1.0, score.control + score.high) for score in scores],
    )
    control = Series("control (shuffled labels)", [score.control for score in scores], dashed=True)
    majority = Series("majority", [score.majority for score in scores], dashed=True)
    return Figure(
        name=f"probe-{slug(item.target.name)}",
        title=f"How well {item.target.name} can be read from each layer",
        kind="line",
        x=short_names([score.column for score in scores]),
        x_label="layer",
        y_label="held-out accuracy (band: 95 % interval of the selectivity)",
        series=[accuracy, control, majority],
        y_range=(0.0, 1.0),
    )
