"""Manifest: the light card by which a plugin is listed without being imported.

An entry point names a manifest. Listing reads manifests only; the class behind `target` is
imported when it is chosen. A module that holds manifests must import nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

API_VERSION = 1
"""The version of the plugin API that this vlmlens speaks."""


class PluginKind(StrEnum):
    """The kinds of plugin of which a run chooses by name; the value is the spec's key."""

    ADAPTER = "adapter"
    EXTRACTOR = "extractor"
    STORAGE = "storage"
    DATASET = "dataset"
    ANALYSIS = "analysis"

    @property
    def group(self) -> str:
        """The entry-point group: `vlmlens.adapters`, `vlmlens.analyses`, ..."""
        return _GROUPS[self]


_GROUPS = {
    PluginKind.ADAPTER: "vlmlens.adapters",
    PluginKind.EXTRACTOR: "vlmlens.extractors",
    PluginKind.STORAGE: "vlmlens.storage",
    PluginKind.DATASET: "vlmlens.datasets",
    PluginKind.ANALYSIS: "vlmlens.analyses",
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint known to work with an adapter.

    Args:
        id: Hub id.
        parameters: Number of parameters, in billions.
        gated: Whether its owner asks users to accept terms first.
        licence: As its owner names it, where known.
    """

    id: str
    parameters: float | None = None
    gated: bool = False
    licence: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known of a plugin without importing it.

    Args:
        kind: What it is.
        name: The name by which users choose it.
        target: The class, as `package.module:Class`.
        help: One line.
        api_version: The plugin API that it was written for.
        aliases: Other names that it answers to.
        offers: What others may rely on: an adapter's "generate", "readout", "choice-scores",
            ...; a storage's "ragged", ...; an extractor's "activations" (its columns are what
            modules gave).
        needs: What it relies on: an analysis's "labels", "choices", "images", "answers" (the
            model writes, or there are choices to compare), "model", "readout", "activations".
        requires: Modules that must be importable before `target` is imported.
        checkpoints: An adapter's known checkpoints.
        checks: A tuple of conformance tests to run with `vlmlens plugins check`, as
            `package.module:NAME`.
        suggests: Run-spec values that apply where the user gives none.
    """

    kind: PluginKind
    name: str
    target: str
    help: str
    api_version: int = API_VERSION
    aliases: tuple[str, ...] = ()
    offers: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    requires: tuple[str, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    checks: str | None = None
    suggests: Mapping[str, Any] = field(default_factory=dict)
