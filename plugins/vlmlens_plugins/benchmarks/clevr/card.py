"""CLEVR's card: prompts, rules, metrics, shortcuts and faults."""

from __future__ import annotations

from typing import Final

from vlmlens_plugins.benchmarks.card import Card, Prompt, Rule
from vlmlens_plugins.benchmarks.clevr import parsing
from vlmlens_plugins.benchmarks.counting import MeanCredit

CARD: Final = Card(
    name="clevr",
    title="CLEVR",
    paper="arXiv 1612.06890",
    licence="CC BY 4.0",
    prompts={
        "official": Prompt(),
        "llava": Prompt("\nAnswer the question using a single word or phrase."),
    },
    rules={
        "strict": Rule(
            parsing.strictly,
            about="The whole text, apart from case and marks around it, is one of the 28 answers.",
        ),
        "official": Rule(
            parsing.exactly,
            about="The text is one of the 28 answers as the set writes them: models for CLEVR "
            "choose among these. 'Yes' and 'two' are no answers.",
        ),
        "words": Rule(
            parsing.among_choices,
            about="Our own, for models that write sentences: the only one of the question's "
            "possible answers that occurs as a word.",
        ),
    },
    metrics=MeanCredit("accuracy"),
    headline="accuracy",
    task_metrics=MeanCredit("accuracy"),
    groups="a picture",
    shortcuts=(
        "The wording gives the type of the answer away: compare with the best constant of each "
        "task, and with answers without the picture.",
        "About ten questions are asked about a picture: hold out pictures.",
    ),
    faults=(
        "The test split has no answers.",
        "Answers are written in one way: small letters, digits, gray, metal. 'Two', 'grey', "
        "'shiny' or 'ball' are wrong, though the questions say shiny and ball.",
        "Left and front are directions along the ground, seen from the camera; two objects that "
        "are nearly level are on neither side of each other.",
    ),
)
