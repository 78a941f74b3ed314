"""Which patches move the answer, drawn over pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmlens.abc import AnalysisContext
from vlmlens.results import Cell, Figure, Finding, Verdict
from vlmlens.sites import Axis
from vlmlens.tokens import TokenKind
from vlmlens_plugins.analysis._attribution.patches import patch_site
from vlmlens_plugins.analysis._results import slug, table
from vlmlens_plugins.analysis._sweeps.pictures import patch_sheets
from vlmlens_plugins.analysis.attribution.direct import Asked, Direct, compared
from vlmlens_plugins.analysis.attribution.options import AttributionOptions
from vlmlens_plugins.analysis.attribution.patches import (
    Floats,
    PatchOptions,
    PatchWork,
    SourceOptions,
    SourceWork,
)
from vlmlens_plugins.analysis.attribution.section import Section, signed

_HEADS = 2
_LEFT = 0.05
"""More of the effect than this left over is worth a warning."""


def sections(
    context: AnalysisContext,
    asked: Sequence[Asked],
    direct: Direct | None,
    options: AttributionOptions,
) -> list[Section]:
    """Patches by integrated gradients, and what the strongest heads take from each.

    Args:
        context: The context of the analysis.
        asked: The samples.
        direct: Direct contributions, from which heads are chosen; None: no heads are shown.
        options: The analysis's options.
    """
    shown: list[int] = []
    for task in dict.fromkeys(one.task for one in asked):
        own = [i for i, one in enumerate(asked) if one.task == task and one.unit.sample.images]
        shown += own[: options.patches]
    if not shown:
        context.warn("Patches are left out: no sample that is followed has an image.")
        return []
    found = [_integrated(context, [asked[i] for i in shown], options)]
    heads = [] if direct is None else _strongest_heads(direct)
    if heads:
        found.append(_sources(context, [asked[i] for i in shown], heads))
    return found


def _integrated(
    context: AnalysisContext, asked: Sequence[Asked], options: AttributionOptions
) -> Section:
    vlm = context.model()
    work = PatchWork(PatchOptions(steps=options.steps))
    results = context.run_units(work, [one.unit for one in asked])
    site = patch_site(vlm)
    values = [np.array(one["patches"])[None] for one in results]
    rows: list[dict[str, Cell]] = []
    for one, result in zip(asked, results, strict=True):
        whole, summed = result["image"] - result["mean"], float(np.sum(result["patches"]))
        rows.append(
            {
                "sample": one.unit.sample.id,
                "task": one.task,
                "image": result["image"],
                "mean_patch": result["mean"],
                "patches": summed,
                "left": whole - summed,
            }
        )
    figure = Figure(
        "patch-gradients",
        f"What each patch adds to the {compared(asked)}, integrated gradients at {site.name}",
        "patches",
        x=(),
        y=[site.name],
        y_label=compared(asked),
        sheets=patch_sheets(vlm, [one.unit.sample for one in asked], site.axis, values),
    )
    findings = [
        _finding(
            task,
            compared([one for one in asked if one.task == task]),
            [row for row in rows if row["task"] == task],
        )
        for task in dict.fromkeys(one.task for one in asked)
    ]
    title = "Integrated gradients of patches: what they sum to, and what is left"
    return Section(findings, [table("patches", title, rows, ("task",))], [figure], _notes(options))


def _finding(task: str, what: str, rows: Sequence[dict[str, Cell]]) -> Finding:
    summed, left, image, mean = (
        np.array([row[name] for row in rows], float)
        for name in ("patches", "left", "image", "mean_patch")
    )
    share = float(np.abs(left).sum() / max(np.abs(image - mean).sum(), 1e-12))
    samples = "1 sample" if len(rows) == 1 else f"{len(rows)} samples"
    text = (
        f"{task}: the patches add {signed(summed.mean())} to the {what}, from "
        f"{mean.mean():.2f} with the mean patch everywhere to {image.mean():.2f} ({samples}). "
        f"{share:.1%} of that is left unexplained"
    )
    text += ": do not believe them. More steps may help (steps)." if share > _LEFT else "."
    values: dict[str, Cell] = {"patches": float(summed.mean()), "left": float(share)}
    followed = [str(row["sample"]) for row in rows]
    return Finding(text, Verdict.INFO, task, values, samples=followed, notable=share > _LEFT)


def _strongest_heads(direct: Direct) -> list[str]:
    sizes = np.abs(direct.values.mean(1))
    order = np.argsort(-sizes, kind="stable")
    return [direct.names[i] for i in order if ".heads[" in direct.names[i]][:_HEADS]


def _sources(context: AnalysisContext, asked: Sequence[Asked], heads: Sequence[str]) -> Section:
    """What heads take from each patch."""
    vlm = context.model()
    layout = vlm.encode([asked[0].unit.sample]).layout(0, Axis.LLM)
    if not len(layout.positions(TokenKind.IMAGE)):
        context.warn(
            "What heads take from each patch is left out: image rows are not among those that the "
            "language model's self-attention reads."
        )
        return Section()
    results = context.run_units(
        SourceWork(SourceOptions(heads=list(heads))), [one.unit for one in asked]
    )
    unknown = [head for i, head in enumerate(heads) if any(r["heads"][i] is None for r in results)]
    kept = [i for i, head in enumerate(heads) if head not in unknown]
    for head in unknown:
        context.warn(
            f"What {head} takes from each row is left out: it is not known, or not the sum of "
            "weights times values."
        )
    if not kept:
        return Section()
    values: list[Floats] = [
        np.array([[result["heads"][i][row] for row in result["image"]] for i in kept])
        for result in results
    ]
    figure = Figure(
        slug("head sources"),
        f"What the strongest heads take from each patch, as it adds to the {compared(asked)}",
        "patches",
        x=(),
        y=[heads[i] for i in kept],
        y_label=compared(asked),
        sheets=patch_sheets(vlm, [one.unit.sample for one in asked], Axis.LLM, values),
    )
    note = (
        "What a head adds directly at the last row is a sum over the rows that it reads, weight "
        "times value, so it splits into what it takes from each patch, without any gradient."
    )
    return Section(figures=[figure], notes=[note])


def _notes(options: AttributionOptions) -> list[str]:
    return [
        "Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365) of image rows, from "
        f"their mean to what they are, at the middles of {options.steps} equal steps. The patches "
        "sum to what the image does against the mean patch, up to what is said to be left. Rows "
        "already hold what the vision tower mixed in from other patches."
    ]
