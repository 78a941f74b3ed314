"""Taking part in a run that another process of the same command plans."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vlmlens._disk import disk_errors
from vlmlens._display import changes
from vlmlens.errors import RunError, SpecError, StoreLocked
from vlmlens.runner.execution import finish
from vlmlens.runner.extracting import leased_fingerprint
from vlmlens.runner.leased import LeasedWork, asked_settings, group_file, settle, tell_group
from vlmlens.runner.stages import Job, Watch, state_kept
from vlmlens.runs.leases import LeasePlan, lease_plans
from vlmlens.runs.lock import changing
from vlmlens.runs.records import read_record
from vlmlens.runs.run import Run
from vlmlens.runs.trust import refuse

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter
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
    newest = _newest(Path(spec.out))
    if mode == "fresh" or newest is None:
        return True
    return not newest.open() and (mode == "resume" or part.number == 0)


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
    leases = _told(folder, part, observer) if part and grouped else _newest(folder)
    run = Run(folder, registry=registry, trust=trust)
    if leases is None:
        observer.note("All columns are already stored.")
        return run
    if not (trust or leases.is_own()):
        refuse(leases.folder, {"plan.json": "what to run"})
    _check_same(leases, spec)
    if not leases.open():
        observer.note("All columns are already stored: other parts have done this one's share.")
        return run
    work = LeasedWork(run, leases, observer, leased_fingerprint(run))
    with disk_errors():
        observer.stage("extract", sum(leases.samples.values()))
        work.run_on(engine)
        if not leases.open() and not grouped:
            _settle(run, observer)
    return run


def _settle(run: Run, observer: Observer) -> None:
    """Record that the run is finished, unless another process does."""
    job = Job(run, run.registry.hooks(), _no_model, Watch(observer))
    try:
        with changing(run.path), state_kept(job):
            settle(job)
            finish(job, len(run.samples))
    except StoreLocked:
        observer.note("Another process works on the run, and records that it is finished.")


def _no_model() -> ModelAdapter:
    raise RunError("No model is needed to record the end of a run.")


def _newest(folder: Path) -> LeasePlan | None:
    """The newest plan in a run's folder."""
    return next(reversed(lease_plans(folder)), None)


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
    if found := changes(leases.order["asked"], asked_settings(spec)):
        raise SpecError(
            f"The first process planned the run with other settings: {'; '.join(found.values())}.",
            subject=next(iter(found)),
            hint="Give all processes the same command, or start over with --fresh on part 0.",
        )
