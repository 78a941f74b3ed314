"""The kinds of jobs: what answers each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vlmlens.errors import DataError
from vlmlens.view.live import analyses
from vlmlens.view.live.answer import answer
from vlmlens.view.live.directions import directions

if TYPE_CHECKING:
    from vlmlens.view.live.model import Answering, LiveModel, Step
    from vlmlens.view.live.question import Asked

DIRECTIONS = "directions"
"""The kind that needs no model."""

_OF_MODEL: Mapping[str, Answering] = {"answer": answer, **analyses.KINDS}

KINDS = (*_OF_MODEL, DIRECTIONS)
"""All kinds."""


def answered(model: LiveModel, asked: Asked, step: Step) -> dict[str, Any]:
    """The answer to a question of some kind, JSON-ready.

    Raises:
        VlmlensError: It cannot be answered.
        Stopped: By `step`.
    """
    if asked.kind == DIRECTIONS:
        return {"directions": directions(model.runs)}
    if asked.question is None:
        raise DataError("There is no question.", subject="question", hint="Ask something.")
    return _OF_MODEL[asked.kind](model, asked.question, step)
