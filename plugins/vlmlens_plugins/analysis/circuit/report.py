"""What the circuit analysis found, in words and tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from vlmlens.results import Cell, Finding, Glance, Table, Verdict
from vlmlens_plugins.analysis._results import table
from vlmlens_plugins.analysis._sweeps.effects import ALPHA
from vlmlens_plugins.analysis.circuit.figures import DRAWN
from vlmlens_plugins.analysis.circuit.files import LOGITS, SavedCircuit
from vlmlens_plugins.analysis.circuit.measured import Measured, Share
from vlmlens_plugins.analysis.circuit.options import CircuitOptions
from vlmlens_plugins.analysis.steering.aims import mark_of

_NAMED = 3
_LITTLE = 0.05
_HALF = 0.5
_FEW = 6
_LESS = 0.1
"""By so much less on other pairs, a circuit is fitted to those that it was searched on."""


def findings(circuits: Sequence[Measured]) -> list[Finding]:
    """Per task: what the circuit keeps; where it begins; its strongest edges."""
    found = []
    for one in circuits:
        found.append(_kept(one, len(circuits)))
        found.append(_made_of(one))
        edge = _strongest(one)
        found += [edge] if edge else []
    return found


def tables(circuits: Sequence[Measured]) -> list[Table]:
    """The circuits as a whole, their nodes and edges, and random circuits."""
    made = [
        table("circuit", "What each circuit keeps", [_row(one) for one in circuits], ("task",)),
        table(
            "circuit-nodes",
            "All components, and those of the circuit",
            [row for one in circuits for row in _nodes(one)],
            ("task", "site", "rows"),
        ),
        table(
            "circuit-edges",
            "Measured edges of the circuit",
            [row for one in circuits for row in _edges(one)],
            ("task", "from", "from_rows", "to", "to_rows"),
        ),
        table(
            "circuit-random",
            "What random circuits of equal size keep",
            [
                {"task": one.task, "draw": draw, "keeps": float(share)}
                for one in circuits
                for draw, share in enumerate(one.worth.random)
            ],
            ("task", "draw"),
        ),
    ]
    return [each for each in made if len(each)]


def overview(circuits: Sequence[Measured]) -> list[Glance]:
    """Per task, how many components suffice."""
    found = []
    for one in circuits:
        random = one.worth.random
        beside = f"random {np.mean(random):z.2f}" if len(random) else ""
        text = f"{len(one.kept)} of {len(one.nodes.components)} components"
        found.append(
            Glance(
                one.task,
                "is kept by",
                text,
                _verdict(one, len(circuits)),
                one.worth.keeps[0],
                beside,
            )
        )
    return found


def doubts(one: Measured, options: CircuitOptions) -> Iterator[str]:
    """What the reader must know before trusting a circuit."""
    worth = one.worth
    if not one.held_out:
        yield (
            f"{one.task}: there are no other groups of pairs, so the circuit is measured on the "
            "pairs on which it was found, and looks better than it is."
        )
    elif worth.groups < _FEW:
        number = "1 group" if worth.groups == 1 else f"{worth.groups} groups"
        yield f"{one.task}: the circuit is measured on {number} of pairs only."
    if one.found is not None and not one.found.done:
        yield (
            f"{one.task}: the search ended at max_passes={options.max_passes:,}; a smaller circuit "
            "may suffice."
        )
    if one.found is not None and one.found.share - worth.keeps[0] > _LESS:
        yield (
            f"{one.task}: the circuit keeps {_percent(one.found.share)} on the pairs that it was "
            f"searched on ({len(one.learn)}), and {_percent(worth.keeps[0])} on others: it fits "
            "them too closely. Search on more pairs."
        )
    if len(one.kept) == len(one.nodes.components):
        yield f"{one.task}: no component could be left out."
    if not one.kept:
        yield f"{one.task}: the effect is kept without any component."
    if abs(worth.nothing[0]) > _LITTLE:
        yield (
            f"{one.task}: {_percent(worth.nothing[0])} of the effect is left while all components "
            "are exchanged: it reaches the logits past them."
        )
    if options.controls and 1 / (1 + options.controls) > ALPHA:
        yield f"{options.controls} random circuits are too few for a test; 19 are needed."


def notes(circuits: Sequence[Measured], options: CircuitOptions, files: Sequence[str]) -> list[str]:
    """How the numbers were made."""
    found = [
        "A component outside of the circuit gives, at its rows, what it gives for the corrupted "
        "sample (resample ablation; Wang et al. 2022, arXiv 2211.00593). Inputs stay those of the "
        "clean sample. A share of the effect is (LD - LD corrupted) / (LD clean - LD corrupted), "
        "LD the mean logit difference of the two answers: 1 is all of it, and it can leave 0 to 1.",
        *_search_notes(circuits, options),
        "Intervals: percentile bootstrap over groups of pairs. p: the share of random circuits, "
        "with as many heads and MLPs at whatever rows, that come as near to the whole effect "
        "(Phipson and Smyth 2010).",
        "Edges: path patching inside the circuit: one component gets the corrupted value of "
        "another, and what lies behind it follows. The score of an edge into a head is that into "
        "its whole attention. Edges below "
        f"{DRAWN:.0%} are only in the table; those that are not measured are in neither. No edge "
        "was left out of the circuit.",
        "A circuit says what suffices, not what is needed: where parts do the same job, one of "
        "them is enough, and others can make up for it when it is taken away.",
    ]
    if files:
        found.append(f"Saved in results/: {', '.join(files)}.")
    return found


def _search_notes(circuits: Sequence[Measured], options: CircuitOptions) -> Iterator[str]:
    if any(one.found is None for one in circuits):
        yield f"The circuit was read from {options.circuit}, and not searched."
        return
    how = {
        "attribution": "by attribution patching (a first-order estimate)",
        "patching": "by exchanging each alone",
    }[options.rank]
    yield (
        f"Search: components are ranked {how}; the smallest tried set of the highest ones that "
        f"keeps {options.keep:.0%} is taken, and components are left out under real exchanges, "
        "those that do least first, until none can be (greedy: another circuit may do as well)."
    )
    if any(one.held_out for one in circuits):
        yield (
            "Circuits are searched on half of the groups of pairs, and all other numbers are of "
            "the other half."
        )


def saved(one: Measured, options: CircuitOptions, origin: Mapping[str, Any]) -> SavedCircuit:
    """A circuit as its file says it."""
    worth, effect = one.worth, one.edges.effect
    nodes = [one.nodes.every[number] for number in one.kept]
    about = [
        {"score": _number(one.scores[number]), "alone": alone, "lost": lost}
        for number, alone, lost in zip(one.kept, worth.alone, worth.lost, strict=True)
    ]
    edges: list[dict[str, Any]] = []
    for i, (sender, receiver) in enumerate(one.edges.pairs if effect is not None else ()):
        assert effect is not None  # noqa: S101
        ends = [
            LOGITS if end is None else [one.nodes.every[end].site, one.nodes.every[end].rows]
            for end in (sender, receiver)
        ]
        edges.append({"from": ends[0], "to": ends[1], "effect": float(effect.value[i])})
    measured = {
        "pairs": worth.pairs,
        "held_out": one.held_out,
        "candidates": len(one.nodes.components),
        "keeps": list(worth.keeps),
        "left": list(worth.left),
        "nothing": worth.nothing[0],
        "inputs": worth.inputs,
        "random": [float(share) for share in worth.random],
        "p": _number(worth.p),
    }
    searched = sorted(map(mark_of, set(one.learn)))
    return SavedCircuit(
        one.task, one.nodes.groups, options.parts, nodes, about, searched, edges, measured, origin
    )


def _kept(one: Measured, tests: int) -> Finding:
    worth, total = one.worth, len(one.nodes.components)
    other = "other " if one.found is not None and one.held_out else ""
    pairs = f"{worth.pairs} {other}pair{'' if worth.pairs == 1 else 's'}"
    text = (
        f"{one.task}: {len(one.kept)} of {total} components keep {_percent(worth.keeps[0])} "
        f"({_ends(worth.keeps)}) of the effect on {pairs}"
    )
    if len(worth.random):
        most = worth.random[np.abs(1 - worth.random).argmin()]
        text += (
            f"; random circuits of equal size keep {_percent(float(worth.random.mean()))} (the "
            f"best of {len(worth.random)} {_percent(float(most))})"
        )
    text += f"; without them {_percent(worth.left[0])} ({_ends(worth.left)}) is left."
    values: dict[str, Cell] = {
        "components": len(one.kept), "candidates": total, "pairs": worth.pairs,
        "keeps": worth.keeps[0], "keeps_low": worth.keeps[1], "keeps_high": worth.keeps[2],
        "left": worth.left[0], "nothing": worth.nothing[0], "p": _number(worth.p),
        "random": _number(float(worth.random.mean())) if len(worth.random) else None,
        **{f"inputs_{group}": share for group, share in worth.inputs.items()},
    }  # fmt: skip
    return Finding(text, _verdict(one, tests), one.task, values, notable=True)


def _verdict(one: Measured, tests: int) -> Verdict:
    """Significant, by Bonferroni's correction for all tasks, and more than half of the effect."""
    worth = one.worth
    if math.isnan(worth.p):
        return Verdict.INFO
    sure = worth.p * tests <= ALPHA and worth.keeps[1] > _HALF and one.held_out
    return Verdict.DIFFERS if sure else Verdict.INCONCLUSIVE


