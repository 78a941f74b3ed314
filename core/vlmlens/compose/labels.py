"""Labels: `logit-lens:patches` is the analysis logit-lens, its result kept under that name.

So one run keeps several results of one analysis, each with its own options.
"""

from __future__ import annotations

import re

from vlmlens.errors import SpecError, UnknownPlugin
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.registry import Registry

_LABEL = re.compile(r"[A-Za-z0-9_-]+")


def analysis_named(registry: Registry, name: str) -> tuple[Manifest, str]:
    """The analysis that a user means by a name, and its label; "" without one.

    What is itself a name (`DISTRIBUTION:NAME`, `FILE.py:Class`) has no label.

    Raises:
        PluginError: There is no such analysis, or it cannot be used.
        SpecError: The label is none.
    """
    try:
        return registry.find(PluginKind.ANALYSIS, name), ""
    except UnknownPlugin as unknown:
        base, colon, label = name.rpartition(":")
        if not colon:
            raise
        try:
            manifest = registry.find(PluginKind.ANALYSIS, base)
        except UnknownPlugin as error:
            raise (error if "Did you mean" in error.hint else unknown) from None
    if not _LABEL.fullmatch(label):
        raise SpecError(
            f"{name!r}: {label!r} is no label for an analysis.",
            subject=name,
            hint="A label has letters, digits, hyphens and underscores: logit-lens:patches.",
        )
    return manifest, label


def result_name(manifest: Manifest, label: str) -> str:
    """The name under which the result is kept."""
    return f"{manifest.name}:{label}" if label else manifest.name
