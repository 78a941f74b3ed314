"""What is asked of the model: a picture or a sample, a text, covered parts, edits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cover:
    """A rectangle of the picture that is covered with its mean color.

    Args:
        left, top, right, bottom: Its edges, as fractions of width and height, 0 to 1.
    """

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class LiveQuestion:
    """A question to the model.

    Args:
        text: The question.
        sample: The run and the sample (numbers from 0) whose pictures are shown; None: `upload`.
        upload: The name of an uploaded picture; None without one.
        choices: The answers to choose from; empty: the model writes.
        covers: Parts of the (first) picture that are covered in the changed run.
        edits: Edits of the changed run, as on the command line: `llm.block.3/image = zero`.
    """

    text: str
    sample: tuple[int, int] | None = None
    upload: str | None = None
    choices: tuple[str, ...] = ()
    covers: tuple[Cover, ...] = ()
    edits: tuple[str, ...] = ()
