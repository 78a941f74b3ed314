"""Registry: finds, lists and loads plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from vlmlens.abc.edit_texts import announce
from vlmlens.registry._choice import Choice
from vlmlens.registry._entry import HOOK_GROUP, Entry, normal
from vlmlens.registry._guard import Guard, TooSlow
from vlmlens.registry._installed import Point, installed_points

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    import pluggy

    from vlmlens._known import KnownPlugin
    from vlmlens.abc.options import Options
    from vlmlens.errors import UnknownPlugin
    from vlmlens.manifest import Manifest, PluginKind
    from vlmlens.passes.edits import EdgeCut, Edit

announce(lambda text: Registry.default().edit(text))


class Registry:
    """The plugins of an environment. Manifests are read group by group, when first needed.

    Args:
        entry_points: The installed entry points. Those of other groups are ignored.
        guard: Runs plugin code while plugins are listed; default: with the usual time limit.
        choice: Which plugins are turned off; default: none.
    """

    def __init__(
        self,
        entry_points: Iterable[Point | EntryPoint] = (),
        *,
        guard: Guard | None = None,
        choice: Choice | None = None,
    ) -> None:
        self.points = tuple(p if isinstance(p, Point) else Point.of(p) for p in entry_points)
        self.guard = guard or Guard()
        self.choice = choice or Choice()
        self._entries: dict[PluginKind, list[Entry]] = {}

    @classmethod
    def default(cls, *, clean_stdout: bool = False) -> Self:
        """The plugins of this Python environment, with the settings in environment variables.

        Args:
            clean_stdout: Whether to send what plugins print during import to stderr.
        """
        return cls(
            installed_points(),
            guard=Guard.from_environment(clean=clean_stdout),
            choice=Choice.from_environment(),
        )

    def with_folder(self, folder: str) -> tuple[Self, list[tuple[str, str]]]:
        """A registry that has the plugins of a project's folder, too, without installing it.

        Args:
            folder: Its pyproject.toml declares plugins. Its modules can be imported afterwards.

        Returns:
            The registry, and the group and name of each plugin of the folder.

        Raises:
            UnknownPlugin: It declares none.
        """
        from pathlib import Path

        from vlmlens.registry._folders import importable, points_of

        place = Path(folder).expanduser()
        own = points_of(place)
        points = importable(place, own, self.points)
        named = [(point.group, point.name) for point in own]
        return type(self)(points, guard=self.guard, choice=self.choice), named

    def entries(self, kind: PluginKind | None = None) -> list[Entry]:
        """All plugins of a kind; without a kind, all plugins, pluggy plugins last.

        A broken plugin raises no error here; its entry says what is wrong. The classes that
        manifests name are not imported.
        """
        from vlmlens.manifest import PluginKind

        if kind is None:
            chosen = [entry for each in PluginKind for entry in self.entries(each)]
            return chosen + self._hooks[1]
        if kind not in self._entries:
            from vlmlens.registry._reading import read_entries

            points = self._of_group(kind.group)
            self._entries[kind] = read_entries(points, kind, self.guard, self.choice)
        return self._entries[kind]

    def find(self, kind: PluginKind, name: str) -> Manifest:
        """The plugin that a user means by `name`.

        Args:
            kind: The kind of the plugin.
            name: A name or an alias (case, `-` and `_` do not matter), `DISTRIBUTION:NAME`,
                `FILE.py:Class`, or, for a storage backend, a URI whose scheme is its name (up to
                a `+`).

        Raises:
            UnknownPlugin: Nothing of that name is installed.
            AmbiguousPlugin: Several plugins have that name.
            BrokenPlugin: Its manifest or its file cannot be imported.
            MissingDependency: A module that it needs is not installed.
            WrongApiVersion: It was written for another plugin API.
            SlowPlugin: Importing its manifest took too long.
            DisabledPlugin: An environment variable turns it off.
        """
        from vlmlens.errors import UnknownPlugin
        from vlmlens.manifest import PluginKind
        from vlmlens.registry._reading import ambiguous
        from vlmlens.registry._target import file_manifest, is_file

        if kind is PluginKind.STORAGE and "://" in name:
            name = name.partition("://")[0].partition("+")[0]
        if is_file(name):
            with self.guard.traced(name):
                return file_manifest(kind, name)
        found = self._claimants(kind, name)
        if not found:
            raise self._unknown(kind, name)
        if len(found) > 1:
            raise ambiguous(name, found)
        entry = found[0]
        if entry.manifest is None or not entry.usable:
            raise entry.problem or UnknownPlugin(f"The {kind} {name!r} has no manifest.")
        return entry.manifest

    def kinds_of(self, name: str, kind: PluginKind | None = None) -> list[PluginKind]:
        """The kinds that have a plugin of this name: `demo` is an adapter and a dataset.

        Args:
            name: See `find`.
            kind: Search only this kind; None: all kinds.

        Raises:
            UnknownPlugin: No kind has such a plugin.
        """
        from vlmlens._known import KNOWN
        from vlmlens.errors import UnknownPlugin, did_you_mean
        from vlmlens.manifest import PluginKind
        from vlmlens.registry._folders import hint_of_folder
        from vlmlens.registry._target import file_kinds, is_file

        if kind is not None:
            return [kind]
        if is_file(name):
            with self.guard.traced(name):
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
            hint=hint_of_folder(name)
            or did_you_mean(normal(name), names)
            or "`vlmlens plugins list` shows all.",
        )

    def load(self, manifest: Manifest) -> type[Any]:
        """Import the class that a manifest names: a subclass of its kind's interface.

        Raises:
            BrokenPlugin: Importing it failed, or it is not what the manifest says.
            MissingDependency: It imports a module that is not installed.
        """
        from vlmlens.registry._target import load_class

        with self.guard.traced(f"{manifest.kind.value} {manifest.name}, its class"):
            return load_class(manifest, self._owner(manifest))

    def ask(
        self,
        manifest: Manifest,
        question: Callable[[type[Any]], Any],
        *,
        limit: float | None = None,
    ) -> Any:
        """Load a plugin that nobody chose, within a time limit, and ask its class a question.

        Args:
            manifest: The plugin's manifest.
            question: A function of the plugin's class.
            limit: Seconds to allow; None: as long as for a manifest.

        Raises:
            PluginError: It cannot be loaded, or takes too long.
        """
        from vlmlens.registry._problems import slow
        from vlmlens.registry._target import load_class

        guard, owner = self.guard, self._owner(manifest)
        package = manifest.target.partition(":")[0].partition(".")[0]
        label = f"{manifest.kind.value} {manifest.name}, asked"
        try:
            return guard.call(label, package, lambda: question(load_class(manifest, owner)), limit)
        except TooSlow as error:
            raise slow(manifest.kind.value, manifest.name, error, owner) from error
        finally:
            guard.rest()

    def options(self, plugin: Manifest | type[Any], values: Mapping[str, Any]) -> Options:
        """A plugin's options, checked against its own pydantic model.

        Raises:
            SpecError: An option that it does not have, or a value of the wrong kind.
        """
        from vlmlens.manifest import Manifest
        from vlmlens.spec.model import validated

        if isinstance(plugin, Manifest):
            where = f"The {plugin.kind} {plugin.name}"
            plugin = self.load(plugin)
        else:
            where = plugin.__name__
        options: Options = validated(plugin.Options, values, where=where)
        return options

    def edit(self, text: str) -> Edit | EdgeCut:
        """The edit that `SITE/SELECTOR = INTERVENTION(arguments)` means.

        Raises:
            EditError: It does not parse, or has arguments that do not fit.
            SelectorError: Its selector does not parse.
            PluginError: There is no such intervention.
            SpecError: The intervention has no such option, or the value is of the wrong kind.
        """
        from vlmlens.registry._edits import opened_edit

        return opened_edit(text, self.find, self.load, self.options)

    def dataset_for(self, data: str) -> tuple[Manifest, str]:
        """The dataset plugin for `--data`, and the source for it.

        Args:
            data: `NAME:SOURCE` (also `DISTRIBUTION:NAME:SOURCE` and `FILE.py:Class:SOURCE`), or an
                existing path. For a path, every installed dataset is asked whether it reads it.

        Raises:
            DataNotFound: It is neither of these, or no dataset reads the path.
            AmbiguousPlugin: Several datasets read the path.
            PluginError: The named dataset cannot be used.
        """
        from vlmlens.manifest import PluginKind
        from vlmlens.registry._data import dataset_for

        return dataset_for(data, self.entries(PluginKind.DATASET), self.find, self.ask)

    def hooks(self) -> pluggy.PluginManager:
        """The plugin manager with all pluggy plugins that work; call hooks with `call_hook`.

        A plugin that cannot be registered is reported once, and is broken in `entries`.
        """
        return self._hooks[0]

    def hook_options(self, entry: Entry) -> type[Options] | None:
        """The options class of a lifecycle plugin, which its attribute `OPTIONS` names.

        Args:
            entry: The plugin's entry.

        Raises:
            Exception: Whatever importing the class raises.
        """
        plugin = self.hooks().get_plugin(f"{entry.distribution}:{entry.name}")
        path = getattr(plugin, "OPTIONS", None)
        if path is None:
            return None
        options: type[Options] = Point(HOOK_GROUP, entry.name, path, ("", "")).load()
        return options

    @property
    def has_hooks(self) -> bool:
        """Whether any pluggy plugin is installed. Nothing is imported to find out."""
        return bool(self._of_group(HOOK_GROUP))

    @cached_property
    def _hooks(self) -> tuple[pluggy.PluginManager, list[Entry]]:
        from vlmlens.registry._hooks import register_all

        return register_all(self._of_group(HOOK_GROUP), self.guard, self.choice)

    def _owner(self, manifest: Manifest) -> str:
        """The distribution that contains a manifest; "" if none does."""
        owners = (e.distribution for e in self.entries(manifest.kind) if e.manifest is manifest)
        return next(owners, "")

    def _of_group(self, group: str) -> list[Point]:
        return [point for point in self.points if point.group == group]

    def _claimants(self, kind: PluginKind, name: str) -> list[Entry]:
        from vlmlens.registry._reading import meant, same_distribution

        distribution, colon, own_name = name.partition(":")
        if not colon:
            return meant(name, self.entries(kind))
        owned = [e for e in self.entries(kind) if same_distribution(e.distribution, distribution)]
        return meant(own_name, owned)

    def _unknown(self, kind: PluginKind, name: str) -> UnknownPlugin:
        from vlmlens._known import KNOWN
        from vlmlens.errors import UnknownPlugin, did_you_mean
        from vlmlens.registry._folders import hint_of_folder

        known = _known(kind, name)
        if known is not None:
            return UnknownPlugin(
                f"The {kind} {name!r} is not installed.", subject=name, hint=known.install_hint
            )
        names = [entry.name for entry in self.entries(kind)]
        every = names + [each.name for each in KNOWN if each.kind == kind]
        installed = f"Installed: {', '.join(dict.fromkeys(names)) or 'none'}."
        suggestion = hint_of_folder(name) or did_you_mean(normal(name), dict.fromkeys(every))
        return UnknownPlugin(
            f"There is no {kind} {name!r}.", subject=name, hint=f"{suggestion} {installed}".strip()
        )


def _known(kind: PluginKind, name: str) -> KnownPlugin | None:
    from vlmlens._known import KNOWN

    wanted = normal(name)
    matches = (each for each in KNOWN if each.kind == kind and wanted in (each.name, *each.aliases))
    return next(matches, None)
