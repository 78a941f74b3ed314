"""What was found of SAEs, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens._display import count
from vlmlens.results import FeatureLabel, FeaturePage, Figure, Finding, Glance, Table, Verdict
from vlmlens_plugins.analysis._separating import ALPHA
from vlmlens_plugins.analysis.sae import effects as trying
from vlmlens_plugins.analysis.sae import judging
from vlmlens_plugins.analysis.sae.judging import Conclusion, Overall, Role, conclude
from vlmlens_plugins.analysis.sae.making import training_words
from vlmlens_plugins.analysis.sae.options import SaeOptions
from vlmlens_plugins.analysis.sae.pages import LEAST_AREA
from vlmlens_plugins.analysis.sae.reading import Found

_VERDICTS = {
    Overall.BETTER: Verdict.DIFFERS,
    Overall.RECONSTRUCTION: Verdict.DIFFERS,
    Overall.CONCEPTS: Verdict.DIFFERS,
    Overall.NO_BETTER: Verdict.NO_DIFFERENCE,
    Overall.UNKNOWN: Verdict.INCONCLUSIVE,
}

_BY_HEART = 1.25


@dataclass(frozen=True, slots=True)
class Named:
    """The feature that is shown for one value of a label or attribute.

    Args:
        label: What it separates, tested on held-out samples.
        page: Its page.
    """

    label: FeatureLabel
    page: FeaturePage


def named(found: Found) -> dict[str, list[Named]]:
    """By task or attribute, a feature for each value that one of those shown is named after."""
    best: dict[tuple[str, str], Named] = {}
    for page in () if found.shown is None else found.shown.pages:
        for label in page.labels:
            key = label.target, label.label
            clear = label.corrected < ALPHA and label.auc >= LEAST_AREA
            if clear and (key not in best or label.auc > best[key].label.auc):
                best[key] = Named(label, page)
    told: dict[str, list[Named]] = {}
    for (target, _), one in best.items():
        told.setdefault(target, []).append(one)
    return told


def findings(found: Sequence[Found]) -> list[Finding]:
    """Per place: whether the SAE beats an untrained one, what features stand for, how stable."""
    tried = [one.tried for one in found if one.tried is not None]
    return [
        *(_verdict(one) for one in found),
        *(finding for one in tried for finding in trying.findings(one)),
        *(finding for one in found for finding in _features(one)),
    ]


def overview(found: Sequence[Found]) -> list[Glance]:
    """Per task and attribute, the place whose features tell its values best."""
    best: dict[str, tuple[float, Glance]] = {}
    for one in found:
        own = one.judged.bases[one.first.name]
        told = named(one)
        for name, singles in own.singles.items():
            values = told.get(name, [])
            verdict = Verdict.DIFFERS if values else Verdict.NO_DIFFERENCE
            untrained = one.judged.beside(one.first.name).singles[name].auc.value
            text = f"{one.place.name}: {len(values)} of {len(singles.best)}" if values else "none"
            glance = Glance(
                name, "has features", text, verdict, singles.auc.value, f"untrained {untrained:.2f}"
            )
            rank = len(values) + singles.auc.value
            if name not in best or rank > best[name][0]:
                best[name] = rank, glance
    return [glance for _, glance in best.values()]


def tables(found: Sequence[Found]) -> list[Table]:
    """How SAEs were judged, and which features are shown."""
    tried = [one.tried for one in found if one.tried is not None]
    return [
        *judging.tables([one.judged for one in found]),
        *(made for one in tried for made in trying.tables(one)),
    ]


def figures(found: Sequence[Found]) -> list[Figure]:
    """Pages of features first, then how SAEs were judged."""
    shown = [one.shown for one in found if one.shown is not None and one.shown.pages]
    tried = [one.tried for one in found if one.tried is not None]
    return [
        *shown,
        *(figure for one in tried for figure in trying.figures(one)),
        *(figure for one in found for figure in judging.figures(one.judged)),
    ]


def notes(found: Sequence[Found], options: SaeOptions) -> list[str]:
    """How the numbers were made."""
    return [
        *filter(None, (training_words(made) for one in found for made in one.made)),
        *(_on(one) for one in found),
        "Explained variance is 1 - sum |x - x'|^2 / sum |x - mean|^2 over all held-out rows. "
        "Untrained: random directions of the same number, as many firing per row. Random rows: "
        "rows to learn from as directions. Neurons and PCA: the dimensions of a row, and its "
        "principal directions. As many features of each fire per row as of the SAE.",
        "Features are chosen on the samples to learn from, and tested on the others: AUC of a "
        "sample's largest code, against shuffled labels, corrected by Holm's method for all "
        f"features of a column that are shown. A feature has a name if its AUC is {LEAST_AREA} or "
        f"more, p < {ALPHA:g}.",
        f"The SAE that is shown is the first: {', '.join(_first(one) for one in found)}.",
        *dict.fromkeys(
            note for one in found if one.tried is not None for note in trying.notes(one.tried)
        ),
        *_saved(found, options),
    ]


def _verdict(one: Found) -> Finding:
    concluded: Conclusion = conclude(one.judged, one.first.name)
    own, other = one.judged.bases[one.first.name], one.judged.beside(one.first.name)
    return Finding(
        f"{one.place.name}: the SAE is {concluded.overall}. {concluded.text}",
        _VERDICTS[concluded.overall],
        subject=one.place.name,
        values={
            "explained": own.explained.value,
            "untrained": other.explained.value,
            "neurons": one.judged.beside(one.first.name, Role.NEURONS).explained.value,
            "pca": one.judged.beside(one.first.name, Role.PRINCIPAL).explained.value,
            "l0": own.l0,
            "dead": own.dead,
        },
        notable=concluded.overall is Overall.NO_BETTER,
    )


def _features(one: Found) -> Iterator[Finding]:
    own, told = one.judged.bases[one.first.name], named(one)
    for name in dict.fromkeys([*own.singles, *told]):
        if name in told:
            yield _told(one, name, told[name])
        elif one.shown is not None:
            yield Finding(
                f"{name}: no feature of {one.place.name} that is shown stands for a value of it "
                f"(AUC of the best single features {own.singles[name].auc.value:.2f}, "
                "held-out samples).",
                Verdict.NO_DIFFERENCE,
                subject=name,
            )
    yield _stability(one)


def _told(one: Found, name: str, values: Sequence[Named]) -> Finding:
    best = max(values, key=lambda each: each.label.auc)
    listed = ", ".join(
        f"{each.label.label} {each.page.number} (AUC {each.label.auc:.2f})" for each in values[:8]
    )
    known = one.judged.bases[one.first.name].singles.get(name)
    of = f" of {len(known.best)}" if known is not None else ""
    return Finding(
        f"{name}: {len(values)}{of} values have a feature of their own in {one.place.name}: "
        f"{listed}.",
        Verdict.DIFFERS,
        subject=name,
        values={
            "feature": best.page.number,
            "auc": best.label.auc,
            "shuffled": best.label.shuffled,
            "p_holm": best.label.corrected,
        },
    )


def _stability(one: Found) -> Finding:
    own = one.judged.bases[one.first.name]
    dead = f"{own.dead:.0%} of its {count(own.sae.features, 'feature')} never fire in "
    dead += f"{own.rows:,} held-out rows"
    pairs = [each for each in one.judged.stability if one.first.name in (each.one, each.other)]
    if not pairs:
        return Finding(f"{one.place.name}: {dead}.", subject=one.place.name)
    value = float(np.mean([each.value for each in pairs]))
    untrained = float(np.mean([each.untrained for each in pairs]))
    return Finding(
        f"{one.place.name}: {dead}; an SAE from another seed has features of matched cosine "
        f"{value:.2f} (random directions: {untrained:.2f}).",
        subject=one.place.name,
        values={"dead": own.dead, "stability": value, "random_directions": untrained},
    )


def _on(one: Found) -> str:
    judged = one.judged
    rows = "stored" if one.place.stored else "from passes of the model, not stored"
    alike = ""
    if any(len(numbers) > 1 for numbers in one.split.alike.values()):
        alike = " Samples about one picture count once: its rows are the same for all of them."
    return (
        f"{one.place.name}: rows are {rows}; {count(len(one.split.learn), 'sample')} to learn "
        f"from; to judge, {judged.rows:,} rows of {judged.samples:,} held-out samples in "
        f"{judged.groups:,} groups.{alike}"
    )


def _first(one: Found) -> str:
    return f"{one.place.name}: {one.first.name}"


def _saved(found: Sequence[Found], options: SaeOptions) -> list[str]:
    if options.file:
        return [
            "An SAE of a file may have learnt from samples that are held out here: then what it "
            "explains is flattered. Baselines and the choice of features never saw them."
        ]
    names = [made.folder.name for one in found for made in one.made]
    return [
        f"SAEs are saved as SAELens folders, with the features shown beside them: "
        f"{', '.join(names)}."
    ]


def few_rows(one: Found) -> str:
    """A warning that the SAE learnt its rows by heart; "" if held-out rows are like them."""
    trained, held = one.first.trained.get("l0"), one.judged.bases[one.first.name].l0
    if not trained or held <= _BY_HEART * trained:
        return ""
    if one.first.setting is None:
        return (
            f"{one.place.name}: {held:.1f} features fire in a row, and {trained:.1f} did in those "
            f"that {one.first.name} was trained on: these rows are not like them."
        )
    return (
        f"{one.place.name}: {held:.1f} features fire in a held-out row, and {trained:.1f} in those "
        "that were learnt from. There are too few rows for so many features: give more samples, or "
        "set `width` lower."
    )
