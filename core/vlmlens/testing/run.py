"""Running a plugin's conformance checks without pytest: `vlmlens plugins check`."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vlmlens.errors import BrokenPlugin, PluginError, SpecError
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.registry._folders import is_project
from vlmlens.testing._checks import CheckResult, Checks

if TYPE_CHECKING:
    from vlmlens.abc.observer import Observer
    from vlmlens.registry import Registry

_KITS = {
    PluginKind.ADAPTER: "AdapterTests",
    PluginKind.EXTRACTOR: "ExtractorTests",
    PluginKind.STORAGE: "StorageTests",
    PluginKind.DATASET: "DatasetTests",
    PluginKind.ANALYSIS: "AnalysisTests",
    PluginKind.ENGINE: "EngineTests",
    PluginKind.INTERVENTION: "InterventionTests",
}

TINY = "tiny checkpoint"
"""The subject of an adapter's checks if no checkpoint is named."""


@dataclass(frozen=True, slots=True)
class Suite:
    """One set of checks for one plugin.

    Args:
        manifest: The plugin's manifest.
        checks: The checks.
        subject: What they run on, as text.
    """

    manifest: Manifest
    checks: type[Checks]
    subject: str = ""


@dataclass(frozen=True, slots=True)
class _Place:
    """What the user wants to check a plugin on."""

    model: str | None
    data: str | None
    device: str


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a suite.

    Args:
        suite: The suite.
        results: One result per check.
        description: An adapter's description of a named checkpoint; empty otherwise.
    """

    suite: Suite
    results: Sequence[CheckResult]
    description: dict[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """The number of checks with each outcome."""
        found = Counter(result.outcome for result in self.results)
        return {"passed": found["passed"], "skipped": found["skipped"], "failed": found["failed"]}


def find_suites(
    registry: Registry,
    name: str,
    kind: PluginKind | None = None,
    *,
    model: str | None = None,
    data: str | None = None,
    device: str = "cpu",
) -> list[Suite]:
    """The suites of a plugin.

    These are the ones that its manifest names; if it names none, those in the module of its class;
    else the kit of its kind, which needs a checkpoint for an adapter, and a source for a dataset.

    Args:
        registry: The installed plugins.
        name: Name, alias, `DISTRIBUTION:NAME`, `FILE.py:Class`, or the folder of a project, which
            need not be installed.
        kind: The plugin's kind; None: every kind with a plugin of that name.
        model: A checkpoint for the adapter's checks, instead of the tiny one.
        data: A source for the dataset's checks, instead of the ones that they make.
        device: The device for an adapter's checks.

    Raises:
        PluginError: There is no such plugin, it cannot be imported, or it has no checks.
        CheckpointError: There is no such checkpoint.
        SpecError: A checkpoint is given for a plugin that is not an adapter, or a source for one
            that is not a dataset.
    """
    if is_project(name):
        return _of_project(registry, name, kind, model=model, data=data, device=device)
    kinds = registry.kinds_of(name, kind)
    if model is not None:
        kinds = _only(PluginKind.ADAPTER, kinds, name, model, "checkpoint")
    if data is not None:
        kinds = _only(PluginKind.DATASET, kinds, name, data, "source")
    place = _Place(model, data, device)
    found = [suite for each in kinds for suite in _of_plugin(registry, each, name, place)]
    if not found:
        raise PluginError(
            f"{name!r} has no conformance checks that can run without more information.",
            subject=name,
            hint="Name them in the manifest (`checks`, as package.module:NAME). Or give an adapter "
            "a checkpoint (--model), or a dataset a source (--data).",
        )
    return found


def _of_project(
    registry: Registry, folder: str, kind: PluginKind | None, **place: Any
) -> list[Suite]:
    """The suites of all plugins that a project's folder declares."""
    extended, named = registry.with_folder(folder)
    kinds = {each.group: each for each in PluginKind if kind in (None, each)}
    chosen = [(name, kinds[group]) for group, name in named if group in kinds]
    if not chosen:
        raise PluginError(
            f"{folder!r} declares no {kind or 'plugin that has checks'}.",
            subject=folder,
            hint=f"It declares: {', '.join(f'{name} ({group})' for group, name in named)}.",
        )
    return [suite for name, each in chosen for suite in find_suites(extended, name, each, **place)]


def _only(
    wanted: PluginKind, kinds: Sequence[PluginKind], name: str, subject: str, what: str
) -> list[PluginKind]:
    if wanted not in kinds:
        article = "an" if wanted is PluginKind.ADAPTER else "a"
        raise SpecError(
            f"{name!r} is not {article} {wanted}, so it takes no {what}.",
            subject=subject,
            hint=f"Only {article} {wanted} is checked on a {what}.",
        )
    return [wanted]


def run_suites(suites: Sequence[Suite], observer: Observer) -> list[Report]:
    """Run suites, one check after the other. A failure does not stop the others."""
    return [_run(suite, observer) for suite in suites]


def _run(suite: Suite, observer: Observer) -> Report:
    checks = suite.checks()
    names = suite.checks.checks()
    observer.stage(suite.checks.__name__, len(names))
    results = []
    for done, name in enumerate(names, start=1):
        results.append(checks.run_check(name))
        observer.advance(done)
    return Report(suite, results, _description(checks))


