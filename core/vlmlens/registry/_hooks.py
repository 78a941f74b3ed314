"""Pluggy plugins: registered one by one, so that a broken one harms nobody else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from vlmlens.registry._entry import Entry, Status
from vlmlens.registry._guard import TooSlow, measured
from vlmlens.registry._log import warn
from vlmlens.registry._problems import broken, disabled, slow

if TYPE_CHECKING:
    import pluggy

    from vlmlens.registry._choice import Choice
    from vlmlens.registry._guard import Guard
    from vlmlens.registry._installed import Point

_warned: WeakKeyDictionary[pluggy.PluginManager, set[tuple[str, str]]] = WeakKeyDictionary()


def register_all(
    points: Iterable[Point], guard: Guard, choice: Choice
) -> tuple[pluggy.PluginManager, list[Entry]]:
    """A plugin manager with every pluggy plugin that could be registered, and an entry for each."""
    import pluggy

    from vlmlens.abc import hookspecs

    manager = pluggy.PluginManager("vlmlens")
    manager.add_hookspecs(hookspecs)
    entries = [_register(manager, point, guard, choice) for point in dict.fromkeys(points)]
    guard.rest()
    return manager, sorted(entries, key=lambda entry: (entry.name, entry.distribution))


def called(
    manager: pluggy.PluginManager, name: str, guard: Guard | None, arguments: Mapping[str, Any]
) -> list[Any]:
    """What the implementations of a hook returned; see `vlmlens.registry.call_hook`."""
    results: list[Any] = []
    for plugin_name, plugin in _implementers(manager, name):
        others = [other for other in manager.get_plugins() if other is not plugin]
        call = partial(manager.subset_hook_caller(name, others), **arguments)
        try:
            answer = call() if guard is None else guard.call(plugin_name, plugin_name, call)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a third party's code
            _warn_once(manager, plugin_name, name, error)
            continue
        results.extend(answer if isinstance(answer, list) else [answer])
    if guard is not None:
        guard.rest()
    return [result for result in results if result is not None]


def _register(manager: pluggy.PluginManager, point: Point, guard: Guard, choice: Choice) -> Entry:
    entry = Entry(None, point.name, point.distribution, point.version)
    if reason := choice.reason(point):
        return entry.failed(Status.DISABLED, disabled("plugin", point.name, reason))
    name = f"{point.distribution}:{point.name}"
    label = f"{point.name} ({point.distribution})"
    try:
        make = partial(measured, partial(_made, point))
        plugin, seconds, heavy = guard.call(label, point.package, make)
        manager.register(plugin, name=name)
        manager.check_pending()
    except TooSlow as error:
        late = slow("plugin", point.name, error, point.distribution)
        warn("%s %s", late.message, late.hint)
        return entry.failed(Status.SLOW, late)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a third party's code
        if manager.has_plugin(name):
            manager.unregister(name=name)
        problem = broken("plugin", point.name, error, point.distribution)
        warn("%s %s", problem.message, problem.hint)
        return entry.failed(Status.BROKEN, problem)
    return replace(entry, seconds=seconds, heavy=heavy)


def _made(point: Point) -> Any:
    loaded = point.load()
    return loaded() if isinstance(loaded, type) else loaded


def _implementers(manager: pluggy.PluginManager, name: str) -> list[tuple[str, Any]]:
    """Each plugin that implements the hook, in call order."""
    implementations = reversed(getattr(manager.hook, name).get_hookimpls())
    return [(found.plugin_name, found.plugin) for found in implementations]


def _warn_once(manager: pluggy.PluginManager, plugin: str, hook: str, error: BaseException) -> None:
    seen = _warned.setdefault(manager, set())
    if (plugin, hook) in seen:
        return
    seen.add((plugin, hook))
    warn(
        "The plugin %s failed in %s and is left out there: %s: %s",
        plugin,
        hook,
        type(error).__name__,
        error,
        error=error,
    )
