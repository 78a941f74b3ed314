"""Nodes in words: the strongest, what really exchanging them does, and what not to believe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from vlmlens.results import Cell, Figure, Finding, Glance, Verdict
from vlmlens_plugins.analysis._results import slug, table
from vlmlens_plugins.analysis._sweeps.effects import ALPHA, too_few
from vlmlens_plugins.analysis._sweeps.pictures import heat_map
from vlmlens_plugins.analysis.attribution.checked import OFF, Checked
from vlmlens_plugins.analysis.attribution.options import AttributionOptions
from vlmlens_plugins.analysis.attribution.section import Section, percent, strongest

_NAMED = 3
_DRAWN = 0.01
"""Groups of rows in which no component does more than this share are not drawn."""
_GOOD = 0.7
"""A smaller rank correlation is not worth trusting."""


def section(found: Sequence[Checked], options: AttributionOptions) -> Section:
    """The part of the result about nodes.

    Args:
        found: Per task.
        options: The analysis's options.
    """
    return Section(
        [each for one in found for each in _findings(one)],
        [
            table(
                "nodes",
                "What exchanging each node does: estimated, and measured where it was",
                [row for one in found for row in _rows(one)],
                ("task", "site", "rows"),
            )
        ],
        [figure for one in found for figure in _figures(one)],
        _notes(options),
        [each for one in found for each in _glances(one)],
    )


def _findings(found: Checked) -> Iterator[Finding]:
    yield _strongest(found)
    if found.real is not None:
        yield _fidelity(found)


def _strongest(found: Checked) -> Finding:
    order = strongest(found.estimate, 0.005)
    best = order[0]
    named = ", ".join(f"{found.nodes[i]} ({percent(found.estimate[i])})" for i in order)
    text = (
        f"{found.task}: of {len(found.nodes)} components at groups of rows, these move the answer "
        f"most by estimate: {named}"
    )
    values: dict[str, Cell] = {
        "site": found.nodes[best].site, "rows": found.nodes[best].rows,
        "estimate": float(found.estimate[best]), "pairs": found.items,
    }  # fmt: skip
    if found.real is None:
        return Finding(f"{text}.", Verdict.INFO, found.task, values)
    real, at = found.real, list(found.measured).index(best)
    sure = real.p[at] <= ALPHA
    values |= {
        "effect": float(real.value[at]), "effect_low": float(real.low[at]),
        "effect_high": float(real.high[at]), "p": float(real.p[at]),
    }  # fmt: skip
    text += (
        f". Really exchanging the first does {percent(real.value[at])} (95 % interval "
        f"{percent(real.low[at])} to {percent(real.high[at])}; {_count(found.items)})."
    )
    return Finding(text, Verdict.DIFFERS if sure else Verdict.INCONCLUSIVE, found.task, values)


def few(found: Checked) -> str:
    """A warning that no node can be shown to matter with so few pairs; "" if one can."""
    if found.real is None:
        return ""
    return too_few(found.task, found.real.groups, len(found.real.value))


def _fidelity(found: Checked) -> Finding:
    correlation, off = found.correlation, found.unbelievable
    drawn = len(found.measured) - found.strongest
    which = f"the {found.strongest} strongest nodes and {drawn} random ones"
    which = which if drawn else f"all {found.strongest} nodes"
    text = f"{found.task}: the estimates were held against really exchanging {which}"
    if np.isfinite(correlation):
        text += (
            f": rank correlation {correlation:.2f}; the estimates are {found.reached:.0%} of the "
            "real size."
        )
    else:
        text += ", which are too few, or too much alike, for a rank correlation."
    if off:
        named = ", ".join(
            f"{found.nodes[i]} (estimated {percent(found.estimate[i])}, really "
            f"{percent(found.real.value[list(found.measured).index(i)])})"  # type: ignore[union-attr]
            for i in off[:_NAMED]
        )
        more = f", and {len(off) - _NAMED} more" if len(off) > _NAMED else ""
        text += f" Do not believe them for {named}{more}."
    weak = bool(round(correlation, 2) < _GOOD)
    if weak:
        text += " The ranking itself is not to be believed: use patching."
    values: dict[str, Cell] = {
        "correlation": float(correlation) if np.isfinite(correlation) else None,
        "reached": float(found.reached) if np.isfinite(found.reached) else None,
        "measured": len(found.measured), "off": len(off),
    }  # fmt: skip
    return Finding(text, Verdict.INFO, found.task, values, notable=weak or bool(off))


def _rows(found: Checked) -> Iterator[dict[str, Cell]]:
    for number, node in enumerate(found.nodes):
        yield {
            "task": found.task,
            "site": node.site,
            "rows": node.rows,
            "pairs": found.items,
            "estimate": float(found.estimate[number]),
            "grad_drop": _number(found.dropped[number]),
            "looks": _number(found.looks[number]),
            **_measured(found, number),
        }


def _measured(found: Checked, number: int) -> dict[str, Cell]:
    """What really exchanging a node did; nothing where it was not exchanged."""
    real = found.real
    names = ("effect", "effect_low", "effect_high", "p_holm", "chosen")
    if real is None or number not in found.measured:
        return dict.fromkeys(names)
    at = list(found.measured).index(number)
    values: list[Cell] = [float(each[at]) for each in (real.value, real.low, real.high, real.p)]
    chosen = "strongest" if at < found.strongest else "random"
    return dict(zip(names, [*values, chosen], strict=True))


def _figures(found: Checked) -> Iterator[Figure]:
    """The estimates at each group of rows: the colour is their size, on one scale for all."""
    strongest_of_all = float(np.abs(found.estimate).max())
    for rows in dict.fromkeys(node.rows for node in found.nodes):
        values = {}
        for node, estimate in zip(found.nodes, found.estimate, strict=True):
            if node.rows == rows:
                values[_block(node.site), _inside(node.site)] = float(estimate)
        widest = max(abs(value) for value in values.values())
        if widest < _DRAWN:
            continue
        drawn = heat_map(
            slug(f"nodes {rows} {found.task}"),
            f"{found.task}: what exchanging each component at {rows} does, by estimate",
            values,
            label="size of the share",
            limits=(0.0, strongest_of_all),
        )
        sizes = [[None if one is None else abs(one) for one in line] for line in drawn.cells]
        yield replace(drawn, cells=sizes)


def _glances(found: Checked) -> Iterator[Glance]:
    best = int(np.abs(found.estimate).argmax())
    value = float(found.estimate[best])
    yield Glance(found.task, "moved most by", str(found.nodes[best]), value=value)


def _notes(options: AttributionOptions) -> list[str]:
    run = "corrupted" if options.direction == "denoise" else "clean"
    found = [
        "The estimate of a node is (its activation in the other run - that in this one) times the "
        f"gradient of the logit difference in the {run} run, summed over rows and divided by what "
        "exchanging everything does (means over pairs): attribution patching, Nanda 2023. It takes "
        "two passes and a backward one for all nodes.",
        "It is exact where the model is linear between the two runs. It is too small where "
        "something saturates or later parts share the work, as for whole blocks and early MLPs, "
        "and it misses what cancels out. So some nodes are really exchanged; "
        f"off by more than {OFF:.0%} and by half of the effect is not to be believed.",
        f"Rows at which no component is estimated to do {_DRAWN:.0%} or more are in the table of "
        "nodes, and are not drawn.",
    ]
    if options.grad_drop:
        found.append(
            "grad_drop: the mean size of the estimates with the gradient through each block "
            "stopped in turn (AtP*, Kramar et al. 2024, arXiv 2403.00745). It has no sign."
        )
    if options.patterns:
        found.append(
            "looks: the part of a head's estimate by the other run's attention weights, softmax "
            "included; the rest is by the values that it reads. It is empty for what is no head, "
            "and for heads that are gated."
        )
    return found


def _block(site: str) -> str:
    """The block of a component.

    >>> _block("llm.block.3.attn.heads[5]")
    'llm.block.3'
    """
    return ".".join(site.split(".")[:3])


def _inside(site: str) -> str:
    """The component within its block.

    >>> _inside("llm.block.3.attn.heads[5]"), _inside("llm.block.3")
    ('head 5', 'block')
    """
    inside = ".".join(site.split(".")[3:])
    return inside.replace("attn.heads[", "head ").rstrip("]") or "block"


def _count(pairs: int) -> str:
    return "1 pair" if pairs == 1 else f"{pairs} pairs"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