def _made_of(one: Measured) -> Finding:
    kinds = Counter(one.nodes.kind(number) for number in one.kept)
    words = {"attn.heads": "head", "mlp_out": "MLP", "attn_out": "attention", "": "block"}
    counted = [
        f"{kinds[kind]} {word}{'' if kinds[kind] == 1 else 's'}"
        for kind, word in words.items()
        if kinds[kind]
    ]
    places = Counter(one.nodes.every[number].rows for number in one.kept)
    rows = ", ".join(f"{count} at {name} rows" for name, count in places.items())
    inputs = one.worth.inputs
    first = max(inputs, key=lambda name: abs(inputs[name]))
    entry = (
        f"of what it keeps, {_percent(inputs[first] / one.worth.keeps[0])} comes in through the "
        f"inputs at {first} rows"
        if one.worth.keeps[0]
        else "it keeps nothing"
    )
    blocks = sorted({one.nodes.block(number) for number in one.kept})
    within = f" in blocks {blocks[0]} to {blocks[-1]}" if len(blocks) > 1 else ""
    text = f"{one.task}: the circuit is {' and '.join(counted) or 'empty'}{within}"
    text += f" ({rows}); {entry}." if rows else f"; {entry}."
    return Finding(text, subject=one.task, values={f"at_{name}": n for name, n in places.items()})


