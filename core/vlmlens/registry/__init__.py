"""Discovery of plugins: what is installed, what is wrong with it, and what to do about it.

May use `abc` and what is below, and imports nothing heavy. Entry points are found in `_installed`,
manifests are read in `_reading`, classes are imported in `_target`, plugin code runs with a time
limit in `_guard`, and hooks are called in `_hooks`. Add a new way for a plugin to be wrong to
`_problems`. `scaffold` writes new plugins from templates.

>>> from vlmlens.manifest import PluginKind
>>> Registry(entry_points=[]).entries(PluginKind.ADAPTER)
[]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vlmlens.registry._entry import FILE_END, HOOK_GROUP, Entry, Status
from vlmlens.registry._registry import Registry

if TYPE_CHECKING:
    import pluggy

    from vlmlens.registry._guard import Guard

__all__ = [
    "FILE_END",
    "HOOK_GROUP",
    "Entry",
    "Registry",
    "Status",
    "call_hook",
    "names_file",
    "warnings_begin",
]


def call_hook(
    manager: pluggy.PluginManager, name: str, guard: Guard | None = None, **arguments: Any
) -> list[Any]:
    """Call a hook, plugin by plugin. A plugin that fails is reported once and left out.

    Args:
        manager: From `Registry.hooks`.
        name: The hook's name.
        guard: Limits how long each plugin may take; None: no limit.
        arguments: The hook's arguments, by name.

    Returns:
        The return values of the implementations, without None.
    """
    from vlmlens.registry._hooks import called

    return called(manager, name, guard, arguments)


def names_file(name: str) -> bool:
    """Whether a plugin's name, or a `--data` with one, makes `Registry.find` import a Python file.

    >>> names_file("./mine.py:Mine"), names_file("./rows.py:Rows:x"), names_file("lmdb")
    (True, True, False)
    """
    return FILE_END.search(name) is not None


def warnings_begin(show: Callable[[], None]) -> None:
    """Call `show` before the first warning about a plugin, for example to set up the log."""
    from vlmlens.registry import _log

    _log.prepare.append(show)
