"""A user's own function that says of a feature's page what the feature is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from vlmlens._clean import clean
from vlmlens._files import expanded
from vlmlens.errors import BrokenPlugin, PluginError, UnknownPlugin
from vlmlens.manifest import PluginKind
from vlmlens.registry._target import import_file
from vlmlens.results import FeaturePage

_LONGEST = 4000
_FORM = "Write package.module:NAME, or FILE.py:NAME."


@dataclass(frozen=True, slots=True)
class Explainer:
    """A user's function, `FeaturePage -> str`. Nothing tests what it says.

    Args:
        name: How the user named it.
        function: The function.
    """

    name: str
    function: Callable[[FeaturePage], Any]

    @classmethod
    def load(cls, name: str) -> Explainer:
        """Import `package.module:NAME` or `FILE.py:NAME`. This runs code.

        Raises:
            UnknownPlugin: There is no such file, module or function.
            BrokenPlugin: Importing it failed.
        """
        place, _, wanted = name.rpartition(":")
        if not place or not wanted.isidentifier():
            raise _unknown(name, "does not name a function")
        try:
            module = _imported(place, name)
        except (PluginError, KeyboardInterrupt):
            raise
        except (Exception, SystemExit) as error:
            raise BrokenPlugin(
                f"The explainer {name!r} cannot be imported: {type(error).__name__}: {error}.",
                subject=name,
                hint="Import it in Python to see where that happens.",
            ) from error
        function = getattr(module, wanted, None)
        if not callable(function):
            raise _unknown(name, "names no function of that module")
        return cls(name, function)

    def told(self, page: FeaturePage, warn: Callable[[str], None]) -> FeaturePage:
        """The page with what the function says of it.

        Args:
            page: The page.
            warn: Called if the function fails; the page then stays as it is.
        """
        try:
            text = self.function(page)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's function may raise anything
            said = clean(f"{type(error).__name__}: {error}")
            warn(f"The explainer {self.name} failed for {_named(page)}: {said}.")
            return page
        if not isinstance(text, str):
            kind = type(text).__name__
            warn(f"The explainer {self.name} gave no text for {_named(page)}, but {kind}.")
            return page
        return replace(page, told=text[:_LONGEST], explainer=self.name)


def _imported(place: str, name: str) -> Any:
    if not place.endswith(".py"):
        return import_module(place)
    path = expanded(place)
    if not path.is_file():
        raise UnknownPlugin(
            f"There is no file {str(path)!r}, which the explainer {name!r} names.",
            subject=name,
            hint=_FORM,
        )
    return import_file(PluginKind.ANALYSIS, Path(path), name)


def _unknown(name: str, problem: str) -> UnknownPlugin:
    return UnknownPlugin(
        f"The explainer {name!r} {problem}.",
        subject=name,
        hint=_FORM,
    )


def _named(page: FeaturePage) -> str:
    return f"feature {page.number} of {page.column}"
