"""Samples: drawn pictures as JPEG files, with prompts of different lengths."""

from __future__ import annotations

from pathlib import Path

from vlmlens.samples import Sample
from vlmlens.testing.tiny import picture

_SIZE = (640, 480)
_PROMPTS = (
    "What is this?",
    "Which color has the square in the middle of the picture?",
    "Is there a circle?",
    "How many lines cross, and where do they meet in the picture?",
    "Name the color.",
)
PROMPTS = len(_PROMPTS)
"""So many samples later, the same prompt comes again, with another picture."""


def asked(folder: Path, count: int, *, questions: int = 1) -> list[Sample]:
    """Samples with pictures from files.

    Args:
        folder: For the pictures; those that are there are used again.
        count: How many samples.
        questions: How many samples have the same picture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(count):
        path = folder / f"{number // questions:05}.jpg"
        if not path.exists():
            picture(*_SIZE, seed=number // questions).save(path, quality=90)
        prompt = _PROMPTS[number % len(_PROMPTS)]
        found.append(Sample(f"sample-{number:05}", prompt, (str(path),)))
    return found
