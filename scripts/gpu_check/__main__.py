"""Command line: checks vlmlens on one GPU, or a reduced form of it on a CPU.

One JSON line for each check on stdout as it ends; the rest on stderr. The exit code is 0 if nothing
failed and everything was run, 1 if a check failed or was killed, 3 if there was no time left for
some, and 2 for wrong options.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts.gpu_check.listing import Check, absent, chosen
from scripts.gpu_check.outcome import Outcome
from scripts.gpu_check.place import installed_by_hand, python_path
from scripts.gpu_check.records import Records
from scripts.gpu_check.running import Runner, counted
from scripts.gpu_check.shapes import SHAPES

_UNFINISHED = 3
_SETTLED = ("passed", "failed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks; the exit code."""
    options = _options(arguments)
    known: dict[int, Outcome] = {}
    records = Records(options.out) if options.out else None
    if records is not None and options.resume:
        known = records.read(options.device, options.shape)
    todo = [each for each in options.only if not _settled(known.get(each.number))]
    outcomes = {each.number: known[each.number] for each in options.only if each not in todo}

    def done(outcome: Outcome) -> None:
        outcomes[outcome.number] = outcome
        print(outcome.line(), flush=True)
        if records is not None:
            records.add(outcome)

    with _folder(options.folder) as folder:
        metadata = folder / "metadata"
        path = python_path(metadata)
        for name in installed_by_hand(metadata):
            _tell(f"{name} is not installed; its plugins are taken from the checkout")
        setting = {
            "device": options.device, "shape": options.shape, "folder": str(folder),
            "mistake": options.mistake,
        }  # fmt: skip
        runner = Runner(setting, path, options.limits, options.total_seconds)
        left = runner.run(todo, done)
    return _ended(outcomes, left)


def _settled(outcome: Outcome | None) -> bool:
    """Whether a resumed run leaves a check out: it ended by itself, and nothing was missing."""
    return outcome is not None and outcome.outcome in _SETTLED


def _ended(outcomes: dict[int, Outcome], left: Sequence[Check]) -> int:
    said = ", ".join(f"{count} {word}" for word, count in counted(outcomes.values()).items())
    _tell(said)
    if left:
        _tell(f"no time was left for {', '.join(each.name for each in left)}: use --resume")
    if any(outcome.bad for outcome in outcomes.values()):
        return 1
    return _UNFINISHED if left else 0


def _tell(text: str) -> None:
    print(f"gpu_check: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    """The folder that was given, which stays; else a temporary one."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="gpu-check-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.gpu_check",
        description="Checks vlmlens on one GPU. docs/gpu.md says what each check shows.",
    )
    parser.add_argument("--only", help="numbers or names of checks, as 2,5 (default: all)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="7b", help="of the model")
    parser.add_argument("--out", type=Path, help="a file that the lines are appended to")
    parser.add_argument(
        "--resume", action="store_true", help="leave out what passed or failed in --out before"
    )
    parser.add_argument(
        "--total-seconds", type=_positive, default=math.inf, help="for all checks (default: none)"
    )
    parser.add_argument(
        "--limits", type=_positive, default=1.0, help="what time limits are multiplied by"
    )
    parser.add_argument(
        "--folder", type=Path, help="for the checkpoint (14 GB at 7b) and the rows; it is kept"
    )
    parser.add_argument(
        "--mistake", choices=("", "weight", "hang"), default="",
        help="make a mistake on purpose: one wrong weight, or checks that hang",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if options.resume and options.out is None:
        parser.error("--resume goes on from a file: give --out FILE")
    if missing := absent():
        parser.error(f"not installed: {', '.join(missing)}. docs/gpu.md lists what is needed")
    try:
        options.only = chosen(options.only)
    except ValueError as error:
        parser.error(str(error))
    return options


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _stop(number: int, frame: object) -> None:
    """End as after Ctrl-C: child processes are killed, and the temporary folder is removed."""
    del frame
    sys.exit(128 + number)


if __name__ == "__main__":
    for _signal in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(_signal, _stop)
    sys.exit(main())
