"""The checks of `vlmlens doctor`."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from vlmlens._display import size
from vlmlens._files import cache_folder
from vlmlens._known import KNOWN
from vlmlens._version import __version__
from vlmlens.manifest import API_VERSION
from vlmlens.registry import Entry, Status

if TYPE_CHECKING:
    from vlmlens.registry import Registry

_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TRUE = ("1", "on", "true", "yes")
_PLUGIN_VARIABLES = (
    "VLMLENS_DISABLE_PLUGINS",
    "VLMLENS_LOAD_PLUGINS",
    "VLMLENS_PLUGIN_TIMEOUT",
    "VLMLENS_TRACE_PLUGINS",
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Args:
        topic: Groups checks.
        name: What was looked at.
        state: "ok", "note" (vlmlens runs without it), or "FAILS" (vlmlens cannot run).
        detail: What was found.
        advice: What to do.
    """

    topic: str
    name: str
    state: str
    detail: str
    advice: str = ""


def diagnose(registry: Registry) -> list[Check]:
    """All checks, in the order in which they are shown."""
    entries = registry.entries()
    return [
        Check("program", "vlmlens", "ok", f"{__version__} (plugin API {API_VERSION})"),
        Check("program", "python", "ok", f"{platform.python_version()} ({sys.executable})"),
        Check("program", "system", "ok", f"{platform.platform()}, {os.cpu_count()} CPUs"),
        *_dependencies(),
        *_accelerators(),
        *_hub(),
        _cache(),
        *_environment(registry),
        *(_plugin(entry) for entry in entries),
        *_not_installed(entries),
    ]


def verdict(checks: Iterable[Check]) -> tuple[bool, str]:
    """Whether vlmlens can run here, and that as a sentence."""
    found = list(checks)
    failed = [check.name for check in found if check.state == "FAILS"]
    if failed:
        return False, f"vlmlens cannot run: {', '.join(failed)} failed."
    extras = {
        check.topic.removeprefix("extra ")
        for check in found
        if check.topic.startswith("extra ") and check.state == "note"
    }
    missing = f" Optional extras that are not installed: {', '.join(sorted(extras))}."
    return True, "vlmlens can run." + (missing if extras else "")


def _dependencies() -> Iterator[Check]:
    try:
        declared = requires("vlmlens") or []
    except PackageNotFoundError:
        advice = "Install vlmlens (pip install .): plugins are found by its metadata."
        yield Check("program", "installation", "FAILS", "not installed", advice)
        return
    for text in declared:
        requirement = Requirement(text)
        if (extra := _extra(requirement)) or requirement.marker is None:
            yield _dependency(requirement, extra)


def _extra(requirement: Requirement) -> str:
    found = re.search(r"extra *== *['\"]([\w.-]+)", str(requirement.marker or ""))
    return found[1] if found else ""


def _dependency(requirement: Requirement, extra: str) -> Check:
    """A dependency; one of an extra may be missing, and is then no failure."""
    topic = f"extra {extra}" if extra else "dependency"
    advice = f"pip install 'vlmlens[{extra}]'" if extra else f"pip install '{requirement}'"
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return Check(topic, requirement.name, "note" if extra else "FAILS", "missing", advice)
    if not requirement.specifier.contains(found, prereleases=True):
        detail = f"{found}, but {requirement.specifier} is needed"
        return Check(topic, requirement.name, "note" if extra else "FAILS", detail, advice)
    return Check(topic, requirement.name, "ok", found)


def _accelerators() -> Iterator[Check]:
    try:
        import torch
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a damaged torch fails in many ways
        yield Check("device", "torch", "FAILS", repr(error), "Reinstall torch.")
        return
    yield Check("device", "cpu", "ok", f"{torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        detail = f"{torch.cuda.get_device_name(index)}, {memory:.0f} GiB, CUDA {_cuda()}"
        yield Check("device", f"cuda:{index}", "ok", detail)
    if torch.backends.mps.is_available():
        yield Check("device", "mps", "ok", "Apple GPU")
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return
    if cuda := _cuda():
        advice = (
            "If this machine has a GPU, check that nvidia-smi lists it and that its driver fits."
        )
        yield Check(
            "device", "accelerator", "note", f"none found, torch is for CUDA {cuda}", advice
        )
    else:
        yield Check("device", "accelerator", "note", "none: models run on the CPU")


def _cuda() -> str | None:
    """The CUDA that torch was built for; None for a torch without."""
    import torch

    return torch.version.cuda


def _hub() -> Iterator[Check]:
    from huggingface_hub import constants, get_token

    cache = Path(constants.HF_HUB_CACHE)
    count = sum(1 for _ in cache.glob("models--*")) if cache.is_dir() else 0
    yield Check("hub", "cache", "ok", f"{cache}: {count} models, {_free(cache)} free")
    set_ = [name for name in _OFFLINE if os.environ.get(name, "").lower() in _TRUE]
    offline = f"offline ({', '.join(set_)})" if set_ else "online allowed"
    yield Check("hub", "network", "ok", offline)
    advice = "" if get_token() else "For gated checkpoints: hf auth login"
    yield Check("hub", "token", "ok" if not advice else "note", "none" if advice else "set", advice)


def _cache() -> Check:
    folder = cache_folder()
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if os.access(there, os.W_OK):
        return Check("program", "cache", "ok", f"{folder}: {_free(folder)} free")
    advice = "Set VLMLENS_CACHE to a folder that can be written."
    return Check("program", "cache", "note", f"{folder} cannot be written", advice)


def _free(folder: Path) -> str:
    there = next(each for each in (folder, *folder.parents) if each.exists())
    return size(shutil.disk_usage(there).free)


def _environment(registry: Registry) -> Iterator[Check]:
    """The variables that say which plugins are loaded, where they are set."""
    unknown = registry.choice.unknown(registry.points)
    for name in _PLUGIN_VARIABLES:
        if name in os.environ:
            wrong = [item for variable, item in unknown if variable == name]
            advice = f"No plugin or distribution is named {', '.join(wrong)}." if wrong else ""
            state = "note" if wrong else "ok"
            yield Check("environment", name, state, os.environ[name] or "(empty)", advice)


def _plugin(entry: Entry) -> Check:
    kind = entry.kind.value if entry.kind else "plugin"
    optional = entry.status in (Status.DISABLED, Status.SLOW) or entry.lacks_extra
    needed = entry.distribution == "vlmlens" and not optional
    state = "ok" if entry.status is Status.OK else ("FAILS" if needed else "note")
    advice = f"{entry.problem.message} {entry.problem.hint}" if entry.problem else ""
    detail = f"{entry.status.value} ({entry.distribution} {entry.version})"
    if entry.heavy:
        state = "note"
        advice = f"Its manifest imports {', '.join(entry.heavy)}, which slows down every command."
    return Check(kind, entry.name, state, detail, advice)


def _not_installed(entries: Iterable[Entry]) -> Iterator[Check]:
    there = {name for entry in entries for name in entry.names}
    missing = [known for known in KNOWN if known.name not in there]
    if missing:
        names = ", ".join(known.name for known in missing)
        advice = f"If you need one, for example {missing[0].name}: {missing[0].install_hint}"
        yield Check("adapter", "not installed", "ok", names, advice)
