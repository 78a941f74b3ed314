"""Fetching a run from the hub. It is somebody else's: read as data, and trusted in nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens._clean import clean
from vlmlens._disk import disk_errors
from vlmlens._display import count, size
from vlmlens._files import expanded, write_json
from vlmlens._keywords import StrPath
from vlmlens._locks import WriterLock
from vlmlens.abc.observer import Observer
from vlmlens.errors import HubError, RunError, RunExists, VlmlensError
from vlmlens.runner.progress import watched
from vlmlens.runs.own_files import contents
from vlmlens.runs.records import read_record
from vlmlens.runs.run import Run
from vlmlens.sharing import _hub
from vlmlens.sharing._copy import FACTS
from vlmlens.sharing._hub import RemoteFile, Repository
from vlmlens.sharing._names import is_read

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MAX_SIZE = 20 << 30
"""The most bytes that are fetched unless more are allowed."""

_MOST = {"spec.yaml": 1 << 20, "run.json": 64 << 20}
_NEEDED = ("run.json", "spec.yaml")
_AT_ONCE = 8
_SMALL = 8 << 20
"""Files up to this size are fetched several at a time; Ctrl-C need not wait for larger ones."""
_PULLED = "pulled"
_MARK = "pulling.json"
"""In the folder of an unfinished pull: of what it is."""
_LISTS = ("columns", "warnings", "notes", "observed_dtypes")
_TEXTS = ("state", "vlmlens", "python", "started", "finished")
_TABLES = ("model", "seeds", "summary", "drawn", "edited")
_NUMBERS = ("samples", "images")
_PIECE = 1 << 20


def pull(
    repo: str,
    to: StrPath | None = None,
    *,
    revision: str | None = None,
    max_size: int = MAX_SIZE,
    progress: bool | None = None,
    observer: Observer | None = None,
) -> Run:
    """Fetch a run that `push` sent to the Hugging Face hub. The same as `vlmlens pull`.

    Only files of data are fetched, under the names that runs have. Nothing of the run is executed,
    and it is not trusted: see docs/security.md. Its report is written by `vlmlens report`.

    Args:
        repo: OWNER/NAME.
        to: The run's folder, which does not exist yet; None: NAME, in the working folder. What an
            interrupted pull has fetched is not fetched again.
        revision: A branch, a tag or a commit; None: the newest.
        max_size: The most bytes that may be fetched.
        progress: Show bars on stderr; None: in terminals and notebooks.
        observer: Told how it goes, instead of bars.

    Returns:
        The run.

    Raises:
        HubError: There is no such repository, or it holds no run, a damaged one, or too much.
        RunExists: The folder exists, and is not this pull.
    """
    _hub.check_name(repo)
    folder = expanded(to) if to is not None else Path(repo.partition("/")[2])
    _check_target(folder)
    with watched(observer, progress) as told:
        api = _hub.reached(repo)
        there = _hub.found(api, repo, revision)
        if there is None:
            raise HubError(
                f"There is no dataset {repo!r} on the hub, or none that you may see.",
                subject=repo,
                hint="Check the spelling. What is private needs `hf auth login` or HF_TOKEN.",
            )
        source = {"repo": repo, "commit": there.commit}
        if _is_there(folder, source):
            told.note(f"{folder} holds this commit already.")
            return Run(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise _taken(folder)
        wanted = _wanted(there, max_size)
        _announce(there, wanted, folder, told)
        with disk_errors(), _place(folder, source) as made:
            _fetch(api, there, wanted, made, told)
            _settle(made, source, repo)
            if folder.is_dir():
                folder.rmdir()
            made.rename(folder)
    return Run(folder)


def _check_target(folder: Path) -> None:
    """Refuse a folder that cannot become the run's."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise _taken(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "run.json").is_file():
        raise _taken(folder)


def _taken(folder: Path) -> RunExists:
    return RunExists(
        f"{str(folder)!r} exists already, and is not this run at this commit.",
        subject=str(folder),
        hint="Choose another folder with --to.",
    )


def _is_there(folder: Path, source: dict[str, str]) -> bool:
    path = folder / "run.json"
    if not path.is_file():
        return False
    try:
        return read_record(path).get(_PULLED) == source
    except RunError:
        return False


def _wanted(there: Repository, max_size: int) -> list[RemoteFile]:
    """The files that are fetched.

    Raises:
        HubError: Those of a run are lacking, or they are too large.
    """
    wanted = [each for name, each in there.files.items() if is_read(name)]
    names = {each.name for each in wanted}
    if lacking := [name for name in _NEEDED if name not in names]:
        raise HubError(
            f"{there.name!r} holds no run of vlmlens: it has no {' and no '.join(lacking)}.",
            subject=there.name,
            hint="Give a repository that `vlmlens push` made.",
        )
    large = [each for each in wanted if each.size > _MOST.get(each.name, each.size)]
    total = sum(each.size for each in wanted)
    if large or total > max_size:
        what = f"{large[0].name} has {size(large[0].size)}" if large else f"it has {size(total)}"
        raise HubError(
            f"{there.name!r} is too large: {what}.",
            subject=there.name,
            hint="No run has such a file." if large else f"Allow more with --max-size {total}.",
        )
    return wanted


