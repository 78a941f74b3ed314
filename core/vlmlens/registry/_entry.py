"""Entry: one entry point, read far enough to list it, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmlens.errors import PluginError
    from vlmlens.manifest import Manifest, PluginKind

HOOK_GROUP = "vlmlens.plugins"
"""The entry-point group of pluggy plugins: lifecycle hooks and extra commands."""


class Status(StrEnum):
    """What can be said of a plugin without importing the class behind it."""

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
        kind: What it is; None for a pluggy plugin of the group `vlmlens.plugins`.
        name: The name by which it is chosen.
        distribution: The distribution that brings it; "" where unknown.
        version: That distribution's version.
        manifest: None where it could not be read, and for pluggy plugins.
        status: Whether it can be used, as far as known without importing it.
        problem: The error that using it raises; for an ambiguous one, what choosing it by a
            shared name raises.
        seconds: What importing its manifest took.
        heavy: Packages such as torch that this imported, though a manifest needs none.
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
        """Whether it can be chosen, if need be with its distribution's name."""
        return self.manifest is not None and self.status in (Status.OK, Status.AMBIGUOUS)

    @property
    def lacks_extra(self) -> bool:
        """Whether it is a built-in plugin whose extra is not installed: no fault, but a choice."""
        return self.status is Status.MISSING_DEPENDENCY and self.distribution == "vlmlens"

    def failed(self, status: Status, problem: PluginError) -> Entry:
        """The same entry with a problem."""
        return replace(self, status=status, problem=problem)


def normal(name: str) -> str:
    """A plugin's name as it is compared.

    >>> normal("Aya-Vision")
    'aya_vision'
    """
    return name.strip().lower().replace("-", "_")
