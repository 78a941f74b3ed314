"""Exporting a store, importing a file, and checking a store."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens._disk import disk_error
from vlmlens._files import expanded, replacing
from vlmlens.abc.storage import ChunkCheck, ColumnBlock, ColumnInfo, ColumnStore
from vlmlens.errors import StoreError, VlmlensError
from vlmlens.stores.opening import UNFINISHED, backend_of, is_uri, open_found, open_named
from vlmlens.stores.selected import SelectedStore
from vlmlens.transfer import _hdf5, _npy, _npz, _parquet, _safetensors
from vlmlens.transfer._expected import finished, lacking, repeated
from vlmlens.transfer._parts import About, Content, Part, content_of, refused

if TYPE_CHECKING:
    from vlmlens.registry import Registry
    from vlmlens.runs.run import Run
    from vlmlens.samples import Sample

SHARDS = "safetensors-shards"

FORMATS = ("safetensors", SHARDS, "npz", "npy", "parquet", "hdf5")
"""The file formats. Each name but SHARDS is also the suffix that chooses it."""

IMPORTED = ("safetensors", "npz", "parquet")
"""The suffixes of files that `bring` reads."""

_ALSO = {"h5": "hdf5"}

_OF_THE_PLACE = ("run_key", "samples", "model", "adapter", UNFINISHED)
"""Keys of a store's record that are about its place, or that are copied separately."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Origin:
    """The source of a copy: a run, or a store without a run.

    Args:
        store: The open store.
        run: Its run, if it has one.
    """

    store: ColumnStore
    run: Run | None

    def select(self, sites: Sequence[str], samples: Sequence[str]) -> Origin:
        """Some columns and samples of it; see `SelectedStore`."""
        return Origin(SelectedStore(self.store, sites, samples), self.run)

    def about(self) -> About:
        """What is copied along with the columns."""
        meta = self.store.get_meta()
        kept = {key: value for key, value in meta.items() if key not in _OF_THE_PLACE}
        if self.run is not None:
            spec = self.run.spec
            samples: Sequence[Sample] = self.run.recorded_samples
            if isinstance(self.store, SelectedStore):
                samples = self.store.keep(samples)
            return About(kept, samples, spec.model or "", spec.adapter)
        model, adapter = str(meta.get("model", "")), str(meta.get("adapter", ""))
        return About(kept, self.store.samples(), model, adapter)


@contextmanager
def origin_of(
    registry: Registry,
    where: str,
    storage: str | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    trust: bool = False,
) -> Iterator[Origin]:
    """Open a run's folder, a store's path or a URI; `trust` is that of `Run`.

    Raises:
        RunNotFound: There is nothing at this path.
        StoreError: It is neither a run nor a store.
    """
    from vlmlens.errors import RunNotFound
    from vlmlens.runs.run import Run

    run = None
    if not is_uri(where):
        where = str(expanded(where))
        if not Path(where).exists():
            raise RunNotFound(f"There is no {where!r}.", subject=where, hint="Give a run's folder.")
        if (Path(where) / "run.json").is_file():
            run = Run(where, registry=registry, trust=trust)
    opened = run.store() if run else open_found(registry, where, storage, options or {})
    with opened as store:
        yield Origin(store, run)


def carry(
    registry: Registry,
    origin: Origin,
    target: str,
    form: str | None = None,
    progress: Progress = lambda done, total: None,
) -> str:
    """Write all columns of a store to a new store or file.

    Args:
        registry: The installed plugins.
        origin: The source.
        target: A path or a URI. Without `form`, its suffix chooses the format.
        form: A file format, or the name of a storage backend.
        progress: Called with (samples done, total samples), counted per column.

    Returns:
        The format or the backend that was used.

    Raises:
        StoreError: The target exists, or nothing chooses a format.
    """
    total = sum(info.samples for info in origin.store.columns())
    done = 0

    def advance(samples: int) -> None:
        nonlocal done
        done += samples
        progress(done, total)

    target = target if is_uri(target) else str(expanded(target))
    suffix = Path(target).suffix.removeprefix(".").lower()
    suffix = _ALSO.get(suffix, suffix)
    chosen = form or (suffix if suffix in FORMATS and not is_uri(target) else None)
    if chosen in FORMATS:
        _refuse_existing(registry, target, None)
        _to_file(chosen, origin, Path(target), advance)
        return chosen
    storage = backend_of(registry, target, chosen)
    _refuse_existing(registry, target, storage)
    _to_store(registry, content_of(origin.store, origin.about()), storage, target, advance)
    return storage


