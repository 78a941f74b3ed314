"""The questions asked about a demo scene, with their choices and right answers.

Example:
    >>> from vlmlens_plugins.demo.scenes import make_scene
    >>> [question.task for question in questions(make_scene(0))]
    ['color', 'shape', 'number', 'presence', 'surface']
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from vlmlens_plugins.demo.scenes import COLORS, MAX_OBJECTS, SHAPES, SURFACES, Scene

TASKS: Final = ("color", "shape", "number", "presence", "surface")
CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "color": tuple(COLORS),
    "shape": SHAPES,
    "number": tuple(str(n + 1) for n in range(MAX_OBJECTS)),
    "presence": ("yes", "no"),
    "surface": SURFACES,
}
PROMPTS: Final[dict[str, str]] = {
    "color": "Color of the main object:",
    "shape": "Shape of the main object:",
    "number": "Number of objects:",
    "surface": "Surface of the main object:",
}
PLAIN_PRIOR: Final = 0.8
"""Probability of ``plain`` that the demo model was taught for the surface, whatever it sees."""


@dataclass(frozen=True)
class Question:
    """One multiple-choice question about one scene.

    Attributes:
        task: One of `TASKS`.
        prompt: What the model is asked, without its chat template.
        choices: The possible answers; each is one token of the demo model after a space.
        label: The right answer, one of `choices`.
        object: The object that a presence question asks for, such as ``red cube``; else empty.
    """

    task: str
    prompt: str
    choices: tuple[str, ...]
    label: str
    object: str = ""


def questions(scene: Scene) -> tuple[Question, ...]:
    """The five questions about a scene, in the order of `TASKS`.

    Which object the presence question asks for is a fixed function of the scene's seed, split and
    index.
    """
    rng = random.Random(f"presence/{scene.seed}/{scene.split}/{scene.index}")  # noqa: S311
    labels = {
        "color": scene.main.color,
        "shape": scene.main.shape,
        "number": str(scene.number),
        "surface": scene.main.surface,
    }
    return tuple(
        presence_question(scene, rng)
        if task == "presence"
        else Question(task, PROMPTS[task], CHOICES[task], labels[task])
        for task in TASKS
    )


def presence_question(scene: Scene, rng: random.Random) -> Question:
    """Ask whether the scene has an object of some colour and shape; half the answers are yes.

    Half of the negatives are hard: another object shares the colour or the shape asked for.
    """
    if rng.random() < 0.5:
        item = rng.choice(scene.objects)
        return presence_of(item.color, item.shape, "yes")
    absent = [pair for pair in kinds() if not scene.contains(*pair)]
    if rng.random() < 0.5:
        item = rng.choice(scene.objects)
        share_color = rng.random() < 0.5
        absent = [
            (color, shape)
            for color, shape in absent
            if (color == item.color if share_color else shape == item.shape)
        ] or absent
    return presence_of(*rng.choice(absent), "no")


def presence_prompt(color: str, shape: str) -> str:
    """The prompt of a presence question, such as ``Is there an orange cube?``."""
    article = "an" if color[0] in "aeiou" else "a"
    return f"Is there {article} {color} {shape}?"


def presence_of(color: str, shape: str, label: str) -> Question:
    """The question whether there is an object of this colour and shape."""
    prompt = presence_prompt(color, shape)
    return Question("presence", prompt, CHOICES["presence"], label, f"{color} {shape}")


def kinds() -> list[tuple[str, str]]:
    """Every colour with every shape."""
    return [(color, shape) for color in COLORS for shape in SHAPES]
