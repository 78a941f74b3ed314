"""Importing the class that a manifest names, or a class in a plain file."""

from __future__ import annotations

import hashlib
import re
import sys
from dataclasses import replace
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from vlmlens._files import FILE_MODULE, expanded
from vlmlens.errors import BrokenPlugin, PluginError, UnknownPlugin
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.registry._problems import broken, missing_dependency

_INTERFACES = {
    PluginKind.ADAPTER: "ModelAdapter",
    PluginKind.EXTRACTOR: "Extractor",
    PluginKind.STORAGE: "ColumnStore",
    PluginKind.DATASET: "Dataset",
    PluginKind.ANALYSIS: "Analysis",
    PluginKind.ENGINE: "Engine",
    PluginKind.INTERVENTION: "Intervention",
}
_FILE = re.compile(r"(?P<path>.+\.py)(?::(?P<name>\w+))?")


def load_class(manifest: Manifest, distribution: str = "") -> type[Any]:
    """The class that `manifest.target` names, checked against its kind's interface.

    Raises:
        BrokenPlugin: Importing it failed, or it is not what the manifest says.
        MissingDependency: It imports a module that is not installed.
    """
    module_name, _, attribute = manifest.target.partition(":")
    try:
        found: Any = import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:
        raise _import_problem(manifest, module_name, error, distribution) from error
    return _checked(found, manifest.kind, manifest.name)


def is_file(name: str) -> bool:
    """Whether a plugin name is `FILE.py` or `FILE.py:Class`."""
    return _FILE.fullmatch(name) is not None


def file_manifest(kind: PluginKind, name: str) -> Manifest:
    """The manifest of `FILE.py:Class`. It is made from the class if the class has none.

    Raises:
        UnknownPlugin: There is no such file or class.
        BrokenPlugin: Importing the file failed, or the class is of another kind.
        MissingDependency: The file imports a module that is not installed.
    """
    match = _FILE.fullmatch(name)
    path = expanded(match["path"] if match else name)
    if not path.is_file():
        raise UnknownPlugin(f"There is no file {str(path)!r}.", subject=name)
    module = import_file(kind, path, name)
    found = getattr(module, (match["name"] if match else None) or "", None)
    if not isinstance(found, type):
        raise _no_class(kind, module, path, name)
    return _manifest_of(_checked(found, kind, name), kind, name)


def file_kinds(name: str) -> list[PluginKind]:
    """The kinds that the class of `FILE.py:Class` can serve as.

    Raises:
        UnknownPlugin: There is no such file or class.
        BrokenPlugin: Importing the file failed, or the class is of no kind.
        MissingDependency: The file imports a module that is not installed.
    """
    problems: list[BrokenPlugin] = []
    found = []
    for kind in PluginKind:
        try:
            file_manifest(kind, name)
        except BrokenPlugin as problem:
            problems.append(problem)
        else:
            found.append(kind)
    if not found:
        raise problems[0]
    return found


def import_file(kind: PluginKind, path: Path, name: str) -> ModuleType:
    """Import a file as a module. It is imported again only after it has changed.

    Args:
        kind: The kind of plugin, for messages.
        path: The file.
        name: What the user called it.

    Raises:
        BrokenPlugin: Importing it failed.
        MissingDependency: It imports a module that is not installed.
    """
    identity = f"{path.resolve()}|{path.stat().st_mtime_ns}"
    module_name = f"{FILE_MODULE}{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise BrokenPlugin(f"The file {str(path)!r} is not Python source.", subject=name)
    module = module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        manifest = Manifest(kind, name, f"{module_name}:", "")
        raise _import_problem(manifest, module_name, error, "") from error
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _manifest_of(cls: type[Any], kind: PluginKind, name: str) -> Manifest:
    target = f"{cls.__module__}:{cls.__qualname__}"
    own = getattr(cls, "manifest", None)
    if isinstance(own, Manifest):
        if own.kind != kind:
            raise _wrong_kind(name, f"its manifest says {own.kind}", kind)
        return replace(own, target=target)
    help_text = (cls.__doc__ or "").strip().partition("\n")[0]
    return Manifest(kind, name, target, help_text, offers=_offers(cls, kind))


def _offers(cls: type[Any], kind: PluginKind) -> frozenset[str]:
    """What a class without a manifest offers, judged by its methods."""
    if kind is PluginKind.STORAGE:
        return frozenset({"ragged"})
    if kind is not PluginKind.ADAPTER:
        return frozenset()
    if cls.choice_scores is not _interface(kind).choice_scores:
        return frozenset({"choice-scores"})
    own_readout = cls.readout is not _interface(kind).readout
    return frozenset({"generate", "readout"} if own_readout else {"generate"})


def _checked(found: Any, kind: PluginKind, name: str) -> type[Any]:
    if not (isinstance(found, type) and issubclass(found, _interface(kind))):
        what = found.__qualname__ if isinstance(found, type) else type(found).__name__
        raise _wrong_kind(name, f"it is {what}", kind)
    return found


def _interface(kind: PluginKind) -> Any:
    return getattr(import_module("vlmlens.abc"), _INTERFACES[kind])


def _wrong_kind(name: str, found: str, kind: PluginKind) -> BrokenPlugin:
    return BrokenPlugin(
        f"{name!r} cannot serve as {kind}: {found}.",
        subject=name,
        hint=f"Expected: a subclass of vlmlens.abc.{_INTERFACES[kind]}.",
    )


def _no_class(kind: PluginKind, module: ModuleType, path: Path, name: str) -> UnknownPlugin:
    own = [value for value in vars(module).values() if isinstance(value, type)]
    names = [cls.__name__ for cls in own if issubclass(cls, _interface(kind))]
    names = [found for found in names if found != _INTERFACES[kind]]
    hint = f"Write {path}:{names[0]}." if names else f"The file defines no {kind}."
    return UnknownPlugin(f"{name!r} names no class of that file.", subject=name, hint=hint)


def _import_problem(
    manifest: Manifest, module_name: str, error: BaseException, distribution: str
) -> PluginError:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and missing.partition(".")[0] != module_name.partition(".")[0]:
        problem = missing_dependency(manifest.kind.value, manifest.name, [missing], distribution)
        problem.__cause__ = error
        return problem
    return broken(manifest.kind.value, manifest.name, error, distribution)
