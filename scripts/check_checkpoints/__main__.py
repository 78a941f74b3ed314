"""Command line; see `python -m scripts.check_checkpoints --help` and docs/models.md."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from scripts.check_checkpoints import telling
from scripts.check_checkpoints.listed import Listed, listed
from scripts.check_checkpoints.machine import Fit, fit, free_memory
from scripts.check_checkpoints.page import keep
from scripts.check_checkpoints.places import Place, find, models_folder
from scripts.check_checkpoints.process import Job, done
from scripts.check_checkpoints.records import (
    NOT_RUN,
    Outcome,
    Record,
    Records,
    commit,
    held,
    version_of,
    versions,
)
from scripts.check_checkpoints.small_runs import analyses, small_run
from scripts.check_checkpoints.tiny import write_tiny
from scripts.check_checkpoints.working import KIT, QUESTION, work
from vlmlens.errors import SpecError, VlmlensError, did_you_mean

_ABOUT = """\
Run the conformance kit, a small run of each analysis and a known question on every listed
checkpoint that is in a folder and fits into memory.

A second start goes on where the first one ended: what passed is not done again, while the
checkpoint's files, the versions, the device and the settings stay the same. The exit code is 0 if
something ran and nothing failed, 1 if a step failed or nothing ran, 2 for bad input.

  python -m scripts.check_checkpoints --models ~/models --list
  python -m scripts.check_checkpoints --models ~/models --out checked --device cuda --write
  python -m scripts.check_checkpoints tiny tiny-models   (tiny copies to try it on)
