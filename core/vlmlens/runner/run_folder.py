"""Opening the folder of a run: a new one, one to resume, or one to start over.

It is not in the room `runs`, because it needs the plan of the run.
"""

from __future__ import annotations

import logging
import platform
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vlmlens._disk import disk_errors
from vlmlens._display import changes
from vlmlens._files import write_json
from vlmlens._version import __version__
from vlmlens.compose.given import IN_MEMORY
from vlmlens.compose.recall import NAME as PLANNED
from vlmlens.compose.recall import keep
from vlmlens.errors import (
    FingerprintMismatch,
    RunError,
    RunExists,
    StoreCorrupt,
    StoreError,
    StoreLocked,
)
from vlmlens.manifest import PluginKind
from vlmlens.runner.merge import clear_merged
from vlmlens.runner.stages import ending_recorded
from vlmlens.runs.leases import lease_plans
from vlmlens.runs.lock import changing
from vlmlens.runs.own_files import (
    check_free,
    check_removable,
    made_in,
    remove_own,
    remove_shards,
)
from vlmlens.runs.records import readable_records
from vlmlens.runs.run import Run, is_run
from vlmlens.runs.run_stores import is_free
from vlmlens.stores.opening import is_uri, open_named
from vlmlens.tuned.putting import described

if TYPE_CHECKING:
    from vlmlens.compose.plan import Plan
    from vlmlens.sample_table import SampleTable
    from vlmlens.spec.model import RunSpec

_KEPT = (
    "model",
    "without_rows",
    "compiled",
    "shared_beginnings",
    "shared_images",
    "shards",
    "leases",
    "warnings",
    "seeds",
    "edited",
    "drawn",
)
"""The entries of run.json that a resumed run keeps: how its stored rows were made."""

_OF_SAMPLES = ("images", "signed", PLANNED)
"""Those that tell of samples.jsonl, if it stays as it is."""

_STARTING_OVER = "starting over"
"""The state of a run while --fresh removes what it had."""

RunMode = Literal["new", "resume", "fresh"]

_log = logging.getLogger("vlmlens")


def place_of(plan: Plan, mode: RunMode) -> Path:
    """The folder for the run of a plan. Nothing is written yet, except a new default folder.

    Raises:
        RunExists: Mode is "new" and the folder holds a run; or it holds other files with names of
            a run's files.
    """
    if plan.spec.out is None:
        return next_folder(plan.spec.adapter)
    path = Path(plan.spec.out)
    with disk_errors():
        _check_free(path, mode)
    return path


def open_run(plan: Plan, path: Path, mode: RunMode) -> Run:
    """Create or open the run folder of a plan, with spec, samples and state.

    The caller holds the right to change the run (`vlmlens.runs.lock`).

    Args:
        plan: From `compose`.
        path: The folder, from `place_of`.
        mode: See `vlmlens.runner.execution.execute`.

    Raises:
        RunExists: The folder holds a run, and mode is "new".
        FingerprintMismatch: The run is resumed with other data, another extractor, or a model into
            which something else that was tuned is put.
    """
    info = {
        "state": "running",
        "vlmlens": __version__,
        "python": platform.python_version(),
        "started": now(),
        "columns": plan.columns,
        "samples": len(plan.samples),
        "suggested": dict(plan.suggested),
        "notes": list(plan.notes),
        "working_folder": str(Path.cwd()),
    }
    _check_free(path, mode)
    if is_run(path):
        old = Run(path, registry=plan.registry)
        before = _info(old)
        if mode == "fresh" or before.get("state") == _STARTING_OVER:
            check_room(plan)
            start_over(old, plan)
        else:
            _check_same(old, plan)
            kept = (*_KEPT, *(_OF_SAMPLES if plan.recalled else ()))
            info = {**{key: before[key] for key in kept if key in before}, **info}
            info["made"] = sorted(made_in(path, before))
    with ending_recorded(path):
        run = Run.create(path, _spec_in(path, plan.spec), info, registry=plan.registry)
        if not (plan.recalled and "images" in info):
            _write_samples(run, plan)
        if run.merged:
            remove_shards(run.path)
        clear_merged(run)
    return run


def _write_samples(run: Run, plan: Plan) -> None:
    run.write_samples(plan.samples)
    run.write_skipped(plan.skipped)
    if plan.planned is not None:
        keep(run, plan.planned)


def _check_free(path: Path, mode: RunMode, allowed: Sequence[str] = ()) -> None:
    if not is_run(path):
        check_free(path, allowed)
    elif mode == "new":
        raise RunExists(
            f"{str(path)!r} already holds a run ({_info(Run(path)).get('state')}).",
            subject=str(path),
            hint="Use --resume to go on with it, --fresh to start over, or another --out.",
        )


def _info(run: Run) -> dict[str, Any]:
    """The content of run.json; if it is damaged, what is needed to go on without it."""
    try:
        return run.info
    except RunError as error:
        _log.warning("%s", error.message)
        return {"state": "damaged"}


def _spec_in(path: Path, spec: RunSpec) -> RunSpec:
    """The spec of a run in a folder, which holds what was given in memory.

    The engine is not part of it: the numbers do not depend on it, and others may not have it.
    """
    data = str(path) if spec.data == IN_MEMORY else spec.data
    options = spec.options.model_copy(update={"engine": {}})
    return spec.model_copy(
        update={"out": str(path), "data": data, "engine": None, "options": options}
    )


