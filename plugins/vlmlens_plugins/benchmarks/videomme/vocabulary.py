"""The durations, domains, sub-categories and task types of Video-MME (arXiv 2405.21075)."""

from __future__ import annotations

from collections.abc import Mapping

from vlmlens_plugins.benchmarks.counting import Part

DURATIONS = ("short", "medium", "long")
DOMAINS: Mapping[str, tuple[str, ...]] = {
    "Knowledge": (
        "Humanity & History",
        "Literature & Art",
        "Biology & Medicine",
        "Finance & Commerce",
        "Astronomy",
        "Geography",
        "Law",
        "Life Tip",
        "Technology",
    ),
    "Film & Television": ("Animation", "Movie & TV Show", "Documentary", "News Report"),
    "Sports Competition": ("Esports", "Basketball", "Football", "Athletics", "Other Sports"),
    "Artistic Performance": ("Stage Play", "Magic Show", "Variety Show", "Acrobatics"),
    "Life Record": (
        "Handicraft",
        "Food",
        "Fashion",
        "Daily Life",
        "Travel",
        "Pet & Animal",
        "Exercise",
    ),
    "Multilingual": ("Multilingual",),
}
"""Sub-categories by domain."""
_SEEN = ("Temporal", "Spatial", "Attribute")
_REASONED = ("Temporal", "Spatial", "Action", "Object")
TASK_TYPES = (
    *(f"{what} Perception" for what in _SEEN),
    *("Action Recognition", "Object Recognition", "OCR Problems", "Counting Problem"),
    *(f"{what} Reasoning" for what in _REASONED),
    "Information Synopsis",
)
DURATION, DOMAIN, SUB_CATEGORY, TASK_TYPE = "duration", "domain", "sub_category", "task_type"
"""Attributes."""


def parts() -> dict[str, Part]:
    """What accuracy is given for, beside all questions, by the name of its metric."""
    found: dict[str, Part] = {each: (DURATION, each) for each in DURATIONS}
    found |= {f"domain: {each}": (DOMAIN, each) for each in DOMAINS}
    found |= {f"task type: {each}": (TASK_TYPE, each) for each in TASK_TYPES}
    subs = [sub for each in DOMAINS.values() for sub in each]
    return found | {f"sub-category: {each}": (SUB_CATEGORY, each) for each in subs}
