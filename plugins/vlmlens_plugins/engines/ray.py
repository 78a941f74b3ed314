"""Ray: actors hold the model and pull leases. One that is lost is replaced.

Ray promises at most that a lost task is run again, so nothing is left to it: actors are not
restarted and tasks not retried by Ray. A lease may run twice, even at the same time (when only the
connection to a machine is lost); only one receipt counts. Rows never pass through Ray.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from vlmlens.abc.engine import Engine, Json, Work
from vlmlens.errors import CompositionError, RunError, VlmlensError
from vlmlens.runner.lease_worker import begin_worker
from vlmlens.runner.worker_process import expected, told
from vlmlens_plugins.engines._gpus import VISIBLE
from vlmlens_plugins.engines._handout import Handout, WorkerOptions, failed

_OBJECT_STORE = 100 * 2**20
"""Bytes of Ray's object store where Ray is started here: receipts are small."""

_SAY_AFTER = 120.0
_TICK = 5.0
_TOLD = 12
_KNOCKS = 10.0
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
        if address == _LOCAL:
            return
        host, colon, port = address.rpartition(":")
        plain = host and colon and port.isdecimal() and int(port) < 2**16
        if "://" in address or not (plain or address == "auto"):
            raise CompositionError(
                f"{address!r} is no address of a Ray cluster.",
                subject=address,
                hint="Write --address auto, HOST:PORT, or none. Addresses with ray:// are for "
                "another kind of client: run the command on a machine of the cluster.",
            )
        if plain:
            _knock(host, int(port), address)
        with _connected(self._options):
            pass

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


def _knock(host: str, port: int, address: str) -> None:
    """Raise an error if nobody listens: Ray itself would wait for minutes."""
    try:
        socket.create_connection((host, port), timeout=_KNOCKS).close()
    except OSError as error:
        raise _unreachable(address, error.strerror or str(error)) from error


def _unreachable(address: str, why: str) -> CompositionError:
    return CompositionError(
        f"The Ray cluster at {address!r} cannot be reached: {why}",
        subject=address,
        hint="Start it with `ray start --head`; or leave --address out, to start Ray here.",
    )


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
    before = signal.getsignal(signal.SIGTERM)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if options.address == _LOCAL:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(
                address="local",
                num_cpus=max(options.most, os.cpu_count() or 1),
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE,
                **quiet,
            )
        else:
            ray.init(address=options.address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _unreachable(options.address, str(error)) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray's handler would record no interruption
    try:
        yield ray
    finally:
        ray.shutdown()


class _Actor:
    """A worker: holds the model, and runs one lease at a time.

    Args:
        gpus: Whether Ray gave it some. Without, it sees none: newer Rays do not hide them.
    """

    def __init__(self, gpus: bool) -> None:
        self._work: Any = None
        if not gpus:
            os.environ[VISIBLE] = ""

    def begin(self, order: Json) -> dict[str, Any]:
        """Load the model."""

        def begin() -> dict[str, Any]:
            self._work = begin_worker(order)
            return {"ready": os.getpid()}

        return _answered(begin)

    def run(self, lease: Json) -> dict[str, Any]:
        """Run a lease."""
        return _answered(lambda: {"receipt": self._work(lease, _ignored)})


def _answered(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What work gives, or an error that the user can repair; others are Ray's to tell."""
    try:
        return work()
    except (VlmlensError, OSError) as raised:
        error = expected(raised)
        if error is None:
            raise
        return {"error": told(error)}


def _ignored(done: int) -> None:
    del done


@dataclass
class _Member:
    """An actor.

    Args:
        number: Its number; an actor that takes the place of a lost one has the same.
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
        self._options = options
        self._most = options.most
        self._node = ray.get_runtime_context().get_node_id()
        self._members: list[_Member] = []
        self._since = time.monotonic()
        cluster = ray.cluster_resources()
        _check_gpus(options, cluster, work.order["spec"]["device"])
        self._asks = _resources(options, cluster)
        self._class = ray.remote(_Actor).options(max_restarts=0, max_task_retries=0, **self._asks)
        for number in range(min(options.least, len(work.open()))):
            self._add(number)

    def step(self, handout: Handout) -> None:
        """Wait until an actor answers, and give it the next lease."""
        more = handout.left and len(self._members) < self._most
        if more and all(member.ready for member in self._members):
            self._add(self._free_number())
        waiting = {m.waiting: m for m in self._members if m.waiting is not None}
        done, _ = self._ray.wait(list(waiting), num_returns=1, timeout=_TICK)
        for reference in done:
            self._answer(waiting[reference], handout)
        if not done:
            self._check_own_machine()
            self._say_if_none_is_ready()

    def _answer(self, member: _Member, handout: Handout) -> None:
        try:
            said = self._ray.get(member.waiting)
        except self._ray.exceptions.RayError as error:
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
        self._check_own_machine()
        self._members.remove(member)
        self._ray.kill(member.handle)
        handout.lost(member.number, _how(error), gone=False)
        if handout.left and len(self._members) < self._most:
            self._add(member.number)

    def _add(self, number: int) -> None:
        handle = self._class.remote("num_gpus" in self._asks)
        begins = handle.begin.remote(dict(self._work.order))
        self._members.append(_Member(number, handle, begins))

    def _free_number(self) -> int:
        taken = {member.number for member in self._members}
        return next(number for number in range(self._most) if number not in taken)

    def _check_own_machine(self) -> None:
        """Raise an error if Ray has given up this machine: it starts no actors for us any more."""
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        if self._node not in alive:
            raise RunError(
                "The cluster has lost this machine (its raylet has ended, or does not answer).",
                subject=self._options.address,
                hint="Start Ray here again, and run the same command with --resume.",
            )

    def _say_if_none_is_ready(self) -> None:
        if any(member.ready for member in self._members):
            self._since = time.monotonic()
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


def _how(error: Exception) -> str:
    """What to tell of an actor that did not answer."""
    if getattr(error, "preempted", False):
        return "ended, because its machine was taken back."
    lines = str(error).strip().splitlines()[-_TOLD:]
    return "\n".join(["does not answer. What Ray says:", *lines])


def _check_gpus(options: RayOptions, cluster: Mapping[str, float], device: str) -> None:
    """Raise an error if there are GPUs, and not one for each worker, and nobody said what then.

    Raises:
        CompositionError: So it is.
    """
    gpus = cluster.get("GPU", 0)
    if options.gpus_per_worker is None and device != "cpu" and 0 < gpus < options.least:
        raise CompositionError(
            f"{options.least} workers need a GPU each, and the cluster has {gpus:g}.",
            subject="workers",
            hint=f"--workers {int(gpus)}; or let workers share a GPU that has memory for all of "
            "their models: --gpus-per-worker 0.5; or use none: --gpus-per-worker 0.",
        )


def _resources(options: RayOptions, cluster: Mapping[str, float]) -> dict[str, Any]:
    """What each worker asks Ray for.

    Args:
        options: Those of the engine.
        cluster: What the cluster has.
    """
    cores = max(1, (os.cpu_count() or 1) // options.most) if options.address == _LOCAL else 1
    found: dict[str, Any] = {"num_cpus": options.cpus_per_worker or cores}
    gpus = options.gpus_per_worker
    if gpus is None:
        gpus = int(cluster.get("GPU", 0) >= options.least)
    if gpus:
        found["num_gpus"] = gpus
    if options.accelerator_type:
        found["accelerator_type"] = options.accelerator_type
    return found
