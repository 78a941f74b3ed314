"""The memory of this machine, and which checkpoints fit into it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.check_checkpoints.listed import Listed
from scripts.check_checkpoints.places import Place
from vlmlens.errors import CompositionError, SpecError
from vlmlens.manifest import Checkpoint

KIT = "kit"
_KIT_COPIES, _ELSE = 2.2, 1.3
_STORED = 2
_ASK_GPU = "import torch, sys; print(torch.cuda.mem_get_info(sys.argv[1])[0])"


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a checkpoint can be run here.

    Args:
        place: Where it lies; None: it is not here.
        needs: Bytes of memory by step: of the kit, and of everything else ("").
        why_not: By step, why it cannot run; "" is about all steps but the kit.
    """

    place: Place | None
    needs: dict[str, int]
    why_not: dict[str, str]

    def reason(self, step: str) -> str:
        """Why a step cannot run; empty if it can."""
        return self.why_not.get(step if step == KIT else "", "")


def fit(one: Listed, place: Place | None, memory: int, disk: int) -> Fit:
    """Whether a checkpoint is here and fits.

    The kit computes in float32 and holds two models at once; other steps hold one as it is stored.

    Args:
        one: The checkpoint.
        place: Where it lies; None: nowhere here.
        memory: Free memory of the device, in bytes.
        disk: Free space where checkpoints lie, in bytes.
    """
    if place is None:
        return _never(None, _absent(one.checkpoint, disk))
    if not place.has_config:
        return _never(place, "its folder has no config.json")
    if not place.bytes:
        return _never(place, "its folder has no weights")
    if place.lacking:
        return _never(place, f"its folder has {place.lacking}: download it again")
    needs = {KIT: int(place.parameters * 4 * _KIT_COPIES), "": int(place.bytes * _ELSE)}
    why_not = {
        step: f"it needs {gigabytes(need)} of memory, and {gigabytes(memory)} are free"
        for step, need in needs.items()
        if need > memory
    }
    return Fit(place, needs, why_not)


def _absent(checkpoint: Checkpoint, disk: int) -> str:
    """Why a checkpoint that is not here is not, and whether there is room for it."""
    said = ["it is not here"]
    if checkpoint.parameters is not None:
        size = checkpoint.parameters * 1e9 * _STORED
        room = "" if size <= disk else f", and {gigabytes(disk)} of disk are free"
        said.append(f"about {gigabytes(size)} in bfloat16{room}")
    if checkpoint.gated:
        said.append("gated: accept its terms on its page first")
    return "; ".join(said)


def _never(place: Place | None, why: str) -> Fit:
    return Fit(place, {}, {KIT: why, "": why})


def free_memory(device: str) -> int:
    """Free memory of a device, in bytes; of the CPU, at most what the container may use.

    Raises:
        CompositionError: There is no such GPU.
        SpecError: It is no name of a device.
    """
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
        raise SpecError(
            f"{device!r} is no device.", subject=device, hint="Use cpu, mps, cuda or cuda:1."
        )
    if device.startswith("cuda"):
        return _free_on_gpu(device)
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        known = {name: int(rest.split()[0]) * 1024 for name, rest in (x.split(":") for x in lines)}
        free = known["MemAvailable"]
    except (OSError, KeyError, ValueError):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([free, *_container()])


def _free_on_gpu(device: str) -> int:
    asked = subprocess.run(
        [sys.executable, "-c", _ASK_GPU, device], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        why = (asked.stderr.strip().splitlines() or ["torch gives no reason"])[-1]
        raise CompositionError(
            f"The device {device!r} cannot be used: {why}", subject=device, hint="Use --device cpu."
        )
    return int(asked.stdout)


def _container() -> Sequence[int]:
    """What the container may still use; empty if there is no limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        most = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        cached = dict(x.split() for x in (folder / "memory.stat").read_text().splitlines())["file"]
    except (OSError, ValueError, KeyError):
        return ()
    return (max(most - used + int(cached), 0),)


def gigabytes(size: float) -> str:
    """A size as text, for example `13.5 GB`."""
    return f"{size / 1e9:.2g} GB" if size < 1e9 else f"{size / 1e9:.1f} GB"
