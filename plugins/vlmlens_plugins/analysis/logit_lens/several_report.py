"""What the logit lens found at several positions per sample, as findings and tables."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vlmlens.abc import ModelAdapter
from vlmlens.results import Cell, Finding, Result, Table
from vlmlens_plugins.analysis._columns import short_names
from vlmlens_plugins.analysis._results import slug, table
from vlmlens_plugins.analysis._tasks import rows_by_task
from vlmlens_plugins.analysis.logit_lens import sheets
from vlmlens_plugins.analysis.logit_lens.several_positions import Followed, SeveralPositions
from vlmlens_plugins.analysis.logit_lens.vocabulary import Ints


def part(many: SeveralPositions, vlm: ModelAdapter) -> Result:
    """What these positions add to the lens's result."""
    return Result(
        "", "", findings=findings(many), tables=tables(many), figures=sheets.figures(many, vlm)
    )


def findings(many: SeveralPositions) -> list[Finding]:
    """How early these positions read like the final layer, and where the followed words peak."""
    return [_settling(many), *(_peak(many, one) for one in many.followed if _any(one))]


def tables(many: SeveralPositions) -> list[Table]:
    """Means per task and layer; per sample, where each followed word is most probable."""
    stem = f"lens-{slug(many.group.name)}"
    layers = [
        _layer(many, task, rows, i)
        for task, rows in _tasks(many).items()
        for i in range(len(many.group.columns))
    ]
    made = [table(f"{stem}-layers", f"Positions ({many.group.name}) by task and layer", layers)]
    if many.followed:
        rows = [_sample(many, i, one) for one in many.followed for i in _with(one)]
        title = "Internal confidence: a word's highest probability over layers and positions"
        made.append(table(f"{stem}-confidence", title, rows))
        words = [_word(many, one, i) for one in many.followed for i in range(len(one.probability))]
        title = "Followed words by layer: highest probability over a sample's positions"
        made.append(table(f"{stem}-words", title, words))
    return [each for each in made if len(each)]


def _settling(many: SeveralPositions) -> Finding:
    names, agreement = short_names(many.group.columns), many.agreement.mean(1)
    half = int(np.argmax(agreement >= 0.5)) if (agreement >= 0.5).any() else None
    settled = float(many.settled.mean())
    text = (
        f"{many.group.name} positions: half of them show the final top token from {names[half]} on."
        if half is not None
        else f"{many.group.name} positions: less than half of them show the final top token "
        "at any layer read."
    )
    values: dict[str, Cell] = {
        "positions": int(many.positions.sum()),
        "agreement_first": float(agreement[0]),
        "agreement_last": float(agreement[-1]),
        "settling_mean": settled,
    }
    return Finding(text, subject=f"{many.group.name} positions", values=values)


def _peak(many: SeveralPositions, one: Followed) -> Finding:
    rows = _with(one)
    mean = one.probability[:, rows].mean(1)
    best = int(mean.argmax())
    name = short_names(many.group.columns)[best]
    confidence = float(one.confidence[rows].mean())
    word = one.name if one.name == "the label" else f'the word "{one.name}"'
    text = (
        f"{word[0].upper()}{word[1:]} is most probable at {name} ({mean[best]:.3f} on average over "
        f"{many.group.name} positions)."
    )
    values: dict[str, Cell] = {
        "confidence": confidence,
        "layer": name,
        "at_layer": float(mean[best]),
    }
    labelled = _labelled(many, one)
    if labelled.any() and not labelled.all():
        there, elsewhere = (float(one.confidence[part].mean()) for part in (labelled, ~labelled))
        text = (
            f"{word[0].upper()}{word[1:]} reaches {there:.3f} on {many.group.name} positions where "
            f"it is the label, {elsewhere:.3f} elsewhere; most at {name}."
        )
        values |= {"confidence_label": there, "confidence_other": elsewhere}
    return Finding(text, subject=f"{many.group.name} positions: {one.name}", values=values)


def _layer(many: SeveralPositions, task: str, rows: Ints, i: int) -> dict[str, Cell]:
    return {
        "task": task,
        "column": many.group.columns[i],
        "samples": len(rows),
        "positions": int(many.positions[rows].sum()),
        "agreement": float(many.agreement[i, rows].mean()),
        "entropy": float(many.entropy[i, rows].mean()),
        "divergence": float(many.divergence[i, rows].mean()),
    }


def _sample(many: SeveralPositions, number: int, one: Followed) -> dict[str, Cell]:
    layer = int(one.probability[:, number].argmax())
    sample = many.samples[number]
    return {
        "sample": sample.id,
        "task": sample.task,
        "label": sample.label,
        "word": one.name,
        "confidence": float(one.confidence[number]),
        "column": many.group.columns[layer],
        "position": int(one.place[layer, number]),
    }


def _word(many: SeveralPositions, one: Followed, layer: int) -> dict[str, Cell]:
    values = one.probability[layer, _with(one)]
    return {
        "word": one.name,
        "column": many.group.columns[layer],
        "samples": len(values),
        "probability": float(np.median(values)) if len(values) else None,
        "probability_mean": float(values.mean()) if len(values) else None,
    }


def _tasks(many: SeveralPositions) -> dict[str, Ints]:
    return {task: np.array(rows) for task, rows in rows_by_task(many.samples).items()}


def _labelled(many: SeveralPositions, one: Followed) -> npt.NDArray[np.bool_]:
    """Which samples have the word for a label."""
    wanted = one.name.casefold()
    return np.array([(sample.label or "").casefold() == wanted for sample in many.samples])


def _with(one: Followed) -> Ints:
    """Numbers of the samples that have it."""
    return np.flatnonzero(one.place[0] >= 0)


def _any(one: Followed) -> bool:
    return len(_with(one)) > 0
