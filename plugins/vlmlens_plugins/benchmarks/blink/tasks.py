"""The 14 tasks of BLINK (arXiv 2404.12390), by the names of its configurations."""

from __future__ import annotations

TASKS = (
    "Art_Style",
    "Counting",
    "Forensic_Detection",
    "Functional_Correspondence",
    "IQ_Test",
    "Jigsaw",
    "Multi-view_Reasoning",
    "Object_Localization",
    "Relative_Depth",
    "Relative_Reflectance",
    "Semantic_Correspondence",
    "Spatial_Relation",
    "Visual_Correspondence",
    "Visual_Similarity",
)
_BY_NAME = {name.lower(): name for name in TASKS}


def task_named(text: str) -> str | None:
    """The task of that name, whatever parts its words and in whatever case.

    >>> task_named("relative depth"), task_named("Multi-view_Reasoning"), task_named("Depth")
    ('Relative_Depth', 'Multi-view_Reasoning', None)
    """
    return _BY_NAME.get("_".join(text.lower().split()))


def task_of_id(name: str) -> tuple[str, str] | None:
    """The split and the task of an id of the set.

    >>> task_of_id("val_Multi-view_Reasoning_7"), task_of_id("17")
    (('val', 'Multi-view_Reasoning'), None)
    """
    split, _, rest = name.partition("_")
    task = task_named(rest.rpartition("_")[0])
    return (split, task) if task else None
