"""Direct contributions in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from vlmlens.abc import AnalysisContext
from vlmlens.results import Cell, Figure, Finding, Series, Verdict
from vlmlens_plugins.analysis._results import slug, table
from vlmlens_plugins.analysis._statistics import bootstrap_weights, generator, interval
from vlmlens_plugins.analysis.attribution.direct import Asked, Direct
from vlmlens_plugins.analysis.attribution.options import AttributionOptions
from vlmlens_plugins.analysis.attribution.section import Section

_NAMED = 3
_CAPPED = 1e-2
"""A larger difference between the sum and the model's own logit difference is a soft cap."""


def section(
    direct: Direct,
    asked: Sequence[Asked],
    about: Sequence[str],
    context: AnalysisContext,
    options: AttributionOptions,
) -> Section:
    """The part of the result about direct contributions.

    Args:
        direct: The numbers.
        asked: The samples.
        about: Which samples and answers these are.
        context: The context of the analysis.
        options: The analysis's options.
    """
    tasks = dict.fromkeys(one.task for one in asked)
    own = {task: [i for i, one in enumerate(asked) if one.task == task] for task in tasks}
    rows = [
        row
        for task, numbers in own.items()
        for row in _rows(direct, asked, task, numbers, context, options)
    ]
    title = "What each component adds to the logit difference directly"
    return Section(
        [_finding(direct, task, numbers) for task, numbers in own.items()],
        [table("direct", title, rows, ("task", "component"))],
        [_figure(direct, task, numbers) for task, numbers in own.items()],
        [*_notes(direct), *about],
    )


def _finding(direct: Direct, task: str, own: Sequence[int]) -> Finding:
    values = direct.values[:, own].mean(1)
    order = np.argsort(-np.abs(values), kind="stable")[:_NAMED]
    named = ", ".join(f"{direct.names[i]} ({values[i]:+.2f})" for i in order)
    total = float(direct.total[own].mean())
    kinds = {
        "heads": sum(v for n, v in zip(direct.names, values, strict=True) if ".heads[" in n),
        "MLPs": sum(v for n, v in zip(direct.names, values, strict=True) if "mlp_out" in n),
    }
    rest = total - sum(kinds.values())
    text = (
        f"{task}: the logit difference of {total:.2f} is what heads add ({kinds['heads']:+.2f}), "
        f"MLPs ({kinds['MLPs']:+.2f}) and the rest ({rest:+.2f}). Most is added by {named}."
    )
    numbers: dict[str, Cell] = {
        "component": direct.names[int(order[0])], "added": float(values[order[0]]),
        "total": total, "logits": float(direct.logits[own].mean()),
    }  # fmt: skip
    return Finding(text, Verdict.INFO, task, numbers)


def _rows(
    direct: Direct,
    asked: Sequence[Asked],
    task: str,
    own: Sequence[int],
    context: AnalysisContext,
    options: AttributionOptions,
) -> Iterator[dict[str, Cell]]:
    names = list(dict.fromkeys(asked[i].group for i in own))
    member = np.array([[asked[i].group == name for name in names] for i in own], float)
    weights = bootstrap_weights(len(names), options.draws, generator(context.seed, "direct", task))
    counts = weights @ member.sum(0)
    for name, values in zip(direct.names, direct.values[:, own], strict=True):
        low, high = interval((weights @ (values @ member)) / counts)
        yield {
            "task": task,
            "component": name,
            "samples": len(own),
            "added": float(values.mean()),
            "added_low": float(low),
            "added_high": float(high),
        }


def _figure(direct: Direct, task: str, own: Sequence[int]) -> Figure:
    """By block: what its heads and its MLP add, each together."""
    values = direct.values[:, own].mean(1)
    blocks = list(dict.fromkeys(_block(name) for name in direct.names if name != "constant"))
    sums = {kind: dict.fromkeys(blocks, 0.0) for kind in ("heads", "MLP", "the rest")}
    for name, value in zip(direct.names, values, strict=True):
        if name != "constant":
            sums[_kind(name)][_block(name)] += float(value)
    return Figure(
        slug(f"direct {task}"),
        f"{task}: what each block adds to the logit difference directly",
        "bar",
        x=blocks,
        x_label="block",
        y_label="logit difference",
        series=[Series(kind, list(by_block.values())) for kind, by_block in sums.items()],
    )


def _kind(name: str) -> str:
    if ".heads[" in name:
        return "heads"
    return "MLP" if name.endswith("mlp_out") else "the rest"


def _block(name: str) -> str:
    return ".".join(name.partition(":")[0].partition(" ")[0].split(".")[:3])


def _notes(direct: Direct) -> list[str]:
    found = [
        "Direct contributions: what each component writes at the last row, times the direction of "
        "the logit difference in the unembedding, with the scale of the final norm frozen at its "
        "value in the pass (Elhage et al. 2021). They sum to the logit difference. What a "
        "component does through later ones is not in them.",
    ]
    far = np.abs(direct.total - direct.logits)
    if bool((far > _CAPPED * np.maximum(1, np.abs(direct.logits))).any()):
        found.append("The model caps its logits; contributions are to the logits before the cap.")
    return found