"""


@dataclass(frozen=True)
class Here:
    """What all checkpoints share: the settings, and what is known of this machine."""

    device: str
    dtype: str
    limit: float
    steps: tuple[str, ...]
    records: Records
    versions: dict[str, str]
    commit: str | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and give its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["work"]:
        work()
    try:
        if given[:1] == ["tiny"]:
            return _tiny(given[1:])
        return _check(_parser().parse_args(given))
    except VlmlensError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.check_checkpoints", description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    _choosing(parser)
    add = parser.add_argument
    add("--models", metavar="DIR", help="folder with ORG/NAME/ or models--ORG--NAME/snapshots/; "
        "default: the Hub's cache")  # fmt: skip
    add("--out", metavar="DIR", default="checked-checkpoints", help="folder for outcomes and logs")
    add("--list", action="store_true", help="say what is there and what fits, and run nothing")
    add("--device", default="cpu", help="cpu, cuda, cuda:1; default: cpu")
    add("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"),
        help="of weights, but for the kit, which takes float32")  # fmt: skip
    add("--memory", type=_positive, metavar="GB", help="memory to count on; default: what is free")
    add("--steps", type=_names, default=(KIT, "analyses", QUESTION), metavar="NAMES",
        help="of kit, analyses, question; default: all")  # fmt: skip
    add("--analyses", type=_names, metavar="NAMES", help="only these analyses, by comma")
    add("--limit", type=_positive, default=3600, metavar="S", help="seconds that a step may take")
    add("--write", action="store_true", help="put full checkpoints into docs/models.md")
    return parser


def _choosing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--family", metavar="ADAPTER", help="only checkpoints of this adapter")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only these ids, with *; several",
    )


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError("it names nothing")
    return names


def _tiny(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.check_checkpoints tiny",
        description="Write tiny copies of listed checkpoints, with random weights, to try it on.",
    )
    parser.add_argument("folder", type=Path)
    _choosing(parser)
    options = parser.parse_args(arguments)
    chosen = listed(options.family, options.only)
    written = []
    for checkpoint in write_tiny(options.folder, chosen):
        print(options.folder / checkpoint, flush=True)
        written.append(checkpoint)
    print(f"{len(written)} tiny checkpoints")
    return 0


def _check(options: argparse.Namespace) -> int:
    chosen = listed(options.family, options.only)
    models = models_folder(options.models)
    steps = _steps(options.steps, options.analyses)
    free = int(options.memory * 1e9) if options.memory else free_memory(options.device)
    disk = shutil.disk_usage(models).free
    fits = [(one, fit(one, find(models, one.id), free, disk)) for one in chosen]
    if options.list:
        print(telling.listing(fits))
        return 0
    folder = Path(options.out).resolve()
    here = Here(
        options.device, options.dtype, options.limit, steps, Records(folder), versions(), commit()
    )
    with held(folder):
        found = [_checkpoint(one, each, here) for one, each in fits]
    records = [record for own in found for record in own]
    print(telling.summary(records, sum(not own for own in found)))
    if options.write:
        kept = [
            here.records.all(one.slug) for (one, _), own in zip(fits, found, strict=True) if own
        ]
        put = keep(record for own in kept for record in own)
        print(f"{put} full checkpoints were put into docs/models.md")
    return 0 if telling.green(records) else 1


def _steps(asked: Sequence[str], named: Sequence[str] | None) -> tuple[str, ...]:
    """The steps in their order.

    Raises:
        SpecError: There is no such step or analysis.
    """
    from vlmlens.registry import Registry

    known = [manifest.name for manifest in analyses(Registry.default())]
    parts = {KIT: [KIT], "analyses": known if named is None else list(named), QUESTION: [QUESTION]}
    for what, given, possible in (
        ("step", asked, list(parts)),
        ("installed analysis", named or (), known),
    ):
        for name in given:
            if name not in possible:
                raise SpecError(
                    f"There is no {what} {name!r}.",
                    subject=name,
                    hint=did_you_mean(name, possible) or f"There are: {', '.join(possible)}.",
                )
    return tuple(step for part, names in parts.items() if part in asked for step in names)


def _checkpoint(one: Listed, each: Fit, here: Here) -> list[Record]:
    """The records of a checkpoint; empty if it is not here, or none of its steps fits."""
    place = each.place
    if place is None or all(each.reason(step) for step in here.steps):
        return []
    full = place.is_full(one.checkpoint.parameters)
    print(telling.header(one, each, here.device, full=full), flush=True)
    under = partial(_under, digest=place.digest(), own=one.distribution, here=here)

    def record(step: str, outcome: Outcome, text: str, **more: Any) -> Record:
        return Record(one.id, one.adapter.name, step, outcome, text, under(step), full, **more)

    found = {}
    for step in here.steps:
        before = here.records.done(one.slug, step, under(step))
        if before is not None or (reason := each.reason(step)):
            found[step] = before or record(step, NOT_RUN, reason)
            print(telling.line(found[step], before=before is not None))
    left = [step for step in here.steps if step not in found]
    for ended in done(_job(one, place, here, full=full), left):
        seconds = round(ended.seconds, 2)
        made = record(
            ended.step, ended.outcome, ended.text, seconds=seconds, data=ended.data,
            commit=here.commit,
        )  # fmt: skip
        here.records.write(one.slug, made)
        found[ended.step] = made
        print(telling.line(made), flush=True)
    return [found[step] for step in here.steps]


def _job(one: Listed, place: Place, here: Here, *, full: bool) -> Job:
    folder = here.records.folder
    return Job(
        adapter=one.adapter.name,
        model=str(place.folder),
        device=here.device,
        dtype=here.dtype,
        runs=folder / "runs" / one.slug,
        log=folder / "logs" / f"{one.slug}.log",
        limit=here.limit,
        full=full,
    )


def _under(step: str, *, digest: str, own: str, here: Here) -> dict[str, Any]:
    """What the outcome of a step rests on; `own` is the adapter's distribution."""
    settings = {} if step in (KIT, QUESTION) else asdict(small_run(step))
    return {
        "digest": digest,
        "versions": {**here.versions, own: version_of(own)},
        "device": here.device,
        "dtype": "float32" if step == KIT else here.dtype,
        "settings": settings,
    }


if __name__ == "__main__":
    sys.exit(main())