def _announce(there: Repository, wanted: list[RemoteFile], folder: Path, told: Observer) -> None:
    total = size(sum(each.size for each in wanted))
    told.note(
        f"From {there.name} at {there.commit[:12]} to {folder}: "
        f"{count(len(wanted), 'file')}, {total}"
    )
    others = [name for name in there.files if not is_read(name)]
    if others:
        shown = ", ".join(clean(name)[:60] for name in others[:3])
        told.note(f"not fetched: {count(len(others), 'other file')} ({shown}, ...)")


@contextmanager
def _place(folder: Path, source: dict[str, str]) -> Iterator[Path]:
    """A folder beside the target, which holds what an interrupted pull has fetched of the same.

    Raises:
        StoreLocked: Another process fetches to the same folder.
    """
    place = folder.absolute().with_name(f".{folder.absolute().name}.pulling")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.mkdir(exist_ok=True)
    if place.is_symlink() or place.stat().st_uid != os.getuid():
        raise RunExists(
            f"{place} is in the way, and not yours.",
            subject=str(folder),
            hint="Remove it, or choose another folder with --to.",
        )
    lock = WriterLock(place.with_name(f"{place.name}.lock"), str(folder), what="the run")
    try:
        known = place / _MARK
        if not _is_mark(known, source) or any(each.is_symlink() for each in place.rglob("*")):
            shutil.rmtree(place)
            place.mkdir()
            write_json(known, source)
        yield place
    finally:
        place.with_name(f"{place.name}.lock").unlink(missing_ok=True)
        lock.release()


def _is_mark(path: Path, source: dict[str, str]) -> bool:
    try:
        return path.is_file() and read_record(path) == source
    except RunError:
        return False


def _fetch(
    api: HfApi, there: Repository, wanted: list[RemoteFile], folder: Path, told: Observer
) -> None:
    """Fetch the files, and compare each with what the repository says of it."""
    told.stage("fetch", len(wanted))

    def one(file: RemoteFile) -> None:
        api.hf_hub_download(
            there.name, file.name, repo_type=_hub.KIND, revision=there.commit, local_dir=folder
        )
        _check(folder, file, there.name)

    small = [file for file in wanted if file.size <= _SMALL]
    large = [file for file in wanted if file.size > _SMALL]
    with _hub.explained(there.name):
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            jobs = [pool.submit(one, file) for file in small]
            try:
                for number, job in enumerate(jobs, 1):
                    job.result()
                    told.advance(number)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        for number, file in enumerate(large, len(small) + 1):
            one(file)
            told.advance(number)


def _check(folder: Path, file: RemoteFile, repo: str) -> None:
    path = folder / file.name
    whole = not path.is_symlink() and path.is_file() and path.stat().st_size == file.size
    if whole and _digest(path, file) == (file.sha256 or file.blob):
        return
    path.unlink(missing_ok=True)
    raise HubError(
        f"{file.name} of {repo!r} is not what the repository says: it is damaged.",
        subject=file.name,
        hint="Run the same command again; the other files are not fetched again.",
    )


def _digest(path: Path, file: RemoteFile) -> str:
    """SHA-256 of the content, or the id that git gives it."""
    made = hashlib.sha256() if file.sha256 else hashlib.sha1(usedforsecurity=False)
    if not file.sha256:
        made.update(f"blob {file.size}\0".encode())
    with path.open("rb") as content:
        while piece := content.read(_PIECE):
            made.update(piece)
    return made.hexdigest()


def _settle(folder: Path, source: dict[str, str], repo: str) -> None:
    """Make a run of what was fetched, and read it once: a damaged one is not kept.

    Signatures, and all that run.json may say beside what `push` sends, are taken out.

    Raises:
        HubError: It is no run.
    """
    try:
        told = read_record(folder / "run.json")
        kept: dict[str, Any] = {name: value for name, value in told.items() if name in FACTS}
        _check_kept(kept)
        (folder / _MARK).unlink(missing_ok=True)
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        write_json(folder / "run.json", {**kept, "made": sorted(contents(folder)), _PULLED: source})
        run = Run(folder)
        _ = run.spec, run.skipped, run.results, run.overview, run.generated
        _check_samples(run)
    except (VlmlensError, ValueError, KeyError, TypeError, AttributeError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        why = error.message if isinstance(error, VlmlensError) else f"{error}".rstrip(".") + "."
        raise HubError(
            f"{repo!r} holds no run that can be read: {why.replace(f'{folder}{os.sep}', '')}",
            subject=repo,
            hint="Ask whoever sent it, or give an earlier commit with --revision.",
        ) from error


def _check_samples(run: Run) -> None:
    for sample in run.recorded_samples:
        if not (isinstance(sample.id, str) and isinstance(sample.prompt, str)):
            raise TypeError(f"the sample {sample.id!r} has an id or a prompt that is no text.")


def _check_kept(kept: dict[str, Any]) -> None:
    """Refuse entries of run.json of another kind than vlmlens writes."""
    kinds: dict[str, type] = dict.fromkeys(_LISTS, list) | dict.fromkeys(_TEXTS, str)
    kinds |= dict.fromkeys(_TABLES, dict) | dict.fromkeys(_NUMBERS, int)
    for name, value in kept.items():
        if name in kinds and not isinstance(value, kinds[name]):
            raise ValueError(f"{name} in run.json is {type(value).__name__}.")
    for name in _LISTS:
        if not all(isinstance(each, str) for each in kept.get(name, ())):
            raise ValueError(f"{name} in run.json holds something that is no text.")
