"""The processes that srun or torchrun started, or that users start one by one with --shard K/N.

Each runs the same command. They share a disk. The first one plans; all of them take leases, and
write receipts that only one of them can write.
"""

from __future__ import annotations

import os
import time
from functools import cache, partial

from pydantic import Field, field_validator

from vlmlens.abc.engine import Engine, Part, Work
from vlmlens.abc.options import Options
from vlmlens.errors import CompositionError, SpecError
from vlmlens_plugins.engines._gpus import (
    EACH_HELP,
    VISIBLE,
    alone,
    check_each,
    check_enough,
    names_of,
    share,
    visible,
)

_ENVIRONMENTS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))
_GROUPS = ("SLURM_JOB_ID", "SLURM_STEP_ID", "TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")
_POLL = 1.0


class EnvironmentOptions(Options):
    """Options of the engine `environment`."""

    shard: str = Field(
        "env",
        description="K/N: part K of N, counted from 0; env: the variables of torchrun or srun say.",
    )
    gpus_per_worker: float | None = Field(
        None,
        ge=0,
        description=f"{EACH_HELP}; default: what the scheduler gives, or an equal share of all.",
    )

    _each = field_validator("gpus_per_worker")(check_each)


class Environment(Engine):
    """Runs leases in this process, beside others that do the same.

    Args:
        options: Which process this is.
    """

    Options = EnvironmentOptions

    def __init__(self, options: EnvironmentOptions) -> None:
        super().__init__(options)
        self._shard = options.shard
        self._each = options.gpus_per_worker

    def check(self) -> None:
        """See `Engine.check`."""
        self.part()
        if self._shard == "env":
            _take_gpus(self._each)

    def check_gpus(self) -> None:
        """See `Engine.check_gpus`: of torchrun's processes; others are seen when they begin."""
        problem = _take_gpus(self._each) if self._shard == "env" else None
        if problem is not None:
            raise problem

    @property
    def on_gpus(self) -> bool | None:
        """See `Engine.on_gpus`."""
        return False if self._each == 0 else None

    def part(self) -> Part:
        """See `Engine.part`."""
        return _of_environment() if self._shard == "env" else _parsed(self._shard)

    def run(self, work: Work) -> None:
        """See `Engine.run`."""
        shared = self._each is not None and self._each < 1
        gpus = [] if shared else names_of(work.order["spec"]["device"])
        with alone(work.order.get("key", ""), gpus):
            self._run(work)

    def _run(self, work: Work) -> None:
        part = self.part()
        own = work.names()[part.number :: part.count]
        run_lease = None
        while open_leases := work.open():
            free = [name for name in open_leases if not work.busy(name)]
            mine = [name for name in free if name in own]
            if not part.group and not mine:
                return
            if not free:
                time.sleep(_POLL)
                continue
            name = (mine or free)[0]
            run_lease = run_lease or work.begin()
            receipt = run_lease(work.take(name), partial(work.advance, name))
            work.finish(name, receipt)


def _of_environment() -> Part:
    for number, count in _ENVIRONMENTS:
        if number in os.environ and count in os.environ:
            group = "-".join(os.environ.get(name, "") for name in _GROUPS)
            found = _parsed(f"{os.environ[number]}/{os.environ[count]}")
            return Part(found.number, found.count, group)
    names = ", ".join("/".join(pair) for pair in _ENVIRONMENTS)
    raise SpecError(
        f"The variables {names} are not set, so this is no part of a run.",
        subject="env",
        hint="Start the command with torchrun or srun, or write --shard 0/4.",
    )


@cache
def _take_gpus(each: float | None) -> CompositionError | None:
    """Leave the GPUs of a machine's other processes alone: torchrun shows all to each of them.

    Returns:
        Why they would share GPUs; None if they do not.
    """
    import torch

    if each == 0:
        os.environ[VISIBLE] = ""
    local, gpus = _local(), visible()
    if local is None or not gpus or torch.cuda.is_initialized():
        return None
    number, count = local
    own = each or max(1, len(gpus) // count)
    try:
        check_enough(count, own, len(gpus), _fewer)
    except CompositionError as error:
        return error
    os.environ[VISIBLE] = ",".join(share(gpus, number, own))
    return None


def _local() -> tuple[int, int] | None:
    """Which of how many of torchrun's processes on this machine this is."""
    if "LOCAL_RANK" not in os.environ or "LOCAL_WORLD_SIZE" not in os.environ:
        return None
    return int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])


def _fewer(count: int) -> str:
    return f"--nproc-per-node {count} (of torchrun)"


def _parsed(text: str) -> Part:
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise SpecError(
            f"{text!r} is not a shard.", subject=text, hint="Write --shard 0/4 to 3/4, or env."
        )
    return Part(int(number), int(count))
