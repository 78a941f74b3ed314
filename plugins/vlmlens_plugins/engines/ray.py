"""Ray: actors hold the model and pull leases. One that is lost is replaced.

Ray promises at most that a lost task is run again, so nothing is left to it: actors are not
restarted and tasks not retried by Ray. A lease may run twice, even at the same time (when only the
connection to a machine is lost); only one receipt counts. Rows never pass through Ray.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from vlmlens.abc.engine import Engine, Json, Work
from vlmlens.errors import CompositionError, VlmlensError
from vlmlens.runner.lease_worker import begin_worker
from vlmlens.runner.worker_process import told
from vlmlens_plugins.engines._handout import Handout, WorkerOptions, failed

_OBJECT_STORE = 100 * 2**20
"""Bytes of Ray's object store where Ray is started here: receipts are small."""

_SAY_AFTER = 120.0
_TICK = 5.0
_LOCAL = "none"


class RayOptions(WorkerOptions):
    """Options of the engine `ray`."""

    address: str = Field(
        _LOCAL, description="auto: the running cluster; HOST:PORT; none: start Ray on this machine."
    )
    cpus_per_worker: int | None = Field(
        None, ge=1, description="Cores of each worker; default: 1, or a share of this machine's."
    )
    accelerator_type: str | None = Field(
        None, description="Only machines with this GPU, as Ray names it, for example H100."
    )


class RayEngine(Engine):
    """Hands leases to actors of a Ray cluster.

    Args:
        options: The cluster, and the number and resources of the workers.
    """

    Options = RayOptions

    def __init__(self, options: RayOptions) -> None:
        super().__init__(options)
        self._options = options

    def check(self) -> None:
        """See `Engine.check`."""
        address = self._options.address
        host, colon, port = address.rpartition(":")
        plain = address in (_LOCAL, "auto") or (host and colon and port.isdecimal())
        if not plain or "://" in address:
            raise CompositionError(
                f"{address!r} is no address of a Ray cluster.",
                subject=address,
                hint="Write --address auto, HOST:PORT, or none. Addresses with ray:// are for "
                "another kind of client: run the command on a machine of the cluster.",
            )

    @property
    def on_gpus(self) -> bool | None:
        """See `Engine.on_gpus`."""
        chosen = self._options.gpus_per_worker
        return True if chosen or self._options.accelerator_type else None

    def run(self, work: Work) -> None:
        """See `Engine.run`."""
        handout = Handout(work, "Ray worker")
        if handout.over:
            return
        with _connected(self._options) as ray:
            crew = _Crew(ray, work, self._options)
            try:
                while not handout.over:
                    crew.step(handout)
            finally:
                crew.end()
                handout.clear()


@contextmanager
def _connected(options: RayOptions) -> Iterator[Any]:
    """Ray, connected to the cluster.

    Raises:
        CompositionError: The cluster cannot be reached.
    """
    import ray

    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if options.address == _LOCAL:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(
                num_cpus=max(options.most, os.cpu_count() or 1),
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE,
                **quiet,
            )
        else:
            ray.init(address=options.address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise CompositionError(
            f"The Ray cluster at {options.address!r} cannot be reached: {error}",
            subject=options.address,
            hint="Start it with `ray start --head`; or leave --address out, to start Ray here.",
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


class _Actor:
    """A worker: holds the model, and runs one lease at a time."""

    def __init__(self) -> None:
        self._work: Any = None

    def begin(self, order: Json) -> dict[str, Any]:
        """Load the model."""
        try:
            self._work = begin_worker(order)
        except VlmlensError as error:
            return {"error": told(error)}
        return {"ready": os.getpid()}

    def run(self, lease: Json) -> dict[str, Any]:
        """Run a lease."""
        try:
            return {"receipt": self._work(lease, _ignored)}
        except VlmlensError as error:
            return {"error": told(error)}


def _ignored(done: int) -> None:
    del done


@dataclass
class _Member:
    """An actor.

    Args:
        number: Its number.
        handle: Ray's.
        waiting: What it was asked last; None if it is idle.
        ready: Whether its model is loaded.
    """

    number: int
    handle: Any
    waiting: Any
    ready: bool = False


class _Crew:
    """The actors.

    Args:
        ray: The module.
        work: What they work on.
        options: Their number and resources.
    """

    def __init__(self, ray: Any, work: Work, options: RayOptions) -> None:
        self._ray = ray
        self._work = work
        self._most = options.most
        self._members: list[_Member] = []
        self._numbers = 0
        self._since = time.monotonic()
        self._class = ray.remote(_Actor).options(
            max_restarts=0, max_task_retries=0, **_resources(options)
        )
        for _ in range(min(options.least, len(work.open()))):
            self._add()

    def step(self, handout: Handout) -> None:
        """Wait until an actor answers, and give it the next lease."""
        more = handout.left and len(self._members) < self._most
        if more and all(member.ready for member in self._members):
            self._add()
        waiting = {m.waiting: m for m in self._members if m.waiting is not None}
        done, _ = self._ray.wait(list(waiting), num_returns=1, timeout=_TICK)
        for reference in done:
            self._answer(waiting[reference], handout)
        if not done:
            self._say_if_none_is_ready()

    def _answer(self, member: _Member, handout: Handout) -> None:
        try:
            said = self._ray.get(member.waiting)
        except self._ray.exceptions.RayActorError as error:
            self._lost(member, handout, error)
            return
        if "error" in said:
            raise failed(member.number, said["error"])
        member.ready = True
        if "receipt" in said:
            handout.finish(member.number, said["receipt"])
        lease = handout.take(member.number)
        member.waiting = None if lease is None else member.handle.run.remote(lease)
        if lease is None:
            self._ray.kill(member.handle)
            self._members.remove(member)

    def _lost(self, member: _Member, handout: Handout, error: Exception) -> None:
        self._members.remove(member)
        self._ray.kill(member.handle)
        how = "was lost" + (
            " (its machine was taken back)" if getattr(error, "preempted", False) else ""
        )
        handout.lost(member.number, how, gone=False)
        if handout.left and len(self._members) < self._most:
            self._add()

    def _add(self) -> None:
        handle = self._class.remote()
        begins = handle.begin.remote(dict(self._work.order))
        self._members.append(_Member(self._numbers, handle, begins))
        self._numbers += 1

    def _say_if_none_is_ready(self) -> None:
        if any(member.ready for member in self._members):
            return
        if time.monotonic() - self._since > _SAY_AFTER:
            self._since = float("inf")
            free = self._ray.available_resources()
            shown = ", ".join(f"{free[k]:g} {k}" for k in ("CPU", "GPU") if k in free)
            self._work.warn(
                f"No worker is ready after {_SAY_AFTER:g} s: the model is still being loaded, or "
                f"the cluster has no room (free: {shown or 'nothing'})."
            )

    def end(self) -> None:
        """End all actors."""
        for member in self._members:
            self._ray.kill(member.handle)


def _resources(options: RayOptions) -> dict[str, Any]:
    cores = max(1, (os.cpu_count() or 1) // options.most) if options.address == _LOCAL else 1
    found: dict[str, Any] = {"num_cpus": options.cpus_per_worker or cores}
    if options.gpus_per_worker:
        found["num_gpus"] = options.gpus_per_worker
    if options.accelerator_type:
        found["accelerator_type"] = options.accelerator_type
    return found