def bring(
    registry: Registry,
    source: str,
    target: str,
    form: str | None = None,
    progress: Progress = lambda done, total: None,
) -> str:
    """Read a file that `carry` wrote into a new store.

    Args:
        registry: The installed plugins.
        source: A `.npz`, `.parquet` or `.safetensors` file, or a `.safetensors` folder.
        target: Path or URI of a store.
        form: The backend's name; None: the target's URI or suffix chooses it.
        progress: See `carry`.

    Returns:
        The backend that was used.

    Raises:
        StoreError: The target exists, or the source is not such a file.
    """
    target = target if is_uri(target) else str(expanded(target))
    path = expanded(source)
    if not path.exists():
        raise StoreError(f"There is no {source!r}.", subject=source)
    if not (path.is_file() or path.is_dir()):
        raise refused(source, "it is not a regular file")
    readers = {"safetensors": _safetensors.read, "npz": _npz.read, "parquet": _parquet.read}
    shards = path.is_dir() and (path / _safetensors.INDEX).is_file()
    with _refusing(source):
        suffix = "safetensors" if shards else path.suffix.removeprefix(".").lower()
        content = readers[suffix](path)
    content = _read_safely(content, source)
    storage = backend_of(registry, target, form)
    _refuse_existing(registry, target, storage)
    total = sum(info.samples for info in content.columns)
    done = 0

    def advance(samples: int) -> None:
        nonlocal done
        done += samples
        progress(done, total)

    new = not is_uri(target)
    try:
        _to_store(registry, content, storage, target, advance)
    except StoreError:
        if new:
            _remove(Path(target))
        raise
    return storage


@contextmanager
def _refusing(source: str) -> Iterator[None]:
    """Turn whatever reading a damaged file raises into one error."""
    try:
        yield
    except VlmlensError:
        raise
    except Exception as error:  # parsers of files raise whatever they stumble over
        why = str(error).strip() or type(error).__name__
        raise refused(source, why.splitlines()[0].rstrip(".")[:300]) from error


def _read_safely(content: Content, source: str) -> Content:
    """The same content, of which damaged parts are errors of the store."""

    def parts(info: ColumnInfo) -> Iterator[Part]:
        with _refusing(source):
            yield from content.parts(info)

    return Content(content.columns, content.about, parts)


def _remove(target: Path) -> None:
    """Remove a store that this command made and could not finish."""
    if target.is_dir():
        shutil.rmtree(target)
        return
    for suffix in ("", "-wal", "-shm", "-journal", ".lock"):
        target.with_name(target.name + suffix).unlink(missing_ok=True)


@dataclass(frozen=True)
class Checked:
    """What `check_all` found.

    Args:
        chunks: All chunks.
        damaged: Those that are damaged, and what a finished run lacks.
        open: What a run lacks that is not finished.
    """

    chunks: list[ChunkCheck]
    damaged: list[ChunkCheck]
    open: list[ChunkCheck]


def check_all(origin: Origin, progress: Progress = lambda done, total: None) -> Checked:
    """Read everything in a store, and compare it with what its run says should be there.

    Args:
        origin: The store, with its run if it has one.
        progress: Called with (samples done, total samples), counted per column.
    """
    store, run = origin.store, origin.run
    total = sum(info.samples for info in store.columns())
    done, every = 0, []
    for chunk in store.verify():
        every.append(chunk)
        done += chunk.samples
        progress(done, total)
    damaged = [chunk for chunk in every if chunk.problem] + list(repeated(store))
    missing = list(lacking(run, store)) if run is not None else []
    if run is not None and finished(run):
        return Checked(every, damaged + missing, [])
    return Checked(every, damaged, missing)


def _to_file(form: str, origin: Origin, target: Path, advance: Callable[[int], None]) -> None:
    """Write under another name first, so that a file of the target's name is always complete."""
    about = origin.about()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            if form == "parquet":
                _parquet.write(origin.store, about, temporary, advance)
            else:
                _writer(form, target)(content_of(origin.store, about), temporary, advance)
    except OSError as error:
        raise disk_error(error) or StoreError(
            f"{str(target)!r} cannot be written: {error.strerror or error}.", subject=str(target)
        ) from error


def _writer(form: str, target: Path) -> Callable[[Content, Path, Callable[[int], None]], None]:
    if form == "npy" and target.suffix.lower() != ".npy":
        return _npy.write_folder
    return {
        "safetensors": _safetensors.write,
        SHARDS: _safetensors.write_shards,
        "npz": _npz.write,
        "npy": _npy.write,
        "hdf5": _hdf5.write,
    }[form]


def _to_store(
    registry: Registry,
    content: Content,
    storage: str,
    target: str,
    advance: Callable[[int], None],
) -> None:
    about = content.about
    with open_named(registry, storage, target, mode="a") as store:
        kept = {key: value for key, value in about.meta.items() if key not in _OF_THE_PLACE}
        store.set_meta({**kept, UNFINISHED: "an export to it"})
        store.describe(about.samples, model=about.model, adapter=about.adapter)
        for info in content.columns:
            for ids, values in content.parts(info):
                store.write(ColumnBlock(tuple(ids), {info.name: values}))
                advance(len(ids))
        meta = store.get_meta()
        del meta[UNFINISHED]
        store.set_meta(meta)


def _refuse_existing(registry: Registry, target: str, storage: str | None) -> None:
    """Raise an error if the target exists.

    Raises:
        StoreError: It exists.
    """
    there = not is_uri(target) and Path(target).exists()
    if not there and storage is not None:
        try:
            open_named(registry, storage, target, mode="r").close()
            there = True
        except StoreError:
            there = False
    if there:
        raise StoreError(
            f"The target {target!r} exists already.",
            subject=target,
            hint="Remove it, or choose another target.",
        )