def _strongest(one: Measured) -> Finding | None:
    effect = one.edges.effect
    if effect is None:
        return None
    order = np.argsort(-np.abs(effect.value), kind="stable")[:_NAMED]
    named = [
        f"{_end(one, one.edges.pairs[i][0])} to {_end(one, one.edges.pairs[i][1])} "
        f"({_percent(float(effect.value[i]))})"
        for i in order
    ]
    strong = int((np.abs(effect.value) >= DRAWN).sum())
    text = (
        f"{one.task}: {strong} of {len(effect.value)} measured edges carry {DRAWN:.0%} or more; "
        f"the strongest are {', '.join(named)}."
    )
    values: dict[str, Cell] = {
        "edges": strong, "measured": len(effect.value), "possible": one.edges.possible,
    }  # fmt: skip
    known = np.isfinite(one.edges.scores)
    if known.sum() > _NAMED:
        values["rank_correlation"] = _rank_correlation(one.edges.scores[known], effect.value[known])
    return Finding(text, subject=one.task, values=values)


def _row(one: Measured) -> dict[str, Cell]:
    worth, random = one.worth, one.worth.random
    return {
        "task": one.task,
        "components": len(one.kept),
        "candidates": len(one.nodes.components),
        "pairs": worth.pairs,
        "groups": worth.groups,
        "searched_on": len(one.learn),
        "keeps": worth.keeps[0],
        "keeps_low": worth.keeps[1],
        "keeps_high": worth.keeps[2],
        "keeps_searched": None if one.found is None else one.found.share,
        "left": worth.left[0],
        "left_low": worth.left[1],
        "left_high": worth.left[2],
        "nothing_kept": worth.nothing[0],
        "random_mean": float(random.mean()) if len(random) else None,
        "random_p": _number(worth.p),
        "clean": worth.clean,
        "corrupted": worth.corrupted,
        **{f"inputs_{group}": share for group, share in worth.inputs.items()},
    }


def _nodes(one: Measured) -> Iterator[dict[str, Cell]]:
    numbers = {number: i for i, number in enumerate(one.kept)}
    for number, node in enumerate(one.nodes.components):
        place = numbers.get(number)
        yield {
            "task": one.task,
            "site": node.site,
            "rows": node.rows,
            "kept": place is not None,
            "score": _number(one.scores[number]),
            "alone": None if place is None else one.worth.alone[place],
            "lost": None if place is None else one.worth.lost[place],
        }


def _edges(one: Measured) -> Iterator[dict[str, Cell]]:
    effect = one.edges.effect
    if effect is None:
        return
    for i, ends in enumerate(one.edges.pairs):
        (sender, from_rows), (receiver, to_rows) = (
            (LOGITS, "") if end is None else (one.nodes.every[end].site, one.nodes.every[end].rows)
            for end in ends
        )
        yield {
            "task": one.task,
            "from": sender,
            "from_rows": from_rows,
            "to": receiver,
            "to_rows": to_rows,
            "effect": float(effect.value[i]),
            "effect_low": float(effect.low[i]),
            "effect_high": float(effect.high[i]),
            "score": _number(one.edges.scores[i]),
        }


def _end(one: Measured, end: int | None) -> str:
    return LOGITS if end is None else str(one.nodes.every[end])


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's; None where one of the two is constant."""
    if min(len(set(first.tolist())), len(set(second.tolist()))) == 1:
        return None
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _ends(share: Share) -> str:
    return f"95 % interval {_percent(share[1])} to {_percent(share[2])}"


def _percent(share: float) -> str:
    """A share as a percentage, without a minus before 0."""
    return f"{round(100 * share) + 0:.0f}%"
