"""The kind "answer": what the model says, unedited and edited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmlens.errors import CompositionError, MissingAnnotation
from vlmlens.passes.finite import check_finite
from vlmlens.sites import Axis
from vlmlens.view.live.commands import look_commands
from vlmlens.view.live.edits import opened

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.rows.layouts import PatchGrid
    from vlmlens.samples import Sample
    from vlmlens.view.live.model import LiveModel, Step
    from vlmlens.view.live.question import LiveQuestion

MAX_NEW_TOKENS = 16
_SHOWN = 6
_AT_ONCE = 8
_MOST_KNOWN = 256

Said = dict[str, Any]


def answer(model: LiveModel, question: LiveQuestion, step: Step) -> Said:
    """What the model says, and what it says of the changed picture or under the edits."""
    vlm = model.load()
    edits = opened(model, question.edits)
    own = model.sample(question, changed=False)
    total = 1 + question.is_changed
    step(0, total)
    said = _known(model, vlm, own)
    step(1, total)
    edited = None
    if question.is_changed:
        changed = model.sample(question, changed=True)
        with vlm.edited(edits, others=[changed]):
            edited = ask(vlm, changed)
        step(total, total)
    grid, patches = patches_of(vlm, own)
    return {
        "unedited": said,
        "edited": edited,
        "grid": grid,
        "patches": patches,
        "commands": look_commands(model, question),
    }


def ask(vlm: ModelAdapter, sample: Sample) -> Said:
    """What the model says to a question: the most probable choice, or what it writes.

    Returns:
        "text", and "choices" with their "text" and "probability", the most probable first: the
        given choices, whose probabilities sum to 1, or the first tokens of the answer.

    Raises:
        MissingAnnotation: The model compares choices, and there are none.
    """
    if sample.choices:
        logs = choice_logs(vlm, sample)
        check_finite(logs)
        shares = np.exp(logs - np.logaddexp.reduce(logs))
        order = np.argsort(-shares, kind="stable")
        ranked = [(sample.choices[i], float(shares[i])) for i in order]
        return _said(ranked[0][0], ranked)
    if vlm.choice_scores(()) is not None:
        raise MissingAnnotation(
            "This model writes nothing: it only compares choices with the picture.",
            subject="choices",
            hint="Give two or more choices.",
        )
    batch = vlm.encode([sample])
    (made,) = vlm.generate(batch, max_new_tokens=MAX_NEW_TOKENS)
    best = _last_logs(vlm, batch)[0].exp().topk(_SHOWN)
    first = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return _said(made.text.strip(), [(vlm.decode([token]), share) for token, share in first])


def choice_logs(vlm: ModelAdapter, sample: Sample) -> np.ndarray[Any, Any]:
    """The log-probability of each choice in nats, float64 `[choices]`, summed over its tokens."""
    compared = vlm.choice_scores([sample])
    if compared is not None:
        return np.asarray(compared[0], np.float64)
    ids = [vlm.answer_ids(choice) for choice in sample.choices]
    if all(len(tokens) == 1 for tokens in ids) and len({t[0] for t in ids}) == len(ids):
        logs = _last_logs(vlm, vlm.encode([sample]))[0]
        return np.array([float(logs[tokens[0]]) for tokens in ids])
    parts = [sample.choices[i : i + _AT_ONCE] for i in range(0, len(ids), _AT_ONCE)]
    return np.array([log for part in parts for log in _continued(vlm, sample, part)])


def patches_of(vlm: ModelAdapter, sample: Sample) -> tuple[list[int] | None, list[list[float]]]:
    """The patch grid of the first picture: (rows, columns), and each patch's edges, row by row.

    Edges are left, top, right, bottom as fractions of the picture. None: the model does not say,
    or shows the picture in several views.
    """
    if not sample.images:
        return None, []
    axis = vlm.encode([sample]).layouts.get(Axis.LLM)
    grid = axis.samples[0].patches if axis is not None else None
    return (None, []) if grid is None else _boxes(grid)


def _boxes(grid: PatchGrid) -> tuple[list[int] | None, list[list[float]]]:
    chosen = np.flatnonzero(grid.of_image(0))
    whole = [i for i in chosen if grid.view[i] in ("image", "global")] or list(chosen)
    shown = grid.take(np.array(whole, np.int64))
    sizes = set(zip(shown.rows.tolist(), shown.cols.tolist(), strict=True))
    if len(sizes) != 1 or len(set(shown.view)) != 1 or not np.isfinite(shown.box).all():
        return None, []
    ((rows, columns),) = sizes
    order = np.lexsort((shown.col, shown.row))
    if len(order) != rows * columns:
        return None, []
    boxes = shown.box[order].astype(float).clip(0, 1).round(6).tolist()
    return [rows, columns], boxes


def _known(model: LiveModel, vlm: ModelAdapter, sample: Sample) -> Said:
    """The unedited answer, which is computed once for each question."""
    key = sample.fingerprint(), sample.choices
    if key not in model.known:
        while len(model.known) >= _MOST_KNOWN:
            model.known.pop(next(iter(model.known)))
        model.known[key] = ask(vlm, sample)
    found: Said = model.known[key]
    return found


def _said(text: str, ranked: Sequence[tuple[str, float]]) -> Said:
    check_finite([share for _, share in ranked])
    choices = [{"text": each, "probability": share} for each, share in ranked]
    return {"text": text, "choices": choices}


def _last_logs(vlm: ModelAdapter, batch: Any) -> Any:
    logits = vlm.forward(batch, logits="last").logits
    if logits is None:
        raise CompositionError(
            "This model gives no probabilities of tokens.",
            subject=type(vlm).__name__,
            hint="Give choices, or ask another model.",
        )
    return logits.double().log_softmax(-1).cpu()


def _continued(vlm: ModelAdapter, sample: Sample, choices: Sequence[str]) -> list[float]:
    """The summed log-probability of each choice behind the prompt."""
    from vlmlens.passes.answer_loss import answer_log_probabilities

    batch = vlm.encode([sample] * len(choices), answers=list(choices))
    return [float(each.double().sum()) for each in answer_log_probabilities(vlm, batch)]