def start_over(run: Run, plan: Plan, but: Sequence[str] = ()) -> None:
    """Remove what a run has, but not the images that the plan is about to use.

    Args:
        run: The run. The caller holds the right to change it.
        plan: The plan of the run that begins.
        but: Names in the run's folder to leave.

    Raises:
        StoreLocked: A process writes one of its shards.
        RunError: It is not known which files vlmlens made.
    """
    own = plan.spec.data is not None and Path(plan.spec.data).resolve() == run.path.resolve()
    with ExitStack() as held:
        for shard in () if "shards" in but else (run.path / "shards").glob("*-of-*/run.json"):
            held.enter_context(changing(shard.parent))
        _check_idle(run)
        before = _info(run)
        check_removable(run.path, before)
        write_json(
            run.path / "run.json", {"was": before.get("state"), **before, "state": _STARTING_OVER}
        )
        remove_own(run.path, before, but=(*but, *(("images",) if own else ())))


def _check_idle(run: Run) -> None:
    """Refuse if another process runs a lease of the run.

    Raises:
        StoreLocked: It does.
    """
    for leases in lease_plans(run.path):
        for name in leases.open():
            if any(leases.at_work(name, attempt) for attempt in leases.attempts(name)):
                raise StoreLocked(
                    f"Another process is at work on the lease {name} of {str(run.path)!r}.",
                    subject=str(run.path),
                    hint="Wait for it or stop it; or give --out another folder.",
                )


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


def _check_same(old: Run, plan: Plan) -> None:
    if not plan.recalled:
        _check_same_samples(old, plan.samples)
    try:
        spec = old.spec
    except RunError as error:
        _log.warning("%s It is written again.", error.message)
    else:
        _check_same_extractor(spec, plan.spec)
        _check_same_storage(old, spec.storage, plan)
    _check_same_tuned(old, plan)


def _check_same_samples(old: Run, samples: SampleTable) -> None:
    """Refuse samples that have another fingerprint than those of the same ids in the run."""
    path, lost, moved = old.path / "samples.jsonl", 0, {}
    for number, record in enumerate(readable_records(path, "id", "fingerprint")):
        if record is None:
            lost += 1
        elif number < len(samples) and samples.ids[number] == record["id"]:
            _check_fingerprint(old, samples, number, record["fingerprint"])
        else:
            moved[record["id"]] = record["fingerprint"]
    if lost:
        _log.warning(
            "%d lines of %s are damaged: whether these samples are as they were is not checked.",
            lost,
            path,
        )
    if moved:
        for number, name in enumerate(samples.ids):
            if name in moved:
                _check_fingerprint(old, samples, number, moved[name])


def _check_fingerprint(old: Run, samples: SampleTable, number: int, before: str) -> None:
    """Refuse a sample that has another fingerprint than before."""
    if samples.seen is not None and samples.seen.fingerprint(number) == before:
        return
    if old.keep_images(samples[number]).fingerprint() != before:
        name = samples.ids[number]
        raise FingerprintMismatch(
            f"The sample {name!r} has another prompt or image than when the run began.",
            subject=name,
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


def _check_same_storage(old: Run, before: str, plan: Plan) -> None:
    """Refuse another storage if leases are finished: their rows are where the old one says."""

    def place(storage: str) -> str:
        named = plan.registry.find(PluginKind.STORAGE, storage).name
        return storage.rstrip("/") if is_uri(storage) else named

    storage = plan.spec.storage
    finished = any(leases.done() for leases in lease_plans(old.path))
    if finished and place(before) != place(storage):
        raise FingerprintMismatch(
            f"The run's columns were written to the storage {before!r}, not to {storage!r}.",
            subject="storage",
            hint=f"Go on with --storage {shlex.quote(before)}, start over with --fresh, or write "
            "to another folder with --out. `vlmlens export` copies a finished run.",
        )


def check_room(plan: Plan) -> None:
    """Refuse to start over if the place for the new columns is taken: nothing is removed there.

    Raises:
        StoreError: The store at the URI has columns, or those of a run.
    """
    storage = plan.spec.storage
    if not is_uri(storage):
        return
    try:
        store = open_named(
            plan.registry, storage, storage, mode="r", options=plan.spec.options.storage
        )
    except StoreCorrupt:
        free = False
    except StoreError:  # there is none, or what is wrong is said when the run opens it
        free = True
    else:
        with store:
            free = is_free(store, store.get_meta())
    if not free:
        raise StoreError(
            f"The store {storage} has columns of a run, and --fresh removes nothing outside the "
            "run's folder.",
            subject=storage,
            hint="Remove the store by hand, and what lies beside it (.leases); or choose another "
            "place with --storage. To go on with the run: --resume.",
        )


def _check_same_tuned(old: Run, plan: Plan) -> None:
    """Refuse something else that was tuned, also where all is stored and no model is loaded."""
    model = _info(old).get("model")
    if not isinstance(model, dict):
        return
    tuned = plan.tuned
    now = None if tuned is None else described(tuned, merge=plan.spec.merge_tuned)
    if found := changes({"tuned": model.get("tuned")}, {"tuned": now}):
        raise FingerprintMismatch(
            f"The run was made with another model: {found['tuned']}.",
            subject="tuned",
            hint="Start over with --fresh, or write to another folder with --out.",
        )


def now() -> str:
    """The current time in UTC, to the second, in the form of run.json."""
    return datetime.now(UTC).isoformat(timespec="seconds")
