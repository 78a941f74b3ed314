"""How much memory does an analysis of a column larger than memory take?

A run with columns of a given size is written to a temporary folder. The command runs on it in a
process of its own, as a user would run it, and its private memory is watched.

    python -m benchmarks.out_of_core --analysis probe --gb 2 --limit-gb 1
    python -m benchmarks.out_of_core --analysis probe --gb 8 --columns 3 --set folds=3
    python -m benchmarks.out_of_core --analysis logit-lens --model --sites "llm.block.*/last"
    python -m benchmarks.out_of_core --command "export RUN RUN.parquet"
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

from benchmarks._large_runs import Shape, with_model, without_model
from benchmarks._memory import Watched, watched


def main() -> int:
    """Print size, peak and seconds. The exit code is 1 above the limit, or if the command fails."""
    chosen = _parser().parse_args()
    shape = Shape(round(chosen.gb * 1e9), chosen.columns, chosen.width, chosen.rows, chosen.dtype)
    with tempfile.TemporaryDirectory(dir=chosen.work) as work:
        folder = Path(chosen.keep or work, "run")
        if folder.exists():
            pass
        elif chosen.model:
            with_model(folder, shape, chosen.sites or ["llm.block.*/last"])
        else:
            without_model(folder, shape)
        found = watched([sys.executable, "-m", "vlmlens", *_arguments(chosen, folder)])
    return _report(chosen.command or chosen.analysis, shape, found, chosen.limit_gb)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--analysis", help="run `vlmlens analyze RUN --analysis NAME`")
    what.add_argument("--command", help="another command of vlmlens; RUN is the run's folder")
    parser.add_argument("--set", action="append", default=[], help="an option: NAME=VALUE")
    parser.add_argument("--gb", type=float, default=2, help="10^9 bytes of each column")
    parser.add_argument("--limit-gb", type=float, default=1, help="of private memory")
    parser.add_argument("--columns", type=int, default=1, help="number of columns")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=1, help="of each sample; 1: not ragged")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--model", action="store_true", help="a run with a small LLaVA")
    parser.add_argument("--sites", nargs="+", help="columns of a run with a model")
    parser.add_argument("--work", type=Path, help="where the temporary folder is made")
    parser.add_argument("--keep", type=Path, help="make the run here, or use the one that is here")
    return parser


def _arguments(chosen: argparse.Namespace, folder: Path) -> list[str]:
    if chosen.command:
        words = shlex.split(chosen.command)
        return [word.replace("RUN", str(folder)) for word in words]
    options = [f"analysis.{chosen.analysis}.{each}" for each in chosen.set]
    given = [part for each in options for part in ("--set", each)]
    return ["analyze", str(folder), "--analysis", chosen.analysis, *given]


def _report(name: str, shape: Shape, found: Watched, limit: float) -> int:
    peak = found.peak / 1e9
    print(
        f"{name} on {shape}: peak {peak:.2f} GB private, limit {limit:g} GB; "
        f"{found.seconds:.0f} s (cpu {found.cpu:.0f}), exit code {found.code}"
    )
    return int(found.code != 0 or peak > limit)


if __name__ == "__main__":
    sys.exit(main())
