"""What `vlmlens plugins show` says of lifecycle plugins."""

from __future__ import annotations

from inspect import getdoc
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmlens.registry import Entry, Registry


def hook_details(registry: Registry, name: str, *, strict: bool) -> list[dict[str, Any]]:
    """Those of that name (or `DISTRIBUTION:NAME`), as JSON-ready data.

    Args:
        registry: The installed plugins.
        name: As the user gave it.
        strict: Raise where one of them cannot be used; else leave it out.

    Raises:
        PluginError: One of them cannot be used.
    """
    from vlmlens.registry._entry import normal
    from vlmlens.registry._reading import same_distribution

    owner, _, own = name.rpartition(":")
    named = [
        entry
        for entry in registry.entries()
        if entry.kind is None
        and normal(entry.name) == normal(own)
        and (not owner or same_distribution(owner, entry.distribution))
    ]
    usable = [entry for entry in named if strict or entry.problem is None]
    return [_details(registry, entry) for entry in usable]


def _details(registry: Registry, entry: Entry) -> dict[str, Any]:
    from vlmlens.cli._types import option_rows

    if entry.problem is not None:
        raise entry.problem
    manager = registry.hooks()
    plugin: Any = manager.get_plugin(f"{entry.distribution}:{entry.name}")
    cls: Any = plugin if isinstance(plugin, ModuleType | type) else type(plugin)
    options = registry.hook_options(entry)
    called = [caller.name for caller in manager.get_hookcallers(plugin) or ()]
    return {
        "kind": "plugin",
        "name": entry.name,
        "help": (getdoc(cls) or "").partition("\n")[0],
        "from": f"{entry.distribution} {entry.version}",
        "class": cls.__name__,
        "hooks": sorted(called),
        "options": [] if options is None else option_rows(options),
        "checkpoints": [],
    }
