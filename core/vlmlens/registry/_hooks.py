"""Pluggy plugins: registered one by one, so that a broken one harms nobody else."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from vlmlens.registry._entry import Entry, Status, broken, origin

if TYPE_CHECKING:
    import pluggy

_log = logging.getLogger("vlmlens")
_warned: WeakKeyDictionary[pluggy.PluginManager, set[tuple[str, str]]] = WeakKeyDictionary()


def register_all(points: Iterable[EntryPoint]) -> tuple[pluggy.PluginManager, list[Entry]]:
    """A plugin manager with every pluggy plugin that could be registered, and an entry for each."""
    import pluggy

    from vlmlens import hookspecs

    manager = pluggy.PluginManager("vlmlens")
    manager.add_hookspecs(hookspecs)
    unique = {(*origin(point), point.name, point.value): point for point in points}
    entries = [_register(manager, point) for point in unique.values()]
    return manager, sorted(entries, key=lambda entry: (entry.name, entry.distribution))


def call_hook(manager: pluggy.PluginManager, name: str, **arguments: Any) -> list[Any]:
    """Call a hook plugin by plugin; one that fails is reported once and left out.

    Args:
        manager: From `Registry.hooks`.
        name: The hook's name.
        arguments: As its specification names them.

    Returns:
        What the implementations returned, without None.
    """
    results: list[Any] = []
    for plugin_name, plugin in _implementers(manager, name):
        others = [other for other in manager.get_plugins() if other is not plugin]
        try:
            answer = manager.subset_hook_caller(name, others)(**arguments)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a third party's code
            _warn_once(manager, plugin_name, name, error)
            continue
        results.extend(answer if isinstance(answer, list) else [answer])
    return [result for result in results if result is not None]


def _register(manager: pluggy.PluginManager, point: EntryPoint) -> Entry:
    distribution, version = origin(point)
    entry = Entry(None, point.name, distribution, version)
    name = f"{distribution}:{point.name}"
    try:
        loaded = point.load()
        plugin = loaded() if isinstance(loaded, type) else loaded
        manager.register(plugin, name=name)
        manager.check_pending()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a third party's code
        if manager.has_plugin(name):
            manager.unregister(name=name)
        problem = broken("plugin", point.name, error, distribution)
        _log.warning("%s %s", problem.message, problem.hint)
        return entry.failed(Status.BROKEN, problem)
    return entry


def _implementers(manager: pluggy.PluginManager, name: str) -> list[tuple[str, Any]]:
    """Each plugin that implements the hook, in call order."""
    implementations = reversed(getattr(manager.hook, name).get_hookimpls())
    return [(found.plugin_name, found.plugin) for found in implementations]


def _warn_once(manager: pluggy.PluginManager, plugin: str, hook: str, error: BaseException) -> None:
    seen = _warned.setdefault(manager, set())
    if (plugin, hook) in seen:
        return
    seen.add((plugin, hook))
    _log.warning(
        "The plugin %s failed in %s and is left out there: %s: %s",
        plugin,
        hook,
        type(error).__name__,
        error,
        exc_info=_log.isEnabledFor(logging.DEBUG),
    )
