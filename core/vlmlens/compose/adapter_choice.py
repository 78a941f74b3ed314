"""Which adapter reads a checkpoint, by what its config.json says and manifests list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from vlmlens.abc.adapter import LoadRequest, ModelAdapter
from vlmlens.errors import CheckpointError, CheckpointNotFound
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.spec.model import AUTO_ADAPTER, RunSpec

if TYPE_CHECKING:
    from vlmlens.registry import Registry

_DEMO, _GENERIC = "demo", "hf"
_PATTERN = 3
"""The rank of a class that matches a pattern: everything that names the config is better."""


def with_adapter(spec: RunSpec, registry: Registry) -> tuple[RunSpec, list[str]]:
    """The spec with an adapter, and what was guessed about it.

    An adapter that the user names is kept. Without one, a checkpoint's config decides: the adapter
    whose manifest lists it, else the generic one. Without a checkpoint it is the demo.

    Raises:
        CheckpointError: The checkpoint cannot be found or read, or several adapters list it.
    """
    if spec.adapter != AUTO_ADAPTER:
        return spec, []
    if spec.model is None:
        return spec.model_copy(update={"adapter": _DEMO}), []
    said = _config(spec, registry)
    found = [m for m in _readers(registry, said) if m.name != _DEMO]
    if len(found) > 1:
        names = ", ".join(sorted(manifest.name for manifest in found))
        raise CheckpointError(
            f"{spec.model!r} is {_kind(said)}, which several adapters read: {names}.",
            subject=spec.model,
            hint=f"Name one with --adapter, for example --adapter {found[0].name}.",
        )
    if found:
        note = f"{spec.model} is {_kind(said)}: the adapter is {found[0].name}."
        return spec.model_copy(update={"adapter": found[0].name}), [note]
    note = (
        f"No installed adapter lists {_kind(said)}, which {spec.model} is: the generic adapter "
        f"{_GENERIC} is used. It does not know where image tokens lie in the image."
    )
    return spec.model_copy(update={"adapter": _GENERIC}), [note]


def check_adapter(
    manifest: Manifest, adapter: type[ModelAdapter], request: LoadRequest, registry: Registry
) -> None:
    """Raise if a checkpoint belongs to another adapter.

    Args:
        manifest: Of the adapter that the user named.
        adapter: Its class.
        request: The checkpoint.
        registry: The installed plugins, whose adapters may read it.

    A checkpoint without config.json is left to the adapter, which may have another layout.

    Raises:
        CheckpointError: The config says so; the hint names an adapter that reads it.
    """
    if request.model is None or not manifest.model_types:
        return
    try:
        said = adapter.checkpoint_config(request)
    except CheckpointNotFound:
        return
    if not _said(said):
        return
    readers = _readers(registry, said)
    if manifest in readers or said.get("model_type") in manifest.also_reads:
        return
    if not readers and (_patterns(manifest) or _rank(manifest, said) is not None):
        return
    names = [each.name for each in readers if each.name != _DEMO] or [_GENERIC]
    raise CheckpointError(
        f"{request.model!r} is {_kind(said)}, which the adapter {manifest.name!r} does not read "
        f"(it reads {', '.join(manifest.model_types)}).",
        subject=request.model,
        hint=f"Use --adapter {names[0]}, or leave --adapter out.",
    )


def _config(spec: RunSpec, registry: Registry) -> Mapping[str, Any]:
    generic: type[ModelAdapter] = registry.load(registry.find(PluginKind.ADAPTER, _GENERIC))
    request = LoadRequest(model=spec.model, revision=spec.revision)
    said = generic.checkpoint_config(request)
    if not _said(said):
        raise CheckpointError(
            f"The config.json of {spec.model!r} says no model type: the adapter cannot be chosen.",
            subject=spec.model,
            hint="Name one with --adapter; `vlmlens plugins list` shows them.",
        )
    return said


def _readers(registry: Registry, said: Mapping[str, Any]) -> list[Manifest]:
    """The manifests that list a config most precisely."""
    entries = registry.entries(PluginKind.ADAPTER)
    ranked = [(_rank(e.manifest, said), e.manifest) for e in entries if e.manifest and e.usable]
    best = min((rank for rank, _ in ranked if rank is not None), default=None)
    return [manifest for rank, manifest in ranked if rank == best and best is not None]


def _rank(manifest: Manifest, said: Mapping[str, Any]) -> int | None:
    """How precisely a manifest lists a config: 0 is the best, None is not at all."""
    ranks = [rank for rank, name in _said(said) if name in manifest.model_types]
    if not ranks and "vision_config" not in said:
        classes = list(_texts(said.get("architectures")))
        matches = (fnmatchcase(name, like) for name in classes for like in _patterns(manifest))
        return _PATTERN if any(matches) else None
    return min(ranks, default=None)


def _patterns(manifest: Manifest) -> list[str]:
    """The patterns of classes that a manifest lists."""
    return [name for name in manifest.model_types if "*" in name]


def _said(said: Mapping[str, Any]) -> list[tuple[int, str]]:
    """What manifests may list of a config, each with its rank."""
    found = [(0, name) for name in _texts(said.get("architectures"))]
    kind, vision = said.get("model_type"), said.get("vision_config")
    if isinstance(kind, str):
        inner = vision.get("model_type") if isinstance(vision, Mapping) else None
        found += [(1, f"{kind}+{inner}")] if isinstance(inner, str) else []
        found.append((2, kind))
    return found


def _texts(values: Any) -> Iterable[str]:
    return [each for each in values if isinstance(each, str)] if isinstance(values, list) else []


def _kind(said: Mapping[str, Any]) -> str:
    kind = said.get("model_type")
    if isinstance(kind, str):
        return f"a model of type {kind!r}"
    return f"a {next(iter(_texts(said.get('architectures'))), 'model without a type')}"