def _description(checks: Any) -> dict[str, Any]:
    """The adapter's description of a named checkpoint; empty if it did not load."""
    if getattr(checks, "model", None) is None:
        return {}
    try:
        return dict(checks.vlm.describe())
    except Exception:  # noqa: BLE001  every check has told it already
        return {}


def _of_plugin(registry: Registry, kind: PluginKind, name: str, place: _Place) -> list[Suite]:
    manifest = registry.find(kind, name)
    plugin = registry.load(manifest)
    classes = _bound(_classes(manifest, plugin, place), manifest, name)
    if kind is PluginKind.DATASET and place.data is not None:
        shared = _bound(_shared(classes), manifest, name)
        given = [_derived(each, given=place.data) for each in shared]
        return [Suite(manifest, each, place.data) for each in given]
    if kind is not PluginKind.ADAPTER:
        return [Suite(manifest, each) for each in classes]
    model = place.model
    if model is None:
        chosen, subject = classes, TINY
    else:
        chosen, subject = _fitting(classes, plugin, model), model
    placed = [
        _derived(each, model=model, device=place.device) for each in _bound(chosen, manifest, name)
    ]
    return [Suite(manifest, each, subject) for each in placed]


def _classes(manifest: Manifest, plugin: type[Any], place: _Place) -> list[type[Checks]]:
    if manifest.checks is not None:
        return _named(manifest)
    module = importlib.import_module(plugin.__module__)
    kit = _kit(manifest.kind)
    lacking = {PluginKind.ADAPTER: place.model is None, PluginKind.DATASET: place.data is None}
    alone = [] if lacking.get(manifest.kind, False) else [kit]
    return [each for each in _defined_in(module) if issubclass(each, kit)] or alone


def _named(manifest: Manifest) -> list[type[Checks]]:
    module, _, attribute = str(manifest.checks).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise BrokenPlugin(
            f"The checks of {manifest.name!r} cannot be imported: {error}", subject=manifest.checks
        ) from error
    if not isinstance(found, tuple) or not all(map(_is_suite, found)):
        raise BrokenPlugin(
            f"{manifest.checks!r} is not a tuple of classes of checks.",
            subject=manifest.checks,
            hint="Expected: subclasses of the kits in vlmlens.testing.",
        )
    return list(found)


def _defined_in(module: ModuleType) -> list[type[Checks]]:
    own = [
        each for each in vars(module).values() if getattr(each, "__module__", "") == module.__name__
    ]
    return [each for each in own if _is_suite(each)]


def _kit(kind: PluginKind) -> type[Checks]:
    found: type[Checks] = getattr(importlib.import_module("vlmlens.testing"), _KITS[kind])
    return found


def _is_suite(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, Checks)


def _bound(
    classes: Sequence[type[Checks]], manifest: Manifest, name: str
) -> Sequence[type[Checks]]:
    """The suites, with the plugin's manifest if they have none or come from a file."""
    from vlmlens.registry._target import is_file

    if is_file(name) and manifest.kind is PluginKind.STORAGE:
        path, _, attribute = name.rpartition(":")
        manifest = replace(manifest, target=f"{Path(path).expanduser().resolve()}:{attribute}")
    return [
        _derived(each, manifest=manifest)
        if is_file(name) or not hasattr(each, "manifest")
        else each
        for each in classes
    ]


def _fitting(
    classes: Sequence[type[Checks]], plugin: type[Any], model: str
) -> Sequence[type[Checks]]:
    """The suites whose tiny checkpoint is most like the given one; else the shared base suite.

    It has the same model class. Of several with the same class (BLIP-2 with OPT, with Flan-T5),
    those are taken that share most classes of modules.
    """
    from vlmlens.abc.adapter import LoadRequest

    def skeleton(checkpoint: str) -> Any:
        return plugin.skeleton(LoadRequest(model=checkpoint, device="cpu")).module

    wanted = skeleton(model)
    if len(classes) == 1:
        return classes
    made: list[Any] = [each() for each in classes]
    alike = [_likeness(wanted, skeleton(str(each.checkpoint))) for each in made]
    best = max(alike)
    if not best:
        return _shared(classes)
    return [each for each, value in zip(classes, alike, strict=True) if value == best]


def _likeness(one: Any, other: Any) -> float:
    """The share of classes of modules that two models have in common; 0 if their own differ."""
    if type(one) is not type(other):
        return 0.0
    first, second = ({type(each) for each in model.modules()} for model in (one, other))
    return len(first & second) / len(first | second)


def _shared(classes: Sequence[type[Checks]]) -> Sequence[type[Checks]]:
    """The common base class of several suites, which has no checkpoint of its own."""
    if len(classes) < 2:
        return classes
    return [next(c for c in classes[0].__mro__ if all(issubclass(each, c) for each in classes))]


def _derived(cls: type[Checks], **values: Any) -> type[Checks]:
    made: type[Checks] = type(cls.__name__, (cls,), {**values, "__module__": cls.__module__})
    return made
