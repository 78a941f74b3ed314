"""Discovery of plugins: what is installed, what is wrong with it, and what to do.

>>> from vlmlens.manifest import PluginKind
>>> Registry(entry_points=[]).entries(PluginKind.ADAPTER)
[]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vlmlens.registry._entry import HOOK_GROUP, Entry, Status
from vlmlens.registry._registry import Registry

if TYPE_CHECKING:
    import pluggy

    from vlmlens.registry._guard import Guard

__all__ = ["HOOK_GROUP", "Entry", "Registry", "Status", "call_hook", "warnings_begin"]


def call_hook(
    manager: pluggy.PluginManager, name: str, guard: Guard | None = None, **arguments: Any
) -> list[Any]:
    """Call a hook plugin by plugin; one that fails is reported once and left out.

    Args:
        manager: From `Registry.hooks`.
        name: The hook's name.
        guard: Waits for each plugin up to its limit; default: for as long as it takes.
        arguments: As the hook's specification names them.

    Returns:
        What the implementations returned, without None.
    """
    from vlmlens.registry._hooks import called

    return called(manager, name, guard, arguments)


def warnings_begin(show: Callable[[], None]) -> None:
    """Have something done before the first warning about a plugin, such as setting up the log."""
    from vlmlens.registry import _log

    _log.prepare.append(show)
