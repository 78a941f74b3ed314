"""What the files of a run may make vlmlens do: nothing beyond reading them, unless it is trusted.

A run is trusted if this user made it on this machine (`signing`), or if the user says so
(`--trust`). What the user types, and plugins that the user installed, are always trusted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens.errors import EditError, RunError, UntrustedRun
from vlmlens.regions import ATTRIBUTE as REGIONS
from vlmlens.regions import masks_in, with_masks
from vlmlens.registry import FILE_END, names_file
from vlmlens.runs.signing import is_own
from vlmlens.samples import Sample
from vlmlens.spec.model import RunSpec

if TYPE_CHECKING:
    from vlmlens.passes.edits import WrittenEdit

ASK = "If you trust whoever made it, add --trust (in Python: trust=True); see docs/security.md."

SPEC = "spec.yaml"

NOWHERE = "/dev/null/not-trusted:"
"""Put before the path of a picture that must not be opened: there can be no such file."""

_NUMBER = re.compile(r"[-+0-9.,eE_\s\[\]]*")
"""What is no path in an edit, even if a file has that name."""

_KINDS = ("adapter", "extractor", "storage", "engine")
_CODE_OPTIONS = ("explainer",)
"""Options of analyses that name code to run, whichever analysis has them."""


def code_of(spec: RunSpec) -> dict[str, str]:
    """What a spec names that is Python code outside the installed plugins, by setting."""
    named = {kind: getattr(spec, kind) or "" for kind in _KINDS}
    named |= {f"analysis {name}": name for name in spec.analysis}
    named |= {f"edits {edit}": edit.name for edit in _edits_of(spec)}
    found = {setting: name for setting, name in named.items() if names_file(name)}
    found |= {
        f"analysis {name}, {option}": str(options[option])
        for name, options in spec.analysis.items()
        for option in _CODE_OPTIONS
        if options.get(option)
    }
    if spec.data is not None and names_file(spec.data):
        found["data"] = spec.data
    if spec.trust_remote_code:
        found["trust_remote_code"] = "true"
    return found


def with_whole_paths(spec: RunSpec) -> RunSpec:
    """The spec with absolute paths of code, edits and what was tuned.

    So it means the same files from every folder.
    """
    code = code_of(spec)
    update: dict[str, object] = {
        kind: _whole(code[kind]) for kind in (*_KINDS, "data") if kind in code
    }
    update["analysis"] = {
        _whole(name) if f"analysis {name}" in code else name: _with_whole_code(options)
        for name, options in spec.analysis.items()
    }
    if spec.edits:
        update["edits"] = [_edit_with_whole_paths(text) for text in spec.edits]
    if spec.tuned is not None and _exists(spec.tuned):
        update["tuned"] = str(Path(_expanded(spec.tuned)).absolute())
    if spec.trust_remote_code and spec.model is not None and Path(spec.model).exists():
        update["model"] = str(Path(spec.model).resolve())
    return spec.model_copy(update=update)


def _with_whole_code(options: dict[str, Any]) -> dict[str, Any]:
    named = {name: str(options[name]) for name in _CODE_OPTIONS if options.get(name)}
    return options | {name: _whole(value) for name, value in named.items() if names_file(value)}


def _edits_of(spec: RunSpec) -> list[WrittenEdit]:
    """The edits of a spec that parse; composing a run refuses the others."""
    if not spec.edits:
        return []
    from vlmlens.passes.edits import WrittenEdit

    found = []
    for text in spec.edits:
        with suppress(EditError):
            found.append(WrittenEdit.parse(text))
    return found


def _edit_with_whole_paths(text: str) -> str:
    """An edit with absolute paths of code, and of the files and runs that its arguments name.

    One that does not parse stays as it is.
    """
    from vlmlens.passes.edits import WrittenEdit

    try:
        edit = WrittenEdit.parse(text)
    except EditError:
        return text

    def whole(value: str) -> str:
        run, at, column = value.rpartition("@")
        if at and run and _exists(run):
            return f"{Path(_expanded(run)).absolute()}@{column}"
        return value if _NUMBER.fullmatch(value) or not _exists(value) else _whole(value)

    found = replace(
        edit,
        name=_whole(edit.name) if names_file(edit.name) else edit.name,
        positional=tuple(map(whole, edit.positional)),
        named={key: whole(value) for key, value in edit.named.items()},
    )
    return str(found)


def code_inside(spec: RunSpec, folder: Path) -> dict[str, str]:
    """The code that a spec names in the folder of its run, which a signature does not cover."""
    code = code_of(spec)
    if "trust_remote_code" in code:
        code["trust_remote_code"] = spec.model or ""
    return {k: v for k, v in code.items() if is_inside(_whole(v), folder)}


def reach_of(spec: RunSpec) -> dict[str, str]:
    """What a spec names that is code, or lies outside the folder of its run, by setting."""
    found = code_of(spec)
    if "://" in spec.storage:
        found["storage"] = spec.storage
    named = [spec.model, *(v for v in spec.options.adapter.values() if "/" in str(v))]
    if away := [str(each) for each in named if each and not _exists(str(each))]:
        found["model"] = ", ".join(away)
    if spec.tuned is not None and not _exists(spec.tuned):
        found["tuned"] = spec.tuned
    for edit in _edits_of(spec):
        if any("/" in value for value in (*edit.positional, *edit.named.values())):
            found.setdefault(f"edits {edit}", edit.text)
    if spec.options.plugins:
        found["options.plugins"] = ", ".join(spec.options.plugins)
    return found


def refuse(where: object, found: Mapping[str, str]) -> None:
    """Raise an error if a run that is not trusted names anything of this kind.

    Args:
        where: The run's folder or file.
        found: What it names, by setting.

    Raises:
        UntrustedRun: It does.
    """
    if found:
        named = "; ".join(f"{setting}: {value}" for setting, value in found.items())
        raise UntrustedRun(
            f"{str(where)!r} was not made by you on this machine, or was edited since. It names "
            f"{named}, which could run code, reach other places or use the network.",
            subject=str(where),
            hint=ASK,
        )


def vetted_sample(sample: Sample, folder: Path) -> Sample:
    """The sample, with paths that cannot be opened where its pictures are outside the folder."""

    def vetted(path: str) -> str:
        return path if is_inside(path, folder) else f"{NOWHERE}{path}"

    images = [vetted(image) if isinstance(image, str) else image for image in sample.images]
    attributes = dict(sample.attributes)
    if any(not is_inside(path, folder) for path in masks_in(attributes.get(REGIONS))):
        attributes[REGIONS] = with_masks(str(attributes[REGIONS]), vetted)
    video = sample.video
    if video is not None and not video.decoded and not is_inside(video.source, folder):
        video = replace(video, source=vetted(video.source))
    if (images, attributes, video) == ([*sample.images], sample.attributes, sample.video):
        return sample
    return replace(sample, images=tuple(images), attributes=attributes, video=video)


def withheld(samples: int, where: object) -> str:
    """What to tell the user about pictures that are not opened."""
    return (
        f"The pictures of {samples} samples of {str(where)!r} are outside its folder and are not "
        f"opened, because the run was not made by you on this machine, or was edited since. {ASK}"
    )


def is_own_file(path: str) -> bool:
    """Whether a run file is the spec of a run that this user made on this machine."""
    folder = Path(os.path.expanduser(path)).parent  # noqa: PTH111 - knows no home is no error
    return Path(path).name == SPEC and is_own(folder, SPEC)


def is_inside(path: str, folder: Path) -> bool:
    """Whether a path lies in a folder, also after all links; paths elsewhere are not touched."""
    inside, root = os.path.abspath(path), os.path.abspath(folder)  # noqa: PTH100 - no link followed
    if os.path.commonpath([inside, root]) != root:
        return False
    return Path(inside).resolve().is_relative_to(folder.resolve())


def check_files(folder: Path, names: Iterable[str]) -> list[str]:
    """The files and folders of a run that are links to somewhere else.

    Raises:
        RunError: One is a pipe or a device, whose reading may never end.
    """
    outside = []
    for entry in _entries(folder, names):
        if entry.is_symlink() and not is_inside(str(entry), folder):
            outside.append(str(entry.relative_to(folder)))
        elif entry.exists() and not (entry.is_file() or entry.is_dir()):
            raise RunError(
                f"{entry} is neither a file nor a folder.",
                subject=str(entry),
                hint="Remove it: no run of vlmlens has such a file.",
            )
    return outside


def _whole(name: str) -> str:
    """A path, perhaps with :CLASS and :SOURCE after it, as an absolute one."""
    found = FILE_END.search(name)
    end = found.end() if found else len(name)
    return f"{Path(_expanded(name[:end])).absolute()}{name[end:]}"


def _exists(path: str) -> bool:
    return os.path.exists(_expanded(path))  # noqa: PTH110 - too long a name is no error


def _expanded(path: str) -> str:
    return os.path.expanduser(path)  # noqa: PTH111 - knows no home is no error


def _entries(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    for name in names:
        path = folder / name
        yield path
        if path.is_dir() and not path.is_symlink() and name != "images":
            yield from path.iterdir()
