"""Registry: the one place that knows which plugins there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Self

from vlmlens._known import KNOWN, KnownPlugin
from vlmlens.errors import UnknownPlugin, did_you_mean
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.registry._entry import (
    HOOK_GROUP,
    Entry,
    Status,
    ambiguous,
    normal,
    read_entries,
    same_distribution,
)

if TYPE_CHECKING:
    import pluggy

    from vlmlens.abc.options import Options

_UNUSABLE = (Status.BROKEN, Status.MISSING_DEPENDENCY, Status.WRONG_API_VERSION)


class Registry:
    """The plugins of an environment. Manifests are read group by group, when first asked for.

    Args:
        entry_points: What is installed; entry points of other groups are ignored.
    """

    def __init__(self, entry_points: Iterable[EntryPoint] = ()) -> None:
        self._points = tuple(entry_points)
        self._entries: dict[PluginKind, list[Entry]] = {}

    @classmethod
    def default(cls) -> Self:
        """What is installed in this Python environment."""
        groups = [*(kind.group for kind in PluginKind), HOOK_GROUP]
        installed = entry_points()
        return cls(point for group in groups for point in installed.select(group=group))

    def entries(self, kind: PluginKind | None = None) -> list[Entry]:
        """Every plugin of a kind, or every plugin; never raises for what is wrong with one.

        Without a kind, pluggy plugins come last. Classes behind manifests are not imported.
        """
        if kind is None:
            chosen = [entry for each in PluginKind for entry in self.entries(each)]
            return chosen + self._hooks[1]
        if kind not in self._entries:
            self._entries[kind] = read_entries(self._of_group(kind.group), kind)
        return self._entries[kind]

    def find(self, kind: PluginKind, name: str) -> Manifest:
        """The plugin that a user means by `name`.

        Args:
            kind: What it has to be.
            name: A name or an alias (case, `-` and `_` do not matter), `DISTRIBUTION:NAME`,
                `FILE.py:Class`, or, of a storage, a URI whose scheme is its name (up to a `+`).

        Raises:
            UnknownPlugin: Nothing of that name is installed.
            AmbiguousPlugin: Several plugins claim it.
            BrokenPlugin: Its manifest or its file cannot be imported.
            MissingDependency: A module that it needs is not installed.
            WrongApiVersion: It was written for another plugin API.
        """
        from vlmlens.registry._target import file_manifest, is_file

        if kind is PluginKind.STORAGE and "://" in name:
            name = name.partition("://")[0].partition("+")[0]
        if is_file(name):
            return file_manifest(kind, name)
        found = self._claimants(kind, name)
        if not found:
            raise self._unknown(kind, name)
        if len(found) > 1:
            raise ambiguous(name, found)
        entry = found[0]
        if entry.manifest is None or entry.status in _UNUSABLE:
            raise entry.problem or UnknownPlugin(f"The {kind} {name!r} has no manifest.")
        return entry.manifest

    def kinds_of(self, name: str, kind: PluginKind | None = None) -> list[PluginKind]:
        """The kinds in which a name means a plugin: `demo` is an adapter and a dataset.

        Args:
            name: As for `find`.
            kind: Do not search; this kind is meant.

        Raises:
            UnknownPlugin: No kind has such a plugin.
        """
        from vlmlens.registry._target import file_kinds, is_file

        if kind is not None:
            return [kind]
        if is_file(name):
            return file_kinds(name)
        found = [each for each in PluginKind if self._claimants(each, name)]
        if found:
            return found
        if known := next((k for k in KNOWN if _known(k.kind, name)), None):
            raise self._unknown(known.kind, name)
        names = dict.fromkeys(entry.name for entry in self.entries())
        raise UnknownPlugin(
            f"There is no plugin {name!r}.",
            subject=name,
            hint=did_you_mean(normal(name), names) or "`vlmlens plugins list` shows all.",
        )

    def load(self, manifest: Manifest) -> type[Any]:
        """The class behind a manifest: a subclass of its kind's interface.

        Raises:
            BrokenPlugin: Importing it failed, or it is not what the manifest says.
            MissingDependency: It imports a module that is not installed.
        """
        from vlmlens.registry._target import load_class

        owners = (e.distribution for e in self.entries(manifest.kind) if e.manifest is manifest)
        return load_class(manifest, next(owners, ""))

    def options(self, plugin: Manifest | type[Any], values: Mapping[str, Any]) -> Options:
        """A plugin's options, checked against its own model.

        Raises:
            SpecError: An option that it does not have, or a value of the wrong kind.
        """
        from vlmlens.spec import validated

        if isinstance(plugin, Manifest):
            where = f"The {plugin.kind} {plugin.name}"
            plugin = self.load(plugin)
        else:
            where = plugin.__name__
        options: Options = validated(plugin.Options, values, where=where)
        return options

    def dataset_for(self, data: str) -> tuple[Manifest, str]:
        """The dataset plugin for `--data`, and the source that it is given.

        Args:
            data: `NAME:SOURCE` (also `DISTRIBUTION:NAME:SOURCE` and `FILE.py:Class:SOURCE`), or
                an existing path, for which every installed dataset is asked whether it reads it.

        Raises:
            DataNotFound: It is neither, or no dataset reads the path.
            AmbiguousPlugin: Several datasets read the path.
            PluginError: The named dataset cannot be used.
        """
        from vlmlens.registry._data import dataset_for

        return dataset_for(self, data)

    def hooks(self) -> pluggy.PluginManager:
        """The plugin manager with every pluggy plugin that works; call with `call_hook`.

        One that cannot be registered is reported once and shows as broken in `entries`.
        """
        return self._hooks[0]

    @cached_property
    def _hooks(self) -> tuple[pluggy.PluginManager, list[Entry]]:
        from vlmlens.registry._hooks import register_all

        return register_all(self._of_group(HOOK_GROUP))

    def _of_group(self, group: str) -> list[EntryPoint]:
        return [point for point in self._points if point.group == group]

    def _claimants(self, kind: PluginKind, name: str) -> list[Entry]:
        distribution, colon, own_name = name.partition(":")
        wanted = normal(own_name if colon else name)
        found = [entry for entry in self.entries(kind) if wanted in entry.names]
        if not colon:
            return found
        found = [e for e in found if same_distribution(e.distribution, distribution)]
        return [entry for entry in found if normal(entry.name) == wanted] or found

    def _unknown(self, kind: PluginKind, name: str) -> UnknownPlugin:
        known = _known(kind, name)
        if known is not None:
            return UnknownPlugin(
                f"The {kind} {name!r} is not installed.", subject=name, hint=known.install_hint
            )
        names = [entry.name for entry in self.entries(kind)]
        every = names + [each.name for each in KNOWN if each.kind == kind]
        installed = f"Installed: {', '.join(dict.fromkeys(names)) or 'none'}."
        suggestion = did_you_mean(normal(name), dict.fromkeys(every))
        return UnknownPlugin(
            f"There is no {kind} {name!r}.", subject=name, hint=f"{suggestion} {installed}".strip()
        )


def _known(kind: PluginKind, name: str) -> KnownPlugin | None:
    wanted = normal(name)
    matches = (each for each in KNOWN if each.kind == kind and wanted in (each.name, *each.aliases))
    return next(matches, None)
