"""Tab completion of values: what is installed, and the sites of the chosen model.

Nothing here may import more than listing plugins does. Names come without help texts: shells that
show them call rich, which takes longer than everything else.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import typer

from vlmlens.cli._installed import installed

if TYPE_CHECKING:
    from vlmlens.manifest import PluginKind
    from vlmlens.registry import Entry

_DEFAULT = "demo"

_PLAIN = re.compile(r"[\w./:#@,+={}\[\]*()-]{1,200}")
"""What a shell may be given from a run's files: nothing that it would execute, and no escapes."""

SETTINGS = (
    "adapter", "model", "revision", "device", "device_map", "dtype", "attention", "autocast",
    "quantization", "compile", "trust_remote_code", "tuned", "merge_tuned", "data", "prompt",
    "sites", "edits", "extractor", "storage", "batch_size", "share_prefix", "generate", "limit",
    "on_bad_sample", "max_pixels", "background", "image_bits", "frames", "fps", "text_only", "seed",
    "samples",
    "engine", "out",
)  # fmt: skip
"""The fields of `RunSpec` that hold one value, here without pydantic, which takes long."""


def names_of(kind: str) -> Callable[[str], list[str]]:
    """Names of the usable plugins of a kind."""

    def complete(incomplete: str) -> list[str]:
        return _beginning(incomplete, (entry.name for entry in _usable(kind)))

    return complete


def any_name(incomplete: str) -> list[str]:
    """Names of plugins of all kinds, broken ones too."""
    return _beginning(incomplete, (entry.name for entry in installed().entries()))


def one_of(*values: str) -> Callable[[str], list[str]]:
    """A few fixed values."""

    def complete(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return complete


def data(incomplete: str) -> list[str]:
    """Names of datasets with a colon, and paths."""
    named = [f"{entry.name}:" for entry in _usable("dataset")]
    return [*_beginning(incomplete, named), *_paths(incomplete)]


def checkpoints(ctx: typer.Context, incomplete: str) -> list[str]:
    """The known checkpoints of the chosen adapter, and paths."""
    found = [
        checkpoint.id
        for manifest in (entry.manifest for entry in _chosen(ctx))
        if manifest is not None
        for checkpoint in manifest.checkpoints
    ]
    return [*_beginning(incomplete, found), *_paths(incomplete)]


def sites(ctx: typer.Context, incomplete: str) -> list[str]:
    """The sites of the chosen model that are known without importing it."""
    from vlmlens.sites.name_cache import offered

    names = [entry.name for entry in _chosen(ctx)]
    return offered(names[0] if names else _adapter(ctx), ctx.params.get("model"), incomplete)


def paths(incomplete: str) -> list[str]:
    """Files and folders."""
    return _paths(incomplete)


def stored(ctx: typer.Context, incomplete: str) -> list[str]:
    """The analyses of the run on the command line, and its columns."""
    from vlmlens.results import OVERVIEW

    folder = os.path.expanduser(str(ctx.params.get("where")))  # noqa: PTH111 - pathlib is slow
    try:
        with open(os.path.join(folder, "run.json"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
            columns = dict(json.load(file)).get("columns")
        found = os.listdir(os.path.join(folder, "results"))  # noqa: PTH118, PTH208
    except (OSError, ValueError, TypeError, RecursionError):
        return []
    names = [name.removesuffix(".json") for name in found if name.endswith(".json")]
    names = [name.replace("@", ":") for name in names]
    every = [*names, *(columns if isinstance(columns, list) else ())]
    fit = (name for name in every if isinstance(name, str) and _PLAIN.fullmatch(name))
    return _beginning(incomplete, (name for name in fit if name != OVERVIEW))


def settings(incomplete: str) -> list[str]:
    """What `--set` takes: the settings of a run, and the plugins whose options can be given."""
    kinds = [f"options.{kind}." for kind in ("adapter", "dataset", "extractor", "storage")]
    analyses = [f"analysis.{entry.name}." for entry in _usable("analysis")]
    lifecycle = [
        f"options.plugins.{entry.name}." for entry in installed().entries() if entry.kind is None
    ]
    return _beginning(
        incomplete, [*(f"{name}=" for name in SETTINGS), *analyses, *kinds, *lifecycle]
    )


def _adapter(ctx: typer.Context) -> str:
    return ctx.params.get("adapter") or _DEFAULT


def _chosen(ctx: typer.Context) -> list[Entry]:
    """The adapter on the command line."""
    from vlmlens.registry._reading import meant

    name = _adapter(ctx).rpartition(":")[2]
    return meant(name, _usable("adapter"))


def _usable(kind: str) -> list[Entry]:
    from vlmlens.manifest import PluginKind

    chosen: PluginKind = PluginKind(kind)
    return [entry for entry in installed().entries(chosen) if entry.usable]


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})


def _paths(incomplete: str) -> list[str]:
    return sorted(_found(incomplete))


def _found(incomplete: str) -> Iterator[str]:
    head, slash, tail = incomplete.rpartition("/")
    folder = head + slash
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as found:  # noqa: PTH111 - keeps the ~
            for each in found:
                hidden = each.name.startswith(".") and not tail.startswith(".")
                if each.name.startswith(tail) and not hidden and each.name.isprintable():
                    yield f"{folder}{each.name}{'/' if each.is_dir() else ''}"
    except OSError:
        return
