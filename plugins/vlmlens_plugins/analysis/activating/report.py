"""What activating found, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vlmlens._display import count
from vlmlens.results import Cell, Finding, Glance, Verdict
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.activating.driving import Drives
from vlmlens_plugins.analysis.activating.labels import Separation
from vlmlens_plugins.analysis.activating.options import ActivatingOptions

_LEAST_AREA = 0.6
_ALPHA = 0.05
_LEAST_SHARE = 0.2
_WORDS = {"image": ("patch", "patches"), "words": ("word", "words")}


def findings(
    found: Sequence[Drives],
    separations: Sequence[Separation],
    samples: Sequence[Sample],
    options: ActivatingOptions,
) -> list[Finding]:
    """Per coordinate: which label it follows, and whether what is drawn can be believed."""
    ordered = sorted(separations, key=lambda one: (one.corrected, -_area(one)))
    told = [_separated(one) for one in ordered if _verdict(one) is Verdict.DIFFERS]
    for one in found:
        own = [each for each in ordered if each.measured is one.measured]
        rest = [each for each in own if _verdict(each) is not Verdict.DIFFERS]
        told += [] if own else [_described(one, samples)]
        told += [_learnt(one, rest)] if any(each.learnt for each in rest) else []
        for verdict in (Verdict.NO_DIFFERENCE, Verdict.INCONCLUSIVE):
            alike = [each for each in rest if _verdict(each) is verdict]
            told += [_unseparated(alike, verdict)] if alike else []
        mask = _masked(one, samples, asked=options.masked > 0)
        if mask is not None:
            told.append(mask)
    return told


def overview(separations: Sequence[Separation]) -> list[Glance]:
    """For each task the coordinate that separates its labels best."""
    made = []
    for name in dict.fromkeys(one.target.name for one in separations):
        own = [one for one in separations if one.target.name == name and one.label]
        if not own:
            continue
        best = min(own, key=lambda one: (one.corrected, -_area(one)))
        verdict = _verdict(best)
        said = f"{best.label}: {best.measured.coordinate.text}"
        beside = f"shuffled {best.shuffled:.2f}"
        if verdict is not Verdict.DIFFERS:
            said = "no coordinate seen" if verdict is Verdict.NO_DIFFERENCE else "too few samples"
        made.append(Glance(name, "separated by", said, verdict, best.area, beside))
    return made


def notes(options: ActivatingOptions, *, chosen: bool, asked: bool) -> list[str]:
    """How the numbers were made.

    Args:
        options: The options.
        chosen: Whether coordinates were chosen here.
        asked: Whether the model was asked.
    """
    told = [
        "The value of a sample with several rows is that of its largest row.",
        "Top samples alone mislead: the largest values of a coordinate can look alike though it "
        "means something else, or nothing, elsewhere (Bolukbasi et al. 2021, arXiv 2104.07143). "
        "Look at the samples at quantiles and at random too.",
        "AUC: the chance that a sample with the label has a higher value than one without it. "
        "Shuffled: the mean of the best label's AUC, taken as at least 0.5, when labels are "
        "shuffled over groups; p-values are corrected by Holm's method for all coordinates and "
        "tasks. Samples of one group with one label count once.",
    ]
    if chosen:
        told.append(
            "Coordinates: of each column the one with the largest standard deviation over samples, "
            f"and of these the {options.most} largest relative to the median of their column. "
            "Labels play no part in the choice."
        )
    if asked:
        taken = "taken at the rows"
        if options.steps > 1:
            taken = (
                f"the mean of those at {options.steps} points on the way there, for patches and "
                "for words each (Sundararajan et al. 2017, arXiv 1703.01365)"
            )
        row = "the mean row of other samples" if options.against == "mean" else "zero"
        told.append(
            f"What drives a coordinate: gradient . (row - {row}) at the patches that enter the "
            "language model (or the vision tower) and at its input words; positive: the row raises "
            f"the coordinate. The gradient is {taken}. It is an estimate, so masking is done for "
            "real for the top samples, beside as many random rows."
        )
    return told


def _area(one: Separation) -> float:
    return one.area if one.label else 0.0


def _verdict(one: Separation) -> Verdict:
    if not one.label:
        return Verdict.INFO
    if one.significant and one.area >= _LEAST_AREA:
        return Verdict.DIFFERS
    return Verdict.INCONCLUSIVE if one.least > _ALPHA else Verdict.NO_DIFFERENCE


def _separated(one: Separation) -> Finding:
    name, target = one.measured.coordinate.text, one.target.name
    end = "high" if one.high else "low"
    text = f"{target}: {name} is {end} for {one.label} ({_numbers(one)})."
    return Finding(text, Verdict.DIFFERS, target, _values(one))


def _unseparated(several: Sequence[Separation], verdict: Verdict) -> Finding:
    """One sentence for all targets whose labels a coordinate is not seen to separate."""
    best = several[0]
    name, end = best.measured.coordinate.text, "high" if best.high else "low"
    where = ", ".join(one.target.name for one in several)
    closest = f"{best.target.name}, {end} for {best.label}: {_numbers(best)}"
    text = (
        f"{name} is not seen to separate labels of {where} with an AUC of {_LEAST_AREA} or more "
        f"(closest: {closest})."
    )
    if verdict is Verdict.INCONCLUSIVE:
        text = (
            f"Whether {name} separates labels of {where} cannot be told with {best.units} "
            f"independent samples (closest: {closest})."
        )
    return Finding(text, verdict, name, _values(best))


def _learnt(one: Drives, several: Sequence[Separation]) -> Finding:
    where = ", ".join(each.target.name for each in several if each.learnt)
    text = (
        f"{one.coordinate.text}: its direction was learnt from samples of {where}, so whether it "
        "separates their labels is tested on the others only, if there are enough."
    )
    return Finding(text, subject=one.coordinate.text)


def _values(one: Separation) -> dict[str, Cell]:
    return {
        "coordinate": one.measured.coordinate.text,
        "label": one.label,
        "auc": one.auc,
        "shuffled": one.shuffled,
        "p": one.p,
        "p_corrected": one.corrected,
        "units": one.units,
    }


def _numbers(one: Separation) -> str:
    return f"AUC {one.auc:.2f}, shuffled labels {_side(one):.2f}, p = {one.corrected:.2g}"


def _side(one: Separation) -> float:
    """What shuffled labels give, on the side on which the label lies."""
    return one.shuffled if one.high else 1 - one.shuffled


def _described(one: Drives, samples: Sequence[Sample]) -> Finding:
    values = one.measured.finite
    top = samples[one.shown[0].sample].id
    low, high = float(values.min()), float(values.max())
    text = (
        f"{one.coordinate.text} goes from {low:.3g} to {high:.3g}, median {one.measured.median:.3g}"
        f"; it is largest in {top}."
    )
    numbers: dict[str, Cell] = {"min": low, "max": high, "median": one.measured.median}
    return Finding(text, subject=one.coordinate.text, values=numbers)


def _unraised(one: Drives) -> Finding:
    text = (
        f"{one.coordinate.text}: nothing in its top samples raises it above what the row gives "
        "with which patches and words are compared, so what is drawn does not say what drives it."
    )
    return Finding(text, subject=one.coordinate.text)


def _masked(one: Drives, samples: Sequence[Sample], *, asked: bool) -> Finding | None:
    """Whether masking what is said to drive a coordinate lowers it, more than masking others."""
    strongest, random = one.alike("strongest"), one.alike("random")
    if not strongest or not random:
        return _unraised(one) if one.driven and asked else None
    (single, what), many = _WORDS[strongest[0].kind], max(len(mask.rows) for mask in strongest)
    most = (
        f"the {single} that drives it most"
        if many == 1
        else f"the {many} {what} that drive it most"
    )
    by_draw = np.reshape([mask.fall for mask in random], (len(strongest), -1)).mean(0)
    values = {
        "strongest": _mean(mask.fall for mask in strongest),
        "random": float(by_draw.mean()),
        "most_random": float(by_draw.max()),
        "estimated": _mean(mask.estimated for mask in strongest),
        "all": _mean(mask.fall for mask in one.alike("all")),
        "estimated_all": _mean(mask.estimated for mask in one.alike("all")),
        "above_median": one.reach,
    }
    share = values["strongest"] / one.reach if one.reach > 0 else 0.0
    of_it = f", {share:.0%} of what lies above the median" if share > 0 else ""
    text = (
        f"{one.coordinate.text}: in {count(len(strongest), 'top sample')}, replacing "
        f"{most} changes it by {-values['strongest']:.3g} (estimated "
        f"{-values['estimated']:.3g}{of_it}), as many random ones by {-values['random']:.3g}, all "
        f"{what} by {-values['all']:.3g} (estimated {-values['estimated_all']:.3g})"
    )
    doubt = _doubt(values, what)
    named = tuple(samples[i].id for i in one.masked_samples)
    return Finding(
        f"{text}{doubt}.",
        subject=one.coordinate.text,
        values={"coordinate": one.coordinate.text, **values, "believed": not doubt},
        samples=named,
    )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _doubt(values: Mapping[str, float], what: str) -> str:
    """Why what is drawn must not be believed; "" if masking bears it out."""
    if values["strongest"] <= 0:
        return ": what is drawn must not be believed, since replacing it does not lower the value"
    if values["strongest"] <= values["most_random"]:
        return f": what is drawn must not be believed, since random {what} do as much"
    if values["strongest"] < _LEAST_SHARE * values["estimated"]:
        return ": what is drawn must not be believed, since masking does far less than is estimated"
    return ""
