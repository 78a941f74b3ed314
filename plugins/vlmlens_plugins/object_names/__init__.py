"""Names of objects in texts: tables of synonyms, and how texts are read by them.

Analyses and benchmarks share this: it imports `vlmlens` alone.
"""

from vlmlens_plugins.object_names._coco import COCO
from vlmlens_plugins.object_names._names import (
    Mention,
    ObjectNames,
    coco_names,
    demo_names,
    names_in,
    plurals,
    read_names,
)

__all__ = [
    "COCO",
    "Mention",
    "ObjectNames",
    "coco_names",
    "demo_names",
    "names_in",
    "plurals",
    "read_names",
]
