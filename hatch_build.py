"""The wheel carries the templates; an editable installation finds them in the checkout."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class TemplatesHook(BuildHookInterface[Any]):
    """Puts `templates/` into the package of a wheel that is to be installed as it is."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it builds; `version` is "standard" or "editable"."""
        if version == "standard":
            build_data["force_include"]["templates"] = "vlmlens/_templates"
