"""Entry: one installed plugin with its manifest, and what is wrong with it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmlens.errors import PluginError
    from vlmlens.manifest import Manifest, PluginKind

HOOK_GROUP = "vlmlens.plugins"
"""The entry-point group of pluggy plugins: lifecycle hooks and extra commands."""

FILE_END = re.compile(r"\.py(?=$|[:+])")
"""The end of the path in what can become a `FILE.py`, also in a URI or before a source."""


class Status(StrEnum):
    """The state of a plugin, as known without importing its class."""

    OK = "ok"
    BROKEN = "broken"
    MISSING_DEPENDENCY = "missing-dependency"
    WRONG_API_VERSION = "wrong-api-version"
    AMBIGUOUS = "ambiguous"
    SLOW = "slow"
    DISABLED = "disabled"


@dataclass(frozen=True)
class Entry:
    """One installed plugin.

    Args:
        kind: Its kind; None for a pluggy plugin of the group `vlmlens.plugins`.
        name: The name by which users choose it.
        distribution: The distribution that contains it; "" if unknown.
        version: That distribution's version.
        manifest: Its manifest; None if it could not be read, and for pluggy plugins.
        status: Whether it can be used, as far as known without importing it.
        problem: The error that using it raises. For an ambiguous plugin: the error that choosing
            it by the shared name raises.
        seconds: How long importing its manifest took.
        heavy: Packages such as torch that this imported although a manifest needs none.
    """

    kind: PluginKind | None
    name: str
    distribution: str
    version: str
    manifest: Manifest | None = None
    status: Status = Status.OK
    problem: PluginError | None = None
    seconds: float = 0.0
    heavy: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The normalised name, then the normalised aliases."""
        aliases = self.manifest.aliases if self.manifest else ()
        return tuple(dict.fromkeys(normal(name) for name in (self.name, *aliases)))

    @property
    def usable(self) -> bool:
        """Whether it can be chosen, by its name or as DISTRIBUTION:NAME."""
        return self.manifest is not None and self.status in (Status.OK, Status.AMBIGUOUS)

    @property
    def lacks_extra(self) -> bool:
        """Whether it is a built-in plugin whose extra is not installed: no fault, but a choice."""
        return self.status is Status.MISSING_DEPENDENCY and self.distribution == "vlmlens"

    def failed(self, status: Status, problem: PluginError) -> Entry:
        """The same entry with a problem."""
        return replace(self, status=status, problem=problem)


def normal(name: str) -> str:
    """A plugin's name in the form in which names are compared.

    >>> normal("Aya-Vision")
    'aya_vision'
    """
    return name.strip().lower().replace("-", "_")
