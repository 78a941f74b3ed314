"""The checks of `vlmlens doctor`."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

from vlmlens._version import __version__
from vlmlens.registry import Entry, Status

if TYPE_CHECKING:
    from vlmlens.registry import Registry

_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Args:
        topic: Groups checks.
        name: What was looked at.
        state: "ok", "note" (works without), or "FAILS" (vlmlens cannot run).
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
    return [
        Check("program", "vlmlens", "ok", __version__),
        Check("program", "python", "ok", f"{platform.python_version()} ({sys.executable})"),
        Check("program", "system", "ok", f"{platform.platform()}, {os.cpu_count()} CPUs"),
        *_dependencies(),
        *_accelerators(),
        *_hub(),
        *(_plugin(entry) for entry in registry.entries()),
    ]


def _dependencies() -> Iterator[Check]:
    try:
        declared = requires("vlmlens") or []
    except PackageNotFoundError:
        advice = "Install vlmlens (pip install .): plugins are found by its metadata."
        yield Check("program", "installation", "FAILS", "not installed", advice)
        return
    for requirement in declared:
        if "extra ==" not in requirement:
            yield _dependency(requirement)


def _dependency(requirement: str) -> Check:
    name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
    try:
        return Check("dependency", name, "ok", version(name))
    except PackageNotFoundError:
        return Check("dependency", name, "FAILS", "missing", f"pip install '{requirement}'")


def _accelerators() -> Iterator[Check]:
    try:
        import torch
    except Exception as error:  # noqa: BLE001 - a damaged torch fails in many ways
        yield Check("device", "torch", "FAILS", repr(error), "Reinstall torch.")
        return
    yield Check("device", "cpu", "ok", f"{torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        detail = f"{torch.cuda.get_device_name(index)}, {memory:.0f} GiB"
        yield Check("device", f"cuda:{index}", "ok", detail)
    if torch.backends.mps.is_available():
        yield Check("device", "mps", "ok", "Apple GPU")
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        yield Check("device", "accelerator", "note", "none: models run on the CPU")


def _hub() -> Iterator[Check]:
    from huggingface_hub import constants, get_token

    yield Check("hub", "cache", "ok", constants.HF_HUB_CACHE)
    set_ = [name for name in _OFFLINE if os.environ.get(name, "").lower() in ("1", "true", "yes")]
    offline = f"offline ({', '.join(set_)})" if set_ else "online allowed"
    yield Check("hub", "network", "ok", offline)
    advice = "" if get_token() else "For gated checkpoints: hf auth login"
    yield Check("hub", "token", "ok" if not advice else "note", "none" if advice else "set", advice)


def _plugin(entry: Entry) -> Check:
    kind = entry.kind.value if entry.kind else "plugin"
    needed = entry.distribution == "vlmlens"
    state = "ok" if entry.status is Status.OK else ("FAILS" if needed else "note")
    advice = f"{entry.problem.message} {entry.problem.hint}" if entry.problem else ""
    return Check(kind, entry.name, state, entry.status.value, advice)
