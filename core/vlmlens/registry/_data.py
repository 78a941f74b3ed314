"""Which dataset plugin reads the value of `--data`."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vlmlens._files import expanded
from vlmlens.errors import AmbiguousPlugin, DataNotFound, PluginError, did_you_mean, nearest
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.registry._entry import Entry, normal
from vlmlens.registry._reading import same_distribution

_log = logging.getLogger("vlmlens")
_FILE_SOURCE = re.compile(r"(?P<plugin>.+\.py:\w+)(?::(?P<source>.*))?")

Find = Callable[[PluginKind, str], Manifest]
"""As `Registry.find`."""

Ask = Callable[[Manifest, Callable[[Any], Any]], Any]
"""As `Registry.ask`."""


def dataset_for(data: str, entries: Sequence[Entry], find: Find, ask: Ask) -> tuple[Manifest, str]:
    """The dataset plugin for `--data`, and the source for it.

    See `Registry.dataset_for`.

    Args:
        data: The value of `--data`.
        entries: The installed datasets.
        find: Finds a dataset's manifest by name.
        ask: Calls a function with a dataset's class.
    """
    if match := _FILE_SOURCE.fullmatch(data):
        manifest = find(PluginKind.DATASET, match["plugin"])
        return manifest, match["source"] or ""
    if named := _named(entries, data):
        plugin, source = named
        return find(PluginKind.DATASET, plugin), source
    if not expanded(data).exists():
        raise _not_found(entries, data)
    path = str(expanded(data))
    return _only_reader(entries, path, ask), path


def _named(entries: Sequence[Entry], data: str) -> tuple[str, str] | None:
    """(plugin name, source) of `NAME:SOURCE` or `DISTRIBUTION:NAME:SOURCE`."""
    head, colon, rest = data.partition(":")
    if not colon:
        return None
    if any(normal(head) in entry.names for entry in entries):
        return head, rest
    name, colon, source = rest.partition(":")
    owned = [entry for entry in entries if same_distribution(entry.distribution, head)]
    if colon and any(normal(name) in entry.names for entry in owned):
        return f"{head}:{name}", source
    return None


def _only_reader(entries: Sequence[Entry], path: str, ask: Ask) -> Manifest:
    readers = [found for entry in entries if (found := _reader(entry, path, ask))]
    if len(readers) == 1:
        return readers[0]
    if readers:
        names = sorted(manifest.name for manifest in readers)
        raise AmbiguousPlugin(
            f"{path!r} can be read by several datasets: {', '.join(names)}.",
            subject=path,
            hint=f"Choose one: --data {names[0]}:{path}",
        )
    known = [f"{entry.name} ({entry.manifest.help})" for entry in entries if entry.manifest]
    raise DataNotFound(
        f"No installed dataset reads {path!r}.",
        subject=path,
        hint=f"Installed: {'; '.join(known) or 'none'}. To force one: --data NAME:{path}",
    )


def _reader(entry: Entry, path: str, ask: Ask) -> Manifest | None:
    """The entry's manifest if the dataset reads the path. A failure is reported."""
    if entry.manifest is None or not entry.usable:
        return None
    try:
        reads = ask(entry.manifest, lambda dataset: dataset.reads(path))
    except PluginError as error:
        _log.warning("Not asked whether it reads %s: %s", path, error)
        return None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a third party's code
        _log.warning("The dataset %s failed on %s: %r", entry.name, path, error)
        return None
    return entry.manifest if reads else None


def _not_found(entries: Sequence[Entry], data: str) -> DataNotFound:
    names = [entry.name for entry in entries]
    head, colon, _ = data.partition(":")
    if normal(head) in {name for entry in entries for name in entry.names}:
        hint = f"The dataset {head} needs a source: --data {head}:SOURCE"
    elif colon and (suggestion := did_you_mean(head, names)):
        hint = suggestion
    else:
        hint = _near_files(expanded(data)) or (
            f"Datasets by name: {', '.join(f'{name}:...' for name in names) or 'none'}."
        )
    return DataNotFound(
        f"{data!r} is neither a path that exists nor DATASET:SOURCE of an installed dataset.",
        subject=data,
        hint=hint,
    )


def _near_files(path: Path) -> str:
    """A hint with files of similar names, or ""."""
    if not path.parent.is_dir():
        where = "" if path.is_absolute() else f" Paths are read from {str(Path.cwd())!r}."
        return f"The folder {str(path.parent)!r} does not exist either.{where}"
    if path.is_symlink():
        return f"It is a link to {str(path.readlink())!r}, which is not there."
    close = nearest(path.name, (found.name for found in path.parent.iterdir()), n=3)
    found = " or ".join(str(path.parent / name) for name in close)
    return f"Did you mean {found}?" if close else ""
