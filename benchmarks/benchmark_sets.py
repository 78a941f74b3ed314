"""What scoring a benchmark costs: questions read, composed and scored, with answers given.

A set in POPE's layout is made: three files of 3,000 questions on 500 images, and a file of answers.
`vlmlens run ... --analysis benchmark` scores them in a process of its own: no model is loaded and
no image is opened. The targets are for 2 cores.

    python -m benchmarks.benchmark_sets
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks._compare import Target, verdicts

_SPLITS = ("random", "popular", "adversarial")
_MOST_SECONDS = 20.0
_MOST_MIB = 500.0


def main() -> None:
    """Print time and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=9000, help="in three splits together")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", default="pope", help="the dataset that reads the files")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_set(Path(folder), chosen.questions)
        found = [_run(Path(folder), chosen.data, number) for number in range(chosen.rounds)]
    seconds = statistics.median(each[0] for each in found)
    most = max(each[1] for each in found)
    print(f"{chosen.questions:,} questions: {seconds:.1f} s (median), {most:.0f} MiB (most)")
    print(
        verdicts(
            [
                Target("time, median", seconds, _MOST_SECONDS, unit="s"),
                Target("memory, most", most, _MOST_MIB, unit="MiB"),
            ]
        )
    )


def write_set(folder: Path, questions: int, *, images: int = 500) -> None:
    """Files in POPE's layout, and answers that are right four times out of five.

    Args:
        folder: Where to; the questions are in `coco`.
        questions: How many, in three splits together.
        images: How many images are asked about; none is written.
    """
    rng = np.random.default_rng(0)
    (folder / "coco").mkdir()
    with (folder / "answers.jsonl").open("w") as answers:
        for split in _SPLITS:
            with (folder / "coco" / f"coco_pope_{split}.json").open("w") as file:
                for number in range(1, questions // len(_SPLITS) + 1):
                    label = "yes" if number % 2 else "no"
                    said = label if rng.random() < 0.8 else "no"
                    row = {
                        "question_id": number,
                        "image": f"COCO_val2014_{(number - 1) // 6 % images:012d}.jpg",
                        "text": f"Is there a {rng.choice(['dog', 'cup', 'car'])} in the image?",
                        "label": label,
                    }
                    file.write(json.dumps(row) + "\n")
                    line = {"id": f"{split}/{number}", "text": f"{said.title()}."}
                    answers.write(json.dumps(line) + "\n")


def _run(folder: Path, data: str, number: int) -> tuple[float, float]:
    """Seconds, and MiB at most, of one command."""
    command = [sys.executable, "-m", "vlmlens", "run", "--analysis", "benchmark"]
    command += ["--data", f"{data}:{folder / 'coco'}", "--out", str(folder / f"run-{number}")]
    command += ["--set", f"options.dataset.answers={folder / 'answers.jsonl'}"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"The command ended with the status {status}.")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
