"""What every kind of plugin must do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from vlmlens.errors import PluginError, SpecError
from vlmlens.manifest import API_VERSION, Manifest
from vlmlens.testing._checks import CheckFailed, Checks, expect, expect_error

if TYPE_CHECKING:
    from pathlib import Path

    from vlmlens.abc.options import Options


class PluginChecks(Checks):
    """Base of the kits of all kinds.

    Args:
        manifest: The plugin's.
        options: Values of the plugin's own options; those not named keep their defaults.
    """

    manifest: ClassVar[Manifest]
    options: ClassVar[Mapping[str, Any]] = {}

    @property
    def plugin(self) -> type[Any]:
        """The class behind the manifest."""
        from vlmlens.registry._target import file_manifest, is_file, load_class

        target = self.manifest.target
        in_file = is_file(target)
        return load_class(file_manifest(self.manifest.kind, target) if in_file else self.manifest)

    def chosen(self, values: Mapping[str, Any] | None = None) -> Options:
        """The plugin's options with some values; default: the kit's."""
        from vlmlens.spec.model import validated

        given = self.options if values is None else values
        found: Options = validated(self.plugin.Options, dict(given), where=self.manifest.name)
        return found

    def check_manifest(self, folder: Path) -> None:
        """The manifest names a class of its kind, speaks this plugin API, and helps in one line."""
        del folder
        try:
            expect(isinstance(self.plugin, type), f"{self.manifest.target} is no class")
        except PluginError as error:
            raise CheckFailed(str(error)) from error
        said = self.manifest
        expect(said.api_version == API_VERSION, f"it speaks plugin API {said.api_version}")
        expect(bool(said.help.strip()) and "\n" not in said.help, f"its help is {said.help!r}")
        json.dumps(dict(said.suggests))

    def check_options(self, folder: Path) -> None:
        """A misspelt option is refused, and every option has a type, a description and a default.

        An option without a default would keep the plugin from being chosen by its name alone.
        """
        del folder
        error = expect_error(
            SpecError, lambda: self.chosen({"no_such_option": 1}), "An unknown option"
        )
        expect("no_such_option" in str(error), f"The error does not name the option: {error}")
        fields = self.plugin.Options.model_fields
        silent = [name for name, field in fields.items() if not field.description]
        expect(not silent, f"options without a description: {', '.join(silent)}")
        required = [name for name, field in fields.items() if field.is_required()]
        expect(not required, f"options without a default: {', '.join(required)}")
        self.chosen({})
