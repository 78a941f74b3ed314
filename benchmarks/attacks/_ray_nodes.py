"""Two machines of Ray on this one, each with its own raylet: real processes on loopback.

`python -m benchmarks.attacks._ray_nodes` starts them and prints the address of the cluster. A line
on its standard input adds a machine, and the end of it ends them all. (On 127.0.0.1, Ray takes the
machine's outer address instead, and hangs.)
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

_MARK = "VLMLENS_ATTACKED_RAY"
_CONFIG = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
    "worker_niceness": 0,  # else actors wait for whatever else a busy machine does
}


class Nodes:
    """The machines, and the processes on them. It ends with its standard input."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start the cluster; one that is there ends first."""
        if hasattr(self, "_program"):
            self.end()
        self._mark = secrets.token_hex(8)
        self._program = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, _MARK: self._mark},
        )
        self.address = self._line()

    def add(self) -> None:
        """Add a machine."""
        assert self._program.stdin
        print("add", file=self._program.stdin, flush=True)
        self._line()

    def raylets(self) -> list[int]:
        """The process ids of the raylets, the one of the driver's machine last."""
        found = [pid for pid in self._own() if _command(pid).split(b"\0")[0].endswith(b"/raylet")]
        return sorted(found, reverse=True)

    def actors(self, raylet: int | None = None) -> list[int]:
        """The process ids of the actors: all, or those of one machine."""
        actors = [pid for pid in self._own() if _command(pid).startswith(b"ray::_Actor")]
        return [pid for pid in actors if raylet is None or _parent(pid) == raylet]

    def end(self) -> None:
        """End all."""
        assert self._program.stdin
        assert self._program.stdout
        self._program.stdin.close()
        self._program.wait(60)
        self._program.stdout.close()

    def _line(self) -> str:
        assert self._program.stdout
        line = self._program.stdout.readline().strip()
        if not line:
            raise SystemExit("The cluster did not start.")
        return line

    def _own(self) -> list[int]:
        mark = f"{_MARK}={self._mark}".encode()
        return [
            int(path.name)
            for path in Path("/proc").iterdir()
            if path.name.isdecimal() and mark in _read(path / "environ").split(b"\0")
        ]


def _command(pid: int) -> bytes:
    return _read(Path(f"/proc/{pid}/cmdline"))


def _parent(pid: int) -> int:
    return int(_read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()[1] or 0)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # ended, or not ours
        return b""


def main() -> None:
    """Start two machines, and add one for each line."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    from ray.cluster_utils import Cluster

    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints
    common = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_log_monitor": False}
    head = {"node_ip_address": "127.0.0.2", "include_dashboard": False, "_system_config": _CONFIG}
    cluster = Cluster(initialize_head=True, head_node_args={**common, **head, "no_monitor": True})
    cluster.add_node(node_ip_address="127.0.0.3", **common)
    print(cluster.address, file=said, flush=True)
    for number, _ in enumerate(sys.stdin):
        cluster.add_node(wait=False, node_ip_address=f"127.0.1.{number + 1}", **common)
        print("added", file=said, flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
