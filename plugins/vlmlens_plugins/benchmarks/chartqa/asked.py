"""A question of ChartQA, as every form has it."""

from __future__ import annotations

from typing import Final, NamedTuple

HUMAN, AUGMENTED = "human", "augmented"
PARTS: Final = (HUMAN, AUGMENTED)


class Asked(NamedTuple):
    """One question.

    Args:
        part: "human" or "augmented": who asked it.
        question: The question.
        label: The right answer, as it is written.
        image: An image cell.
        chart: The name of the chart; "" where a form does not say it.
        own: The form's own id; "" where there is none.
        place: Where it stands, for messages.
    """

    part: str
    question: str
    label: str
    image: object
    chart: str
    own: str
    place: str
