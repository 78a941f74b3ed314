"""Opening the folder of a run: a new one, one to resume, or one to start over.

It is not in the room `runs`, because it needs the plan of the run.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vlmlens._version import __version__
from vlmlens.compose.applicability import check_lasting
from vlmlens.compose.given import IN_MEMORY
from vlmlens.errors import FingerprintMismatch, RunExists, SpecError
from vlmlens.manifest import PluginKind
from vlmlens.runs.run import Run
from vlmlens.runs.shards import Shard

if TYPE_CHECKING:
    from vlmlens.compose.plan import Plan
    from vlmlens.samples import Sample
    from vlmlens.spec.model import RunSpec

_KEPT = (
    "model",
    "without_rows",
    "compiled",
    "shared_beginnings",
    "shared_images",
    "shards",
    "warnings",
)
"""The entries of run.json that a resumed run keeps: how its stored rows were made."""

RunMode = Literal["new", "resume", "fresh"]


def open_run(plan: Plan, mode: RunMode) -> Run:
    """Create or open the run folder of a plan, with spec, samples and state.

    Args:
        plan: From `compose`.
        mode: See `vlmlens.runner.execution.execute`.

    Raises:
        RunExists: The folder holds a run, and mode is "new".
        FingerprintMismatch: The run is resumed with other data or another extractor.
    """
    info = {
        "state": "running",
        "vlmlens": __version__,
        "python": platform.python_version(),
        "started": now(),
        "columns": plan.columns,
        "suggested": dict(plan.suggested),
        "notes": list(plan.notes),
    }
    path = Path(plan.spec.out) if plan.spec.out else next_folder(plan.spec.adapter)
    spec = _spec_in(path, plan.spec)
    if (path / "run.json").is_file():
        old = Run(path, registry=plan.registry)
        if mode == "new":
            raise RunExists(
                f"{str(path)!r} already holds a run ({old.info.get('state')}).",
                subject=str(path),
                hint="Use --resume to go on with it, --fresh to start over, or another --out.",
            )
        if mode == "resume":
            _check_same_samples(old, [old.keep_images(sample) for sample in plan.samples])
            _check_same_extractor(old.spec, plan.spec)
            info = {**{key: old.info[key] for key in _KEPT if key in old.info}, **info}
        else:
            start_over(old, plan)
    run = Run.create(path, spec, info, registry=plan.registry)
    run.write_samples(plan.samples)
    run.write_skipped(plan.skipped)
    return run


def _spec_in(path: Path, spec: RunSpec) -> RunSpec:
    """The spec of a run in a folder, which holds what was given in memory."""
    data = str(path) if spec.data == IN_MEMORY else spec.data
    return spec.model_copy(update={"out": str(path), "data": data})


def start_over(run: Run, plan: Plan) -> None:
    """Remove what a run has, but not the images that the plan is about to use."""
    own = plan.spec.data is not None and Path(plan.spec.data).resolve() == run.path.resolve()
    run.clear(but=("images",) if own else ())


def next_folder(adapter: str) -> Path:
    """Create the first of runs/ADAPTER-001, -002, ... that does not exist."""
    stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(adapter).stem)
    number = 1
    while True:
        path = Path("runs") / f"{stem}-{number:03d}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return path


def _check_same_samples(old: Run, samples: Sequence[Sample]) -> None:
    before = {record["id"]: record["fingerprint"] for record in old.sample_records()}
    for sample in samples:
        if before.get(sample.id, sample.fingerprint()) != sample.fingerprint():
            raise FingerprintMismatch(
                f"The sample {sample.id!r} has another prompt or image than when the run began.",
                subject=sample.id,
                hint="Start over with --fresh, or write to another folder with --out.",
            )


def _check_same_extractor(old: RunSpec, new: RunSpec) -> None:
    before = (old.extractor, old.options.extractor)
    now = (new.extractor, new.options.extractor)
    if before != now:
        raise FingerprintMismatch(
            f"The run's columns were made by {before[0]!r} with {before[1] or 'no options'}, not "
            f"by {now[0]!r} with {now[1] or 'no options'}.",
            subject="extractor",
            hint="Start over with --fresh, or write to another folder with --out.",
        )


def now() -> str:
    """The current time in UTC, to the second, in the form of run.json."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def shard_plan(plan: Plan, shard: Shard, mode: str) -> Plan:
    """The plan of one shard. The first shard also writes the run's own spec and samples.

    Args:
        plan: The plan of the whole run.
        shard: The part.
        mode: See `vlmlens.runner.execution.execute`.

    Raises:
        CompositionError: The storage keeps columns in the memory of one process.
        SpecError: The plan names no folder.
        RunExists: The folder holds a run without shards, and mode is "new".
    """
    check_lasting(plan.registry.find(PluginKind.STORAGE, plan.spec.storage))
    if plan.spec.out is None:
        raise SpecError(
            "Shards need a folder that all of them know.", subject="out", hint="Give --out."
        )
    path = Path(plan.spec.out)
    own = Run(path, registry=plan.registry) if (path / "run.json").is_file() else None
    state = own.info.get("state") if own else None
    if own is not None and state != "sharded" and mode == "new":
        raise RunExists(
            f"{str(path)!r} already holds a run ({state}).",
            subject=str(path),
            hint="Use --fresh to start over, or another --out.",
        )
    if shard.number == 0 and (own is None or mode == "fresh"):
        info = {
            "state": "sharded",
            "vlmlens": __version__,
            "columns": plan.columns,
            "suggested": dict(plan.suggested),
            "notes": list(plan.notes),
        }
        run = Run.create(path, _spec_in(path, plan.spec), info, registry=plan.registry)
        run.write_samples(plan.samples)
        run.write_skipped(plan.skipped)
    spec = plan.spec.model_copy(update={"out": str(shard.path(path))})
    return replace(plan, spec=spec)
