"""From entry points to entries: reads manifests, checks them, and marks ambiguous names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from vlmlens.errors import AmbiguousPlugin, BrokenPlugin
from vlmlens.manifest import API_VERSION, Checkpoint, Manifest, PluginKind
from vlmlens.registry._entry import Entry, Status, normal
from vlmlens.registry._guard import TooSlow, measured
from vlmlens.registry._installed import index_name
from vlmlens.registry._problems import broken, disabled, missing_dependency, slow, wrong_version

if TYPE_CHECKING:
    from vlmlens.registry._choice import Choice
    from vlmlens.registry._guard import Guard
    from vlmlens.registry._installed import Point

OWN = "vlmlens"
"""The distribution whose plugin names no other distribution can take over."""

_TEXTS = ("name", "target", "help")
_LISTS = (
    "aliases", "offers", "needs", "requires", "model_types", "also_reads", "placeholders", "limits",
)  # fmt: skip


def read_entries(
    points: Iterable[Point], kind: PluginKind, guard: Guard, choice: Choice
) -> list[Entry]:
    """The entries of one kind, sorted by name. Names of several plugins are marked ambiguous."""
    entries = [_read(point, kind, guard, choice) for point in dict.fromkeys(points)]
    guard.rest()
    return sorted(_mark_ambiguous(entries), key=lambda entry: (entry.name, entry.distribution))


def same_distribution(a: str, b: str) -> bool:
    """Whether two spellings name the same distribution, as package indexes compare them."""
    return index_name(a) == index_name(b)


def meant(name: str, entries: Iterable[Entry]) -> list[Entry]:
    """The entries that a name can mean: vlmlens's own before others, names before aliases.

    So the built-in plugins keep their names, whatever else is installed.
    """
    wanted = normal(name)
    found = [entry for entry in entries if wanted in entry.names]
    for preferred in (_is_own, lambda entry: normal(entry.name) == wanted):
        found = [entry for entry in found if preferred(entry)] or found
    return found


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


def _read(point: Point, kind: PluginKind, guard: Guard, choice: Choice) -> Entry:
    entry = Entry(kind, point.name, point.distribution, point.version)
    if reason := choice.reason(point):
        return entry.failed(Status.DISABLED, disabled(kind.value, point.name, reason))
    label = f"{kind.value} {point.name} ({point.distribution})"
    try:
        read = partial(measured, point.load)
        manifest, seconds, heavy = guard.call(label, point.package, read)
        complaint = _complaint(manifest, point, kind)
    except TooSlow as error:
        problem = slow(kind.value, point.name, error, point.distribution)
        return entry.failed(Status.SLOW, problem)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a third party's code
        return entry.failed(
            Status.BROKEN, broken(kind.value, point.name, error, point.distribution)
        )
    if complaint:
        return entry.failed(Status.BROKEN, _malformed(point, kind, complaint))
    entry = replace(entry, name=manifest.name, manifest=manifest)
    return _checked(replace(entry, seconds=seconds, heavy=heavy), manifest)


def _malformed(point: Point, kind: PluginKind, complaint: str) -> BrokenPlugin:
    return BrokenPlugin(
        f"The {kind} {point.name!r} of {point.distribution or 'an unknown distribution'} has a "
        f"wrong manifest: {complaint}.",
        subject=point.name,
        hint=f"It is declared as {point.value!r}. Tell its author. Other plugins are not affected.",
    )


def _complaint(manifest: Any, point: Point, kind: PluginKind) -> str:
    if not isinstance(manifest, Manifest):
        return f"{point.value!r} is a {type(manifest).__name__}, not a vlmlens.manifest.Manifest"
    if manifest.kind != kind:
        return f"it is of kind {manifest.kind}, in the group of {kind.group}"
    for field, expected in _wrong_fields(manifest):
        return f"its {field} is {getattr(manifest, field)!r}, not {expected}"
    if normal(manifest.name) != normal(point.name):
        return f"it is named {manifest.name!r}, its entry point {point.name!r}"
    return ""


def _wrong_fields(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Fields with a value of the wrong type, and what was expected."""
    for field in _TEXTS:
        if not isinstance(getattr(manifest, field), str):
            yield field, "text"
    if ":" not in str(manifest.target):
        yield "target", "a class as package.module:Class"
    if not isinstance(manifest.api_version, int):
        yield "api_version", "a whole number"
    for field in _LISTS:
        if not _holds(getattr(manifest, field), str):
            yield field, "a collection of texts"
    if not _holds(manifest.checkpoints, Checkpoint):
        yield "checkpoints", "a tuple of Checkpoint"
    if not isinstance(manifest.suggests, Mapping):
        yield "suggests", "a mapping"


def _holds(value: object, item: type) -> bool:
    collection = isinstance(value, tuple | list | set | frozenset)
    return collection and all(isinstance(each, item) for each in value)  # type: ignore[attr-defined]


def _checked(entry: Entry, manifest: Manifest) -> Entry:
    if manifest.api_version != API_VERSION:
        problem = wrong_version(manifest, entry.distribution)
        return entry.failed(Status.WRONG_API_VERSION, problem)
    missing = [name for name in manifest.requires if not _importable(name)]
    if missing:
        lacking = missing_dependency(
            manifest.kind.value, manifest.name, missing, entry.distribution
        )
        return entry.failed(Status.MISSING_DEPENDENCY, lacking)
    return entry


def _importable(module: str) -> bool:
    """Whether a module's top-level package is installed. Nothing is imported to find out."""
    try:
        return find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _mark_ambiguous(entries: list[Entry]) -> Iterator[Entry]:
    claims: dict[str, list[Entry]] = {}
    for entry in entries:
        for name in entry.names:
            claims.setdefault(name, []).append(entry)
    for entry in entries:
        lost = [
            name
            for name in entry.names
            if len(claims[name]) > 1 and meant(name, claims[name]) != [entry]
        ]
        if lost and entry.status is Status.OK:
            yield entry.failed(Status.AMBIGUOUS, ambiguous(lost[0], claims[lost[0]]))
        else:
            yield entry


def _is_own(entry: Entry) -> bool:
    return same_distribution(entry.distribution, OWN)
