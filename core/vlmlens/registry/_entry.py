"""Entry: one entry point, read far enough to list it, and what is wrong with it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.metadata import EntryPoint
from importlib.util import find_spec

from vlmlens.errors import (
    AmbiguousPlugin,
    BrokenPlugin,
    MissingDependency,
    PluginError,
    WrongApiVersion,
)
from vlmlens.manifest import API_VERSION, Manifest, PluginKind

HOOK_GROUP = "vlmlens.plugins"
"""The entry-point group of pluggy plugins: lifecycle hooks and extra commands."""


class Status(StrEnum):
    """What can be said of a plugin without importing the class behind it."""

    OK = "ok"
    BROKEN = "broken"
    MISSING_DEPENDENCY = "missing-dependency"
    WRONG_API_VERSION = "wrong-api-version"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True, slots=True)
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
    """

    kind: PluginKind | None
    name: str
    distribution: str
    version: str
    manifest: Manifest | None = None
    status: Status = Status.OK
    problem: PluginError | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The normalised name, then the normalised aliases."""
        aliases = self.manifest.aliases if self.manifest else ()
        return tuple(dict.fromkeys(normal(name) for name in (self.name, *aliases)))

    def failed(self, status: Status, problem: PluginError) -> Entry:
        """The same entry with a problem."""
        return replace(self, status=status, problem=problem)


def normal(name: str) -> str:
    """A plugin's name as it is compared.

    >>> normal("Aya-Vision")
    'aya_vision'
    """
    return name.strip().lower().replace("-", "_")


def same_distribution(a: str, b: str) -> bool:
    """Whether two spellings name one distribution, as package indexes compare them."""
    return _index_name(a) == _index_name(b)


def origin(point: EntryPoint) -> tuple[str, str]:
    """Name and version of the distribution that declares an entry point."""
    if point.dist is None:
        return "", ""
    return point.dist.name, point.dist.version


def read_entries(points: Iterable[EntryPoint], kind: PluginKind) -> list[Entry]:
    """The entries of one kind, by name, with shared names marked as ambiguous."""
    unique = {(*origin(point), point.name, point.value): point for point in points}
    entries = [_read(point, kind) for point in unique.values()]
    return sorted(_mark_ambiguous(entries), key=lambda entry: (entry.name, entry.distribution))


def ambiguous(name: str, claimants: Iterable[Entry]) -> AmbiguousPlugin:
    """The error for a name that several plugins claim."""
    entries = list(claimants)
    kind = entries[0].kind
    choices = sorted(f"{entry.distribution or '?'}:{entry.name}" for entry in entries)
    return AmbiguousPlugin(
        f"The {kind} name {name!r} is claimed by {len(entries)} plugins: {', '.join(choices)}.",
        subject=name,
        hint=f"Name the distribution too, for example {choices[0]}, or uninstall one of them.",
    )


def broken(what: str, name: str, error: BaseException, distribution: str) -> BrokenPlugin:
    """The error for a plugin whose import failed with `error`."""
    fix = f"Upgrade, reinstall or uninstall {distribution}." if distribution else "Repair it."
    if distribution == "vlmlens":
        fix = "Reinstall vlmlens."
    problem = BrokenPlugin(
        f"The {what} {name!r} cannot be imported: {type(error).__name__}: {error}.",
        subject=name,
        hint=f"{fix} Other plugins are not affected.",
    )
    problem.__cause__ = error
    return problem


def missing_dependency(what: str, name: str, modules: Iterable[str]) -> MissingDependency:
    """The error for a plugin that needs modules which are not installed."""
    listed = list(modules)
    noun = "module" if len(listed) == 1 else "modules"
    which = ", ".join(listed)
    return MissingDependency(
        f"The {what} {name!r} needs the {noun} {which}, not installed in this environment.",
        subject=name,
        hint=f"Install what provides {which}; often that is `pip install {' '.join(listed)}`.",
    )


def _read(point: EntryPoint, kind: PluginKind) -> Entry:
    distribution, version = origin(point)
    entry = Entry(kind, point.name, distribution, version)
    try:
        manifest = point.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a third party's code
        problem = broken(kind.value, point.name, error, distribution)
        return entry.failed(Status.BROKEN, problem)
    if complaint := _complaint(manifest, point, kind):
        problem = BrokenPlugin(
            f"The {kind} {point.name!r} of {distribution or 'an unknown distribution'} has a "
            f"wrong manifest: {complaint}.",
            subject=point.name,
            hint=f"It is declared as {point.value!r}. Tell its author; others are not affected.",
        )
        return entry.failed(Status.BROKEN, problem)
    return _checked(replace(entry, name=manifest.name, manifest=manifest), manifest)


def _complaint(manifest: object, point: EntryPoint, kind: PluginKind) -> str:
    if not isinstance(manifest, Manifest):
        return f"{point.value!r} is a {type(manifest).__name__}, not a vlmlens.manifest.Manifest"
    if manifest.kind != kind:
        return f"it is of kind {manifest.kind}, in the group of {kind.group}"
    if normal(manifest.name) != normal(point.name):
        return f"it is named {manifest.name!r}, its entry point {point.name!r}"
    return ""


def _checked(entry: Entry, manifest: Manifest) -> Entry:
    if manifest.api_version != API_VERSION:
        return entry.failed(Status.WRONG_API_VERSION, _wrong_version(entry, manifest))
    missing = [name for name in manifest.requires if not _importable(name)]
    if missing:
        problem = missing_dependency(manifest.kind.value, manifest.name, missing)
        return entry.failed(Status.MISSING_DEPENDENCY, problem)
    return entry


def _wrong_version(entry: Entry, manifest: Manifest) -> WrongApiVersion:
    newer = manifest.api_version > API_VERSION
    return WrongApiVersion(
        f"The {manifest.kind} {manifest.name!r} was written for plugin API "
        f"{manifest.api_version}; this vlmlens speaks {API_VERSION}.",
        subject=manifest.name,
        hint=f"Upgrade {'vlmlens' if newer else entry.distribution or 'the plugin'}.",
    )


def _importable(module: str) -> bool:
    """Whether a module's top package can be found; nothing is imported to find out."""
    try:
        return find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _mark_ambiguous(entries: list[Entry]) -> Iterator[Entry]:
    claims = Counter(name for entry in entries for name in entry.names)
    for entry in entries:
        shared = [name for name in entry.names if claims[name] > 1]
        if shared and entry.status is Status.OK:
            claimants = [other for other in entries if shared[0] in other.names]
            yield entry.failed(Status.AMBIGUOUS, ambiguous(shared[0], claimants))
        else:
            yield entry


def _index_name(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
