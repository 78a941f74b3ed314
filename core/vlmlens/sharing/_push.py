"""Sending a run to the hub."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from vlmlens._display import brief, count, size
from vlmlens._files import write_text
from vlmlens._keywords import StrPath, place_of
from vlmlens.abc.observer import Observer
from vlmlens.errors import HubError, RunError
from vlmlens.runner.progress import watched
from vlmlens.runs.records import read_record
from vlmlens.runs.run import Run
from vlmlens.sharing import _hub
from vlmlens.sharing._card import card_of
from vlmlens.sharing._copy import Choice, check_sendable, copied, files_of
from vlmlens.sharing._names import CARD, is_ours, left_out
from vlmlens.sharing._screen import Screen, secrets_here

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_MOST_OF_RECORD = 64 << 20
_MOST_FOLDERS = 50
_IS_SAME = ("started", "vlmlens", "samples")


@dataclass(frozen=True)
class Pushed:
    """What was sent to the hub, or would be.

    Args:
        repo: The repository, OWNER/NAME.
        private: Whether only its owner sees it.
        files: The files with their sizes in bytes.
        card: The text of the card.
        left_out: What of the run's folder is not sent, each with the reason.
        commit: The commit; "" where nothing was sent.
        url: Of the repository; "" where nothing was sent.
    """

    repo: str
    private: bool
    files: dict[str, int]
    card: str = field(repr=False)
    left_out: dict[str, str] = field(default_factory=dict)
    commit: str = ""
    url: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())

    def __repr__(self) -> str:
        return brief(self, self.repo, count(len(self.files), "file"), self.commit or "not sent")


def push(
    run: Run | StrPath,
    repo: str,
    *,
    images: bool = False,
    activations: bool = False,
    public: bool = False,
    replace: bool = False,
    dry_run: bool = False,
    trust: bool = False,
    progress: bool | None = None,
    observer: Observer | None = None,
) -> Pushed:
    """Send a run to the Hugging Face hub, as a dataset repository with a card. As `vlmlens push`.

    Settings, results and the report are sent, with the texts of the samples. Pictures and
    activations are sent only if asked for; credentials and paths of this machine never are.

    Args:
        run: A finished run or its folder.
        repo: OWNER/NAME. It is made where there is none.
        images: Send the pictures of the samples, too.
        activations: Send the columns, too.
        public: Let everybody see a repository that is made, or send to one that everybody sees.
        replace: Send to a repository that holds another run, which is replaced.
        dry_run: Send nothing, ask nothing of the hub: only say what would be sent.
        trust: As of `open`: pictures outside the folder of a run that is not yours.
        progress: Show bars on stderr; None: in terminals and notebooks.
        observer: Told how it goes, instead of bars.

    Returns:
        The files that were sent, the card, and what was left out.

    Raises:
        HubError: The run is not finished, or the repository or the hub is not as it must be.
        RunNotFound: There is no run.
        SpecError: The run's spec holds a credential.
    """
    _hub.check_name(repo)
    choice = Choice(images, activations)
    opened = run if isinstance(run, Run) else Run(place_of(run), trust=trust)
    check_sendable(opened, choice)
    with watched(observer, progress) as told:
        target = None if dry_run else _Target.opened(repo, opened, public=public, replace=replace)
        with TemporaryDirectory(prefix="vlmlens-push-") as folder:
            made = _prepared(opened, repo, Path(folder), choice, told, public=public)
            if target is None:
                return made[0]
            return target.send(*made, told)


def _prepared(
    run: Run, repo: str, folder: Path, choice: Choice, told: Observer, *, public: bool
) -> tuple[Pushed, dict[str, Path]]:
    """The copy with its card, and its files by name."""
    info = run.info
    places = [str(run.path.absolute()), os.path.realpath(run.path), info.get("working_folder")]
    data = run.spec.data or ""
    images = (
        image for sample in run.recorded_samples for image in sample.images if type(image) is str
    )
    screen = Screen(
        [*filter(None, places), *_folders([data, run.spec.model or ""]), *_folders(images)],
        secrets_here(_hub.token_here()),
        _relative(run),
    )
    name = screen.words(run.path.absolute().name) or "run"
    copy = copied(run, folder / name, screen, choice, told)
    sizes = {name: path.stat().st_size for name, path in files_of(copy.path).items()}
    card = card_of(copy, repo, sizes, choice)
    write_text(copy.path / CARD, card)
    files = {CARD: copy.path / CARD, **files_of(copy.path)}
    _tell_found(screen, told)
    lacking = left_out(run.path, files)
    sizes = {name: path.stat().st_size for name, path in files.items()}
    return Pushed(repo, not public, sizes, card, lacking), files


def _relative(run: Run) -> set[str]:
    """What settings name by a path from the working folder, which may name clients or users."""
    spec, there = run.spec, Path(run.info.get("working_folder") or ".")
    settings = (spec.data, spec.model, spec.tuned, spec.adapter, spec.extractor, *spec.analysis)
    named = {text for text in settings if text}
    if spec.model and Path(spec.model).is_relative_to(there):
        named.add(str(Path(spec.model).relative_to(there)))
    named |= {part for text in named for part in text.partition(":")}
    return {text for text in named if "/" in text.strip("/") and _is_file(there / text)}


def _is_file(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _folders(paths: Iterable[str]) -> set[str]:
    """The folders of absolute paths; of very many, the one that holds them all."""
    found = {os.path.dirname(path) for path in paths if path.startswith("/")}  # noqa: PTH120 - millions of them
    return found if len(found) <= _MOST_FOLDERS else {os.path.commonpath(found)}


def _tell_found(screen: Screen, told: Observer) -> None:
    said = {
        "credential": "held what looks like a credential",
        "picture": "held a picture in base64",
    }
    for kind, what in said.items():
        if number := screen.found[kind]:
            told.warn(f"{count(number, 'text')} {what}; it is left out of what is sent.")


class _Target:
    """Where a run is sent to."""

    def __init__(self, api: HfApi, repo: str, *, public: bool) -> None:
        self._api = api
        self._repo = repo
        self._public = public
        self._there = _hub.found(api, repo)

    @classmethod
    def opened(cls, repo: str, run: Run, *, public: bool, replace: bool) -> _Target:
        """The repository, of which everything was checked that is known before sending.

        Raises:
            HubError: It is not to be written to.
        """
        api = _hub.reached(repo)
        _hub.check_writer(api, repo)
        target = cls(api, repo, public=public)
        target._check(run, replace=replace)
        return target

    def send(self, made: Pushed, files: dict[str, Path], told: Observer) -> Pushed:
        """Send the files, in one commit: who looks sees the run before, or all of this one.

        Raises:
            HubError: The hub refuses, or the connection is lost.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        known = {} if self._there is None else self._there.files
        stale = [name for name in known if name not in files and name != ".gitattributes"]
        self._announce(made, stale, told)
        added = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
        removed = [CommitOperationDelete(name, is_folder=False) for name in stale]
        with _hub.explained(self._repo):
            if self._there is None:
                self._api.create_repo(
                    self._repo, repo_type=_hub.KIND, private=not self._public, exist_ok=False
                )
            told.stage("send", None)
            commit = self._api.create_commit(
                self._repo,
                [*added, *removed],
                commit_message="A run of vlmlens",
                repo_type=_hub.KIND,
                parent_commit=None if self._there is None else self._there.commit,
            )
        url = f"{self._api.endpoint}/datasets/{self._repo}"
        return Pushed(
            made.repo, made.private, made.files, made.card, made.left_out, commit.oid, url
        )

    def _announce(self, made: Pushed, stale: list[str], told: Observer) -> None:
        """Say what goes where, before it goes."""
        who = "everybody sees it" if self._public else "private"
        new = "new, " if self._there is None else ""
        told.note(
            f"To {self._api.endpoint}/datasets/{self._repo} ({new}{who}): "
            f"{count(len(made.files), 'file')}, {size(made.size)}"
        )
        for start, what in (("images/", "pictures"), ("columns/parts/", "activations")):
            sizes = [number for name, number in made.files.items() if name.startswith(start)]
            told.note(f"{what}: {size(sum(sizes))}" if sizes else f"{what}: not sent")
        for name, why in made.left_out.items():
            told.note(f"left out: {name} ({why})")
        if stale:
            told.warn(
                f"{count(len(stale), 'file')} of the run before are removed. Earlier commits keep "
                "them: to take something back, delete the repository."
            )

    def _check(self, run: Run, *, replace: bool) -> None:
        there = self._there
        if there is None:
            return
        if foreign := sorted(name for name in there.files if not is_ours(name)):
            raise HubError(
                f"{self._repo!r} holds something else: {', '.join(foreign[:5])}"
                f"{' and more' if len(foreign) > 5 else ''}.",
                subject=self._repo,
                hint="Send the run to a repository of its own.",
            )
        if there.private == self._public:
            seen = "private" if there.private else "public"
            do = "Leave --public out" if self._public else "Add --public if everybody may see it"
            raise HubError(
                f"{self._repo!r} exists already, and is {seen}.",
                subject=self._repo,
                hint=f"{do}; or change the repository's visibility in its settings on the hub.",
            )
        if not (replace or self._same(run)) and {*there.files} - {".gitattributes"}:
            raise HubError(
                f"{self._repo!r} holds another run, or a card without one.",
                subject=self._repo,
                hint="Choose another name, or add --replace: the earlier commits keep what is "
                "there now.",
            )

    def _same(self, run: Run) -> bool:
        """Whether the repository holds this run, sent before."""
        record = self._there.files.get("run.json") if self._there else None
        if record is None or self._there is None or record.size > _MOST_OF_RECORD:
            return False
        with TemporaryDirectory(prefix="vlmlens-push-") as folder, _hub.explained(self._repo):
            path = self._api.hf_hub_download(
                self._repo, record.name, repo_type=_hub.KIND, revision=self._there.commit,
                local_dir=folder,
            )  # fmt: skip
            try:
                sent = read_record(Path(path))
            except RunError:
                return False
        known = run.info
        return all(sent.get(name) == known.get(name) for name in _IS_SAME)
