"""Files of POPE in its real layout and full size, by rule; and one small image for all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SPLITS = ("random", "popular", "adversarial")
KINDS = [f"{first}{second}" for first in "bcdfgklm" for second in ("air", "ottle", "en", "up")]
"""32 kinds of objects."""


def image_name(number: int) -> str:
    return f"COCO_val2014_{number:012d}.jpg"


def rows(split: str, *, images: int = 500, first: bool = False) -> Iterator[dict[str, Any]]:
    """The rows of one split: odd numbers are yes, and the positives are those of every split.

    Args:
        split: Its name.
        images: How many, with 6 questions each.
        first: As in the first edition: 90 random negatives less, and misprints elsewhere.
    """
    shift = {"random": 3, "popular": 6, "adversarial": 9}[split]
    number = 0
    for image in range(images):
        for k in range(6):
            yes = k % 2 == 0
            if first and split == "random" and not yes and image < 90 and k == 5:
                continue
            number += 1
            kind = KINDS[(image * 5 + k // 2 + (0 if yes else shift)) % len(KINDS)]
            word = "imange" if first and split != "random" and image < 9 else "image"
            yield {
                "question_id": number,
                "image": image_name(image),
                "text": f"Is there a {kind} in the {word}?",
                "label": "yes" if yes else "no",
            }


def write_official(folder: Path, *, images: int = 500, first: bool = False) -> Path:
    """The three coco files: JSON lines in files called `.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        lines = (json.dumps(row) + "\n" for row in rows(split, images=images, first=first))
        (folder / f"coco_pope_{split}.json").write_text("".join(lines))
    return folder


def hub_rows(*, images: int) -> Iterator[Mapping[str, Any]]:
    """Rows with the columns of the hub, without images."""
    number = 0
    for split in ("adversarial", "popular", "random"):
        for row in rows(split, images=images):
            yield {
                "id": str(number),
                "question_id": str(row["question_id"]),
                "question": row["text"],
                "answer": row["label"],
                "image_source": row["image"].removesuffix(".jpg"),
                "category": split,
            }
            number += 1
