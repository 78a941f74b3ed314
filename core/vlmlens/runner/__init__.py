"""Executing a plan: load, extract, analyse, report; in one process or several.

May use everything except the command line, `testing` and `api`. `execution` runs the stages,
`stages` holds what they share, `run_folder` opens or creates the folder, `run_report` writes the
page, and `bare_store` analyses a store that has no run. Columns are extracted in this process
(`extracting`), or by the workers of an engine: `leased` plans, `joining` takes part in what another
process planned, `lease_worker` runs leases, `worker_process` is the program of a process that does,
and `merge` makes one store of what they wrote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmlens._rooms import hand_out

if TYPE_CHECKING:
    from vlmlens.runner.lease_worker import begin_worker

__all__ = ["begin_worker"]

__getattr__, __dir__ = hand_out(__name__, {"begin_worker": "vlmlens.runner.lease_worker"})
