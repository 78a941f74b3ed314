"""What the evidence analysis found, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmlens.results import Cell, Finding, Glance, Verdict
from vlmlens_plugins.analysis._estimates import Estimate
from vlmlens_plugins.analysis.evidence.measured import TaskNumbers
from vlmlens_plugins.analysis.evidence.options import EvidenceOptions
from vlmlens_plugins.analysis.evidence.verdict import Judged

_SHORT = {
    Verdict.RESTS_ON_REGION: "the region",
    Verdict.RESTS_ON_IMAGE: "the image, not the region",
    Verdict.RESTS_ON_TEXT: "the text",
    Verdict.INCONCLUSIVE: "not shown",
}


def findings(tasks: Sequence[TaskNumbers], judged: Sequence[Judged]) -> list[Finding]:
    """What each task's answers rest on, then what hints do."""
    pairs = list(zip(tasks, judged, strict=True))
    rests = [_rests(task, verdict) for task, verdict in pairs]
    return [*rests, *(_hints(task) for task in tasks if task.means["vision"].groups)]


def overview(tasks: Sequence[TaskNumbers], judged: Sequence[Judged]) -> list[Glance]:
    """One cell per task."""
    cells = []
    for task, verdict in zip(tasks, judged, strict=True):
        need, random = task.shares.get("need"), task.shares.get("random")
        cells.append(
            Glance(
                task.name,
                "rests on",
                _SHORT[verdict.verdict],
                verdict.verdict,
                value=number(need.value) if need else None,
                beside=f"random {random.value:.2f}" if random else "",
            )
        )
    return cells


def notes(options: EvidenceOptions, overlap: float) -> list[str]:
    """How the numbers were made."""
    scored = "sum" if options.score == "sum" else "mean"
    blind = "the text alone" if options.blind == "text" else "a gray image"
    found = [
        "Score s: log-probability of the right answer less that of the choice that is its "
        "strongest rival with the full image; without choices, its log-probability (teacher "
        f"forced, {scored} over tokens), and answers are compared with that of the exchanged "
        f"image. No image: {blind}.",
        "need = s(full) - s(region hidden); enough = s(only the region) - s(no image); specificity "
        "= need - the mean over random regions; prior = s(no image). Shares are ratios of means to "
        "s(full) - s(no image); they are left out where the image does nothing for the score.",
        f"Pixels are hidden in the original image, by {' and '.join(options.fills)}; numbers are "
        f"means over these. The {options.random_regions} random regions are the same shape, moved; "
        "of many draws, those that overlap the key region least. They are filled in turn.",
        "Other background: that of a sample with another answer (where there is none, of any of "
        "the task), scaled to this one's size; its own key region is filled with its mean color "
        "first.",
        "Images are exchanged between samples of different groups with the same prompt. Following "
        "and keeping are counted among answers that are right before.",
        "Vision rate, text rate, neither: of the two conflicts of image and hint (right image with "
        "a wrong hint, wrong image with a right one), the shares that the image wins, the hint "
        "wins, and none. Preference: (vision - text) / (vision + text). It says little where one "
        "of the cues alone is not followed either, so both accuracies stand beside it.",
        "Intervals: 95 % percentile bootstrap over groups, the same resamples for all numbers of a "
        "task; exact for shares of 0 and 1. p: need against random regions, by flipping signs of "
        "groups, corrected by Holm over tasks.",
    ]
    if np.isfinite(overlap):
        found.append(f"Random regions overlap the key region by {_percent(overlap)} on average.")
    return found


def number(value: float) -> float | None:
    """A number for tables; None for NaN."""
    return float(value) if np.isfinite(value) else None


def _rests(task: TaskNumbers, judged: Judged) -> Finding:
    verdict = judged.verdict
    text = f"{task.name}: {_SENTENCES[verdict]}"
    if verdict is Verdict.RESTS_ON_IMAGE and judged.specific is not False:
        text += " alone"
    reasons = _reasons(task, judged)
    text += f": {reasons}." if reasons else "."
    if verdict in (Verdict.INCONCLUSIVE, Verdict.RESTS_ON_IMAGE):
        text += _missing(task, judged)
    return Finding(
        text,
        verdict,
        task.name,
        _values(task),
        notable=verdict in (Verdict.RESTS_ON_IMAGE, Verdict.RESTS_ON_TEXT),
    )


