"""Repositories on the hub: asking for them, and what went wrong in words."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from vlmlens._clean import fit_to_say
from vlmlens.errors import HubError, VlmlensError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

KIND = "dataset"
MOST_FILES = 200_000
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_OFFLINE = "HF_HUB_OFFLINE is set, so nothing is asked of the hub."
_LOG_IN = "Log in with `hf auth login`, or set HF_TOKEN."


@dataclass(frozen=True)
class RemoteFile:
    """A file in a repository.

    Args:
        name: Its path there.
        size: In bytes.
        blob: Its id in git.
        sha256: Of its content, where the hub keeps it apart from git; else "".
    """

    name: str
    size: int
    blob: str
    sha256: str = ""


@dataclass(frozen=True)
class Repository:
    """A dataset repository as it is at one commit.

    Args:
        name: OWNER/NAME.
        commit: The commit.
        private: Whether only its owner sees it.
        files: Its files by name.
    """

    name: str
    commit: str
    private: bool
    files: dict[str, RemoteFile]


def check_name(repo: str) -> str:
    """The name of a repository.

    Raises:
        HubError: It is none.
    """
    odd = not _NAME.fullmatch(repo) or ".." in repo or "--" in repo
    if odd or repo.endswith((".git", ".", "-")) or repo.partition("/")[0].endswith((".", "-")):
        raise HubError(
            f"{repo!r} is no name of a repository.",
            subject=repo,
            hint="Write OWNER/NAME with letters, digits, '-', '_' and '.'; OWNER is your user name "
            "on the hub or that of an organisation (`hf auth whoami`).",
        )
    return repo


def reached(repo: str) -> HfApi:
    """A client of the hub.

    Raises:
        HubError: The hub cannot be reached, or must not be asked.
    """
    from huggingface_hub import HfApi, constants

    from vlmlens._hub import hub_trouble

    if constants.HF_HUB_OFFLINE:
        raise HubError(_OFFLINE, subject=repo, hint="Unset it to send or fetch a run.")
    if trouble := hub_trouble():
        raise HubError(
            f"The Hugging Face hub cannot be used: {trouble}.",
            subject=repo,
            hint="Check the network, the proxy and HF_ENDPOINT.",
        )
    return HfApi(endpoint=constants.ENDPOINT)


def token_here() -> str | None:
    """The user's token of the hub, if there is one."""
    from huggingface_hub import get_token

    return get_token()


def check_writer(api: HfApi, repo: str) -> None:
    """Check that there is a token, and that it can write to repositories of the owner.

    Raises:
        HubError: It cannot.
    """
    if not token_here():
        raise HubError("There is no token of the Hugging Face hub.", subject=repo, hint=_LOG_IN)
    with explained(repo):
        who: dict[str, Any] = api.whoami()
    role = who.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise HubError(
            "The token of the Hugging Face hub can read only.",
            subject=repo,
            hint="Make one that can write at https://huggingface.co/settings/tokens, and "
            "`hf auth login` again.",
        )
    owners = [who.get("name"), *(each.get("name") for each in who.get("orgs", ()))]
    names = [str(name) for name in owners if name]
    if repo.partition("/")[0].lower() not in map(str.lower, names):
        raise HubError(
            f"{names[0] if names else 'The user of this token'!r} cannot write to {repo!r}.",
            subject=repo,
            hint=f"Repositories can be made for {', '.join(names)}.",
        )


def found(api: HfApi, repo: str, revision: str | None = None) -> Repository | None:
    """A repository, at a branch, a tag or a commit; None if there is none that the user may see.

    Raises:
        HubError: The hub refuses, or the repository has very many files.
    """
    from huggingface_hub import RepoFile
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    with explained(repo):
        try:
            info = api.repo_info(repo, repo_type=KIND, revision=revision)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            return None
        commit = str(info.sha)
        listed = api.list_repo_tree(repo, repo_type=KIND, revision=commit, recursive=True)
        entries = list(islice(listed, MOST_FILES + 1))
    if len(entries) > MOST_FILES:
        raise HubError(
            f"{repo!r} has more than {MOST_FILES:,} files, so it is no run.", subject=repo
        )
    files = (each for each in entries if isinstance(each, RepoFile))
    made = {
        each.path: RemoteFile(
            each.path, each.size, each.blob_id, each.lfs.sha256 if each.lfs else ""
        )
        for each in files
    }
    return Repository(repo, commit, bool(info.private), made)


@contextmanager
def explained(repo: str) -> Iterator[None]:
    """Turn what the hub's client raises into errors that say what to do; it says nothing itself."""
    try:
        with _silent():
            yield
    except VlmlensError:
        raise
    except Exception as error:  # the client, its parts and the network raise what they like
        if not _of_the_hub(error):
            raise
        raise _said(repo, error) from error


@contextmanager
def _silent() -> Iterator[None]:
    """Without the client's bars, and without its lines about each request that it repeats."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    log, shown = logging.getLogger("huggingface_hub"), not are_progress_bars_disabled()
    level = log.level
    log.setLevel(logging.ERROR)
    if shown:
        disable_progress_bars()
    try:
        yield
    finally:
        log.setLevel(level)
        if shown:
            enable_progress_bars()


def _of_the_hub(error: BaseException) -> bool:
    modules = {each.__module__.partition(".")[0] for each in type(error).__mro__}
    known = any(name in ("huggingface_hub", "hf_xet") or "httpx" in name for name in modules)
    return known or isinstance(error, OSError | ValueError | RuntimeError)


def _said(repo: str, error: Exception) -> HubError:
    """The error for what the client raised; it names the cause, not the client's own advice."""
    from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError

    cause: BaseException = error
    while _status(cause) is None and cause.__cause__ is not None:
        cause = cause.__cause__
    status = _status(cause)
    line = fit_to_say(" ".join(str(cause).split()))[:300] or type(cause).__name__
    if isinstance(cause, GatedRepoError):
        return HubError(
            f"{repo!r} is gated: its owner grants access.",
            subject=repo,
            hint=f"Ask for it at https://huggingface.co/datasets/{repo}.",
        )
    if isinstance(cause, RevisionNotFoundError):
        return HubError(
            f"{repo!r} has no such branch, tag or commit.", subject=repo, hint="See --revision."
        )
    told = {
        401: ("does not accept this token", _LOG_IN),
        403: ("does not allow it", "Use a token that may write there: `hf auth login`."),
        404: ("has no such repository, or none that you may see", _LOG_IN),
        409: ("says that it was changed at the same time", "Run the same command again."),
        412: ("says that it was changed at the same time", "Run the same command again."),
        413: ("says that this is too large", "Send less, or ask the hub for more space."),
        429: ("asks to wait: too many requests", "Run the same command in some minutes."),
    }
    if status in told:
        what, hint = told[status]
        return HubError(f"{repo!r}: the hub {what} ({line}).", subject=repo, hint=hint)
    return HubError(
        f"{repo!r}: the hub did not do it ({line}).",
        subject=repo,
        hint="Run the same command again: what was transferred already is not transferred twice.",
    )


def _status(error: BaseException) -> int | None:
    number = getattr(getattr(error, "response", None), "status_code", None)
    return number if isinstance(number, int) else None
