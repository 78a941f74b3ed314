"""Taking part in a run that another process of the same command plans."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vlmlens._disk import disk_errors
from vlmlens.errors import RunError, SpecError
from vlmlens.runner.extracting import leased_fingerprint
from vlmlens.runner.leased import LeasedWork, asked_settings, group_file, tell_group
from vlmlens.runs.leases import LeasePlan, lease_plans
from vlmlens.runs.records import read_record
from vlmlens.runs.run import Run

if TYPE_CHECKING:
    from vlmlens.abc.engine import Engine, Part
    from vlmlens.abc.observer import Observer
    from vlmlens.registry import Registry
    from vlmlens.runner.run_folder import RunMode
    from vlmlens.spec.model import RunSpec

_POLL = 0.5
_SAY_AFTER = 5.0
_SLACK = 30.0
_OLD = 60.0
"""What the first process said long before this one began counts only after this many seconds."""


@contextmanager
def leading(spec: RunSpec, part: Part | None) -> Iterator[None]:
    """Tell the other processes of the same start if this one, which plans, ends with an error."""
    try:
        yield
    except BaseException as error:
        if spec.out is not None and Path(spec.out).is_dir():
            tell_group(Path(spec.out), part, {"error": str(error) or type(error).__name__})
        raise


def is_first(spec: RunSpec, part: Part, mode: RunMode) -> bool:
    """Whether this process plans; else it takes part in what another one planned.

    Args:
        spec: What the user asked for.
        part: Which of the processes this is.
        mode: What to do if the folder already holds a run.

    Raises:
        SpecError: The run has no folder, or several processes would start it over.
    """
    if spec.out is None:
        raise SpecError(
            "Several processes need a folder that all of them know.",
            subject="out",
            hint="Give --out.",
        )
    if part.group:
        return part.number == 0
    if mode == "fresh" and part.number:
        raise SpecError(
            f"Part {part.number} cannot start the run over, since other parts may be at work.",
            subject="--fresh",
            hint="Start part 0 with --fresh first, then the others without it.",
        )
    return mode == "fresh" or _open_plan(Path(spec.out)) is None


def join(
    spec: RunSpec,
    engine: Engine,
    registry: Registry,
    observer: Observer,
    *,
    trust: bool = False,
) -> Run:
    """Run leases of a plan that another process makes. Nothing is composed again.

    Args:
        spec: What the user asked for, which has to be what the first process was asked.
        engine: Runs leases in this process.
        registry: The installed plugins.
        observer: Receives progress and warnings.
        trust: Whether to run a plan that this user's vlmlens did not write on this machine.

    Raises:
        SpecError: The settings differ. The error names them.
        UntrustedRun: Somebody else made the run.
        RunError: The first process ended with an error.
    """
    folder, part = Path(str(spec.out)), engine.part()
    grouped = part is not None and part.group
    leases = _told(folder, part, observer) if part and grouped else _open_plan(folder)
    own = leases is not None and leases.is_own()
    run = Run(folder, registry=registry, trust=trust or own)
    if leases is None:
        observer.note("All columns are already stored.")
        return run
    _check_same(leases, spec)
    run.check_trust("adapter", "extractor", "storage", "model", "trust_remote_code")
    work = LeasedWork(run, leases, observer, leased_fingerprint(run))
    with disk_errors():
        observer.stage("extract", sum(leases.samples.values()))
        work.begin()
        engine.run(work)
    return run


def _open_plan(folder: Path) -> LeasePlan | None:
    """The newest plan in a run's folder, if it has open leases."""
    plans = lease_plans(folder)
    return plans[-1] if plans and plans[-1].open() else None


def _told(folder: Path, part: Part, observer: Observer) -> LeasePlan | None:
    """The plan that the first process tells; None if there is nothing to do."""
    path, start, said = group_file(folder, part), time.time(), False
    while not _is_news(path, start):
        if not said and time.time() - start > _SAY_AFTER:
            observer.note("Waiting for the first process, which plans the run.")
            said = True
        time.sleep(_POLL)
    news = read_record(path)
    if "error" in news:
        raise RunError(
            f"The first process, which plans the run, ended with an error: {news['error']}",
            subject=str(folder),
            hint="Fix the problem, and start all processes again.",
        )
    plans = {plan.folder.name: plan for plan in lease_plans(folder)}
    return plans.get(str(news["plan"]))


def _is_news(path: Path, start: float) -> bool:
    """Whether the first process has told something in this start of the command."""
    try:
        told = path.stat().st_mtime
    except FileNotFoundError:
        return False
    return told > start - _SLACK or time.time() > start + _OLD


def _check_same(leases: LeasePlan, spec: RunSpec) -> None:
    planned, own = leases.order["asked"], asked_settings(spec)
    differing = sorted(key for key in {*planned, *own} if planned.get(key) != own.get(key))
    if differing:
        shown = "; ".join(f"{k} was {planned.get(k)!r}, is {own.get(k)!r}" for k in differing)
        raise SpecError(
            f"The first process planned the run with other settings: {shown}.",
            subject=differing[0],
            hint="Give all processes the same command, or start over with --fresh on part 0.",
        )