_SENTENCES = {
    Verdict.RESTS_ON_REGION: "the answer rests on the key region",
    Verdict.RESTS_ON_IMAGE: "the answer rests on the image, but not on the key region",
    Verdict.RESTS_ON_TEXT: "the answer rests on the text",
    Verdict.INCONCLUSIVE: "what the answer rests on is not shown",
}


def _reasons(task: TaskNumbers, judged: Judged) -> str:
    follows, flips = task.means["follows"], task.means["flips"]
    if judged.verdict is Verdict.RESTS_ON_TEXT:
        return f"another image changes {_interval(flips)} of the answers"
    parts = []
    if "need" in task.shares:
        shares = task.shares
        hidden = "the key region" if judged.verdict is Verdict.INCONCLUSIVE else "it"
        parts.append(
            f"hiding {hidden} takes away {_interval(shares['need'])} of what the image does, "
            f"hiding random regions of equal area {_percent(shares['random'].value)}"
        )
    if follows.groups:
        parts.append(f"{_interval(follows)} of the answers follow an exchanged image")
    if "background" in task.shares:
        taken = task.means["to_background"].value
        told = f" and changes {_percent(taken)} of the answers to its own" if judged.moved else ""
        parts.append(f"another background takes away {_interval(task.shares['background'])}{told}")
    return "; ".join(parts)


def _missing(task: TaskNumbers, judged: Judged) -> str:
    """What speaks against the region, or is not decided."""
    said = []
    if not task.means["flips"].groups:
        said.append(
            "no two samples have the same prompt and different answers, so that no image can be "
            "exchanged"
        )
    elif not judged.follows:
        said.append(
            "answers do not follow an exchanged image"
            if judged.follows is False
            else "whether answers follow an exchanged image is open"
        )
    if not task.means["need"].groups:
        said.append("no sample has a key region")
    elif not task.shares:
        said.append("the right answer is not shown to be likelier with the image than without it")
    else:
        if judged.specific is not True:
            does = "does no more" if judged.specific is False else "is not shown to do more"
            said.append(f"hiding the region {does} than hiding random regions")
        if judged.moved is not False:
            said.append(
                "another background moves the answers"
                if judged.moved
                else "how far another background moves the answers is open"
            )
    return f" Against the region: {'; '.join(said)}." if said else ""


def _hints(task: TaskNumbers) -> Finding:
    means = task.means
    preference = task.preference
    beside = f" (preference {preference:+.2f})" if np.isfinite(preference) else ""
    text = (
        f"{task.name}: where image and hint disagree, the image wins {_interval(means['vision'])} "
        f"of the answers, the hint {_interval(means['text'])}{beside}; alone, the image gives "
        f"{_percent(means['right'].value)} right answers, and a hint is followed in "
        f"{_percent(means['hint_alone'].value)}."
    )
    values: dict[str, Cell] = {
        "vision": number(means["vision"].value),
        "text": number(means["text"].value),
        "neither": number(means["neither"].value),
        "preference": number(preference),
        "image_alone": number(means["right"].value),
        "hint_alone": number(means["hint_alone"].value),
    }
    return Finding(text, Verdict.INFO, task.name, values)


def _values(task: TaskNumbers) -> dict[str, Cell]:
    found: dict[str, Cell] = {"effect": number(task.means["effect"].value)}
    found |= {f"{name}_share": number(each.value) for name, each in task.shares.items()}
    names = ("need", "enough", "specificity", "background", "follows", "flips", "prior")
    found |= {name: number(task.means[name].value) for name in names}
    return {**found, "p": number(task.corrected)}


def _percent(value: float) -> str:
    return f"{round(100 * value)} %" if np.isfinite(value) else "an unknown share"


def _interval(found: Estimate) -> str:
    if not np.isfinite(found.value):
        return "an unknown share"
    if not np.isfinite(found.low):
        return _percent(found.value)
    low, high = round(100 * found.low), round(100 * found.high)
    return f"{_percent(found.value)} [{low}, {high}]"
