"""Writing new plugins from copier templates: `vlmlens new`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens._known import KNOWN
from vlmlens.errors import MissingDependency, SpecError, did_you_mean
from vlmlens.manifest import PluginKind
from vlmlens.registry import Registry
from vlmlens.registry._entry import normal

if TYPE_CHECKING:
    from types import ModuleType

KINDS = (
    PluginKind.ADAPTER,
    PluginKind.ANALYSIS,
    PluginKind.STORAGE,
    PluginKind.DATASET,
    PluginKind.INTERVENTION,
    PluginKind.ENGINE,
)
"""The kinds that have a template."""

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_LONGEST = 24
_QUESTIONS = ("distribution", "summary", "author", "licence")


@dataclass(frozen=True, slots=True)
class NewPlugin:
    """A plugin to write.

    Args:
        kind: Its kind.
        name: The name by which users will choose it.
        folder: The folder for the distribution. It must be empty, or not exist.
        answers: Answers to the template's questions, by name.
        ask: Whether to ask the other questions; if not, their defaults are used.
        template: A git URL or a folder; None: the installed templates.
        ref: A tag, branch or commit of the git URL; None: its latest tag.
    """

    kind: PluginKind
    name: str
    folder: Path
    answers: Mapping[str, str]
    ask: bool = False
    template: str | None = None
    ref: str | None = None


def write_plugin(new: NewPlugin) -> list[Path]:
    """Write a distribution whose tests pass without changes.

    Returns:
        The files written, in order.

    Raises:
        SpecError: A name or an answer is not valid, the folder is not empty, or the template
            cannot be read.
        MissingDependency: copier is not installed.
    """
    _check(new)
    copier = _copier()
    answers = {**new.answers, "kind": new.kind.value, "name": new.name}
    existed = new.folder.exists()
    try:
        copier.run_copy(
            new.template or str(templates_folder()),
            new.folder,
            data=answers,
            vcs_ref=new.ref,
            defaults=not new.ask,
            quiet=True,
            cleanup_on_error=not existed,
        )
    except copier.errors.CopierAnswersInterrupt as error:
        raise KeyboardInterrupt from error
    except (copier.errors.CopierError, ValueError, OSError) as error:
        raise _explained(new, error) from error
    return sorted(path for path in new.folder.rglob("*") if path.is_file())


def templates_folder() -> Path:
    """The folder of the templates: in the installed package, or in a checkout.

    Raises:
        SpecError: Neither exists.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "_templates", package.parents[1] / "templates"):
        if (folder / "copier.yml").is_file():
            return folder
    raise SpecError(
        "The templates are not installed with this vlmlens.",
        subject="templates",
        hint="Reinstall vlmlens, or name a git URL with --template.",
    )


def default_folder(kind: PluginKind, name: str) -> Path:
    """The default folder of a new distribution.

    >>> default_folder(PluginKind.ADAPTER, "my_model").name
    'vlmlens-adapter-my-model'
    """
    return Path(f"vlmlens-{kind.value}-{name.replace('_', '-')}")


def parsed_answers(given: Sequence[str]) -> dict[str, str]:
    """Read answers in the form KEY=VALUE.

    Raises:
        SpecError: An answer has another form, or its KEY is no question of the template.

    >>> parsed_answers(["author=Ada", "licence=MIT"])
    {'author': 'Ada', 'licence': 'MIT'}
    """
    found = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not equals or key not in _QUESTIONS:
            near = did_you_mean(key, _QUESTIONS) or f"Questions: {', '.join(_QUESTIONS)}."
            raise SpecError(f"{each!r} answers no question.", subject=each, hint=near)
        found[key] = value
    return found


def _check(new: NewPlugin) -> None:
    if new.kind not in KINDS:
        raise SpecError(
            f"There is no template for the kind {str(new.kind)!r}.",
            subject=new.kind.value,
            hint=f"There are: {', '.join(KINDS)}.",
        )
    if not _NAME.fullmatch(new.name) or len(new.name) > _LONGEST:
        raise SpecError(
            f"{new.name!r} cannot be a plugin's name.",
            subject=new.name,
            hint="Expected: lower-case letters and digits, with single - or _ between them. It "
            f"begins with a letter and has at most {_LONGEST} characters.",
        )
    if normal(new.name) in _own_names(new.kind):
        raise SpecError(
            f"vlmlens already has the {new.kind} {new.name!r}.",
            subject=new.name,
            hint="Choose another name, so that users can tell the two apart.",
        )
    taken = new.folder.is_symlink() or (new.folder.exists() and not _is_empty(new.folder))
    if taken:
        raise SpecError(
            f"{str(new.folder)!r} is there already; nothing was written.",
            subject=str(new.folder),
            hint="Choose another folder, or an empty one. To update a distribution that was made "
            "from a template, use `copier update`.",
        )


def _own_names(kind: PluginKind) -> set[str]:
    """Names and aliases of the plugins that the vlmlens project maintains."""
    entries = Registry.default().entries(kind)
    found = {name for entry in entries if entry.distribution == "vlmlens" for name in entry.names}
    for known in KNOWN:
        if known.kind is kind:
            found |= {known.name, *known.aliases}
    return found


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _copier() -> ModuleType:
    # git must not wait for a password: nobody would see its question.
    os.environ.setdefault("GIT_TERMINAL_PROMPT", "0")
    try:
        import copier
        import copier.errors
    except ImportError as error:
        raise MissingDependency(
            "`vlmlens new` needs copier, which is not installed in this environment.",
            subject="copier",
            hint="pip install 'vlmlens[new]' (in a checkout: pip install '.[new]').",
        ) from error
    return copier


def _explained(new: NewPlugin, error: Exception) -> SpecError:
    said = " ".join(str(error).split()) or type(error).__name__
    kind: Any = type(error).__name__
    if kind == "InteractiveSessionError":
        return SpecError(
            "The template's questions need a terminal.",
            subject=new.name,
            hint="Answer them with --answer KEY=VALUE, or use --defaults.",
        )
    source = new.template or "the installed template"
    return SpecError(
        f"{source} gives no {new.kind}: {said}",
        subject=new.template or new.name,
        hint=f"Questions: {', '.join(_QUESTIONS)}. A template is a git URL, or a folder with a "
        "copier.yml.",
    )
