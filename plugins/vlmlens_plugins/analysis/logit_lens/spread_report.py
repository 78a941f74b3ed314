"""What the logit lens found at several positions per sample, as findings and tables."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from vlmlens.results import Cell, Finding, Table
from vlmlens_plugins.analysis._columns import short_names
from vlmlens_plugins.analysis._names import slug
from vlmlens_plugins.analysis._tasks import rows_by_task
from vlmlens_plugins.analysis.logit_lens.spread import Followed, Spread
from vlmlens_plugins.analysis.logit_lens.vocabulary import Ints


def findings(spread: Spread) -> list[Finding]:
    """How early these positions read like the final layer, and where the followed words peak."""
    return [_settling(spread), *(_peak(spread, one) for one in spread.followed if _any(one))]


def tables(spread: Spread) -> list[Table]:
    """Means per task and layer; per sample, where each followed word is most probable."""
    stem = f"lens-{slug(spread.group.name)}"
    layers = [
        _layer(spread, task, rows, i)
        for task, rows in _tasks(spread).items()
        for i in range(len(spread.group.columns))
    ]
    made = [_table(f"{stem}-layers", f"Positions ({spread.group.name}) by task and layer", layers)]
    if spread.followed:
        rows = [_sample(spread, i, one) for one in spread.followed for i in _with(one)]
        title = "Internal confidence: a word's highest probability over layers and positions"
        made.append(_table(f"{stem}-confidence", title, rows))
        words = [
            _word(spread, one, i) for one in spread.followed for i in range(len(one.probability))
        ]
        title = "Followed words by layer: highest probability over a sample's positions"
        made.append(_table(f"{stem}-words", title, words))
    return [table for table in made if len(table)]


def _settling(spread: Spread) -> Finding:
    names, agreement = short_names(spread.group.columns), spread.agreement.mean(1)
    half = int(np.argmax(agreement >= 0.5)) if (agreement >= 0.5).any() else None
    where = f"for half of them from {names[half]} on" if half is not None else "for less than half"
    settled = float(spread.settled.mean())
    text = (
        f"{spread.group.name} positions ({int(spread.positions.sum())} of {len(spread.samples)} "
        f"samples): a layer's top token is the final layer's {where}; at {names[0]} for "
        f"{agreement[0]:.0%}, at {names[-1]} for {agreement[-1]:.0%}. On average it stays so after "
        f"{settled:.1f} of {len(names)} layers read."
    )
    values: dict[str, Cell] = {
        "positions": int(spread.positions.sum()),
        "agreement_first": float(agreement[0]),
        "agreement_last": float(agreement[-1]),
        "settling_mean": settled,
    }
    return Finding(text, subject=f"{spread.group.name} positions", values=values)


def _peak(spread: Spread, one: Followed) -> Finding:
    rows = _with(one)
    mean = one.probability[:, rows].mean(1)
    best = int(mean.argmax())
    name = short_names(spread.group.columns)[best]
    confidence = float(one.confidence[rows].mean())
    word = one.name if one.name == "the label" else f'the word "{one.name}"'
    text = (
        f"{word[0].upper()}{word[1:]} reaches a mean internal confidence of {confidence:.3f} over "
        f"{spread.group.name} positions ({len(rows)} samples), and is most probable at {name} "
        f"({mean[best]:.3f})."
    )
    values: dict[str, Cell] = {
        "confidence": confidence,
        "layer": name,
        "at_layer": float(mean[best]),
    }
    labelled = _labelled(spread, one)
    if labelled.any() and not labelled.all():
        there, elsewhere = (float(one.confidence[part].mean()) for part in (labelled, ~labelled))
        text += f" Where it is the label it reaches {there:.3f}, elsewhere {elsewhere:.3f}."
        values |= {"confidence_label": there, "confidence_other": elsewhere}
    return Finding(text, subject=f"{spread.group.name} positions: {one.name}", values=values)


def _layer(spread: Spread, task: str, rows: Ints, i: int) -> dict[str, Cell]:
    return {
        "task": task,
        "column": spread.group.columns[i],
        "samples": len(rows),
        "positions": int(spread.positions[rows].sum()),
        "agreement": float(spread.agreement[i, rows].mean()),
        "entropy": float(spread.entropy[i, rows].mean()),
        "divergence": float(spread.divergence[i, rows].mean()),
    }


def _sample(spread: Spread, number: int, one: Followed) -> dict[str, Cell]:
    layer = int(one.probability[:, number].argmax())
    sample = spread.samples[number]
    return {
        "sample": sample.id,
        "task": sample.task,
        "label": sample.label,
        "word": one.name,
        "confidence": float(one.confidence[number]),
        "column": spread.group.columns[layer],
        "position": int(one.place[layer, number]),
    }


def _word(spread: Spread, one: Followed, layer: int) -> dict[str, Cell]:
    values = one.probability[layer, _with(one)]
    return {
        "word": one.name,
        "column": spread.group.columns[layer],
        "samples": len(values),
        "probability": float(np.median(values)) if len(values) else None,
        "probability_mean": float(values.mean()) if len(values) else None,
    }


def _tasks(spread: Spread) -> dict[str, Ints]:
    return {task: np.array(rows) for task, rows in rows_by_task(spread.samples).items()}


def _labelled(spread: Spread, one: Followed) -> npt.NDArray[np.bool_]:
    """Which samples have the word for a label."""
    wanted = one.name.casefold()
    return np.array([(sample.label or "").casefold() == wanted for sample in spread.samples])


def _with(one: Followed) -> Ints:
    """Numbers of the samples that have it."""
    return np.flatnonzero(one.place[0] >= 0)


def _any(one: Followed) -> bool:
    return len(_with(one)) > 0


def _table(name: str, title: str, rows: list[dict[str, Cell]]) -> Table:
    headers: Mapping[str, Cell] = rows[0] if rows else {}
    return Table(name, title, {header: [row[header] for row in rows] for header in headers})
