"""Manifest: a short description of a plugin, so that it can be listed without being imported.

An entry point names a manifest. Listing reads manifests only. The class that `target` names is
imported when a user chooses the plugin. A module with manifests must not import anything heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

API_VERSION = 1
"""The version of the plugin API in this version of vlmlens."""

IMAGES_ONLY = "images-only"
"""What an adapter offers that reads no prompts."""


class PluginKind(StrEnum):
    """The kinds of plugin that are chosen by name.

    The value is the key in the run spec; interventions are named in its edits.
    """

    ADAPTER = "adapter"
    EXTRACTOR = "extractor"
    STORAGE = "storage"
    DATASET = "dataset"
    ANALYSIS = "analysis"
    ENGINE = "engine"
    INTERVENTION = "intervention"

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
    PluginKind.ENGINE: "vlmlens.engines",
    PluginKind.INTERVENTION: "vlmlens.interventions",
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint known to work with an adapter.

    Args:
        id: Hub id.
        parameters: Number of parameters, in billions.
        gated: Whether users must accept terms before they can download it.
        licence: The owner's name for the licence, if known.
    """

    id: str
    parameters: float | None = None
    gated: bool = False
    licence: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known about a plugin without importing it.

    Args:
        kind: The kind of plugin.
        name: The name by which users choose it.
        target: The class, as `package.module:Class`.
        help: A description in one line.
        api_version: The plugin API that it was written for.
        aliases: Other names for it.
        offers: What other plugins may rely on. An adapter offers "generate", "readout",
            "choice-scores", ..., or "images-only" (prompts are not read); a storage backend
            "ragged", ...; an extractor "activations" (its columns are outputs of modules) or
            "attention" (they are attention weights).
        needs: What an analysis relies on: "labels", "choices", "images", "answers" (the model can
            write text, or the samples have choices to compare), "text" (the model reads
            prompts), "model", "readout", "activations",
            "attention".
        requires: Modules that must be installed before `target` is imported.
        checkpoints: Known checkpoints of an adapter.
        checks: Conformance tests for `vlmlens plugins check`: the path of a tuple of them, as
            `package.module:NAME`.
        suggests: Run-spec values to use if the user gives none. Analyses that an extractor
            suggests run beside the default ones.
        model_types: What the config.json of an adapter's checkpoints says, any of it: a model type
            ("qwen2_vl"), a model type with that of its vision tower ("llava+pixtral"), or a class
            ("GLaMMForCausalLM"). Without --adapter, the adapter is chosen by it. A pattern of
            classes ("*ForCausalLM") counts where no manifest names the config, and no vision tower
            is in it.
        also_reads: Model types of checkpoints that it reads if it is named, though another adapter
            is chosen for them: a whole CLIP, of which it takes the tower.
        placeholders: What stands for an image in prompts of an adapter's family ("<image>").
        limits: What cannot be done with it, and why: a sentence each.
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
    model_types: tuple[str, ...] = ()
    also_reads: tuple[str, ...] = ()
    placeholders: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
