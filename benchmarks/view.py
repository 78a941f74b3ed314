"""What does `vlmlens view` cost on a large run: until it answers, per page and slice, in memory?

The run is written as runs are, with tables that have a row per sample; its pictures are few. The
start is beside `import uvicorn, starlette, numpy`, and slices of the list beside a small run's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, build_opener

import numpy as np
from PIL import Image

from benchmarks._compare import Target, verdicts
from vlmlens.report.files import write_result
from vlmlens.results import Cell, Finding, Glance, Result, Table
from vlmlens.runs.run import Run
from vlmlens.samples import Sample
from vlmlens.spec.model import make_spec

TASKS = ("color", "shape", "number", "presence", "surface")
COLORS = ("red", "green", "blue", "yellow", "purple", "cyan", "orange", "gray")
TOKEN = "benchmark-of-the-view"
_PICTURES = 16
_HEAVY = ("torch", "pyarrow", "matplotlib", "sklearn", "transformers")
_START, _MEMORY = 2.0, 500.0


def make_run(folder: Path, count: int) -> Run:
    """A run of `count` samples, five questions each about a picture, and three analyses of them."""
    folder.mkdir(parents=True)
    pictures = [str(folder / f"{number}.png") for number in range(_PICTURES)]
    for number, path in enumerate(pictures):
        Image.new("RGB", (128, 128), (number * 16, 90, 200)).save(path)
    spec = make_spec({"adapter": "none", "data": "planted", "sites": []})
    run = Run.create(folder / "run", spec, {"state": "finished", "samples": count})
    random = np.random.default_rng(0)
    labels = [COLORS[number] for number in random.integers(len(COLORS), size=count)]
    samples = [
        Sample(
            f"scene-{i // 5:06}/{TASKS[i % 5]}",
            f"What is the {TASKS[i % 5]} of object {i} in this picture?",
            (pictures[i // 5 % _PICTURES],),
            labels[i],
            choices=COLORS,
            group=f"scene-{i // 5:06}",
            task=TASKS[i % 5],
            attributes={"size": i % 97, "light": "left" if i % 3 else "right"},
        )
        for i in range(count)
    ]
    run.write_samples(samples)
    for result in _results(samples, random):
        write_result(result, run.path / "results")
    return run


def _results(samples: Sequence[Sample], random: np.random.Generator) -> list[Result]:
    ids, tasks = [one.id for one in samples], [str(one.task) for one in samples]
    labels: list[Cell] = [one.label for one in samples]
    about: dict[str, Sequence[Cell]] = {"sample": ids, "task": tasks, "label": labels}
    count = len(samples)
    picks = random.random(count)
    answers: list[Cell] = [
        label if pick < 0.8 else COLORS[i % 8]
        for i, (label, pick) in enumerate(zip(labels, picks, strict=True))
    ]
    numbers = random.random((8, count)).tolist()
    texts: list[Cell] = [
        f"It is {answer}, as object {i} shows." for i, answer in enumerate(answers)
    ]
    blind = {
        "answer_image": answers,
        "probability_image": numbers[0],
        "flipped": [number < 0.4 for number in numbers[1]],
        "total_variation": numbers[2],
        "jensen_shannon": numbers[3],
    }
    halves = {"prior": numbers[4], "need": numbers[5], "enough": numbers[6], "text": texts}
    settling: list[Cell] = random.integers(12, size=count).tolist()
    finding = Finding("The first 300 samples are odd.", subject="color", samples=ids[:300])
    glances = tuple(Glance(task, "looks at the image", "yes", value=0.5) for task in TASKS)
    return [
        Result("blind-test", "Whether the model looks at the image", [finding],
               [Table("blind-answers", "The answers", {**about, **blind})], overview=glances),
        Result("logit-lens", "Where the answer forms",
               tables=[Table("lens-settling", "Settling depth", {**about, "settling": settling})]),
        Result("evidence", "What an answer rests on",
               tables=[Table("evidence-samples", "Each sample", {**about, **halves})]),
    ]  # fmt: skip


class Server:
    """`vlmlens view` in a process of its own.

    Args:
        run: The run's folder.
    """

    def __init__(self, run: Path) -> None:
        command = [sys.executable, "-m", "vlmlens", "view", str(run), "--no-open"]
        began = time.perf_counter()
        environment = {**os.environ, "VLMLENS_VIEW_TOKEN": TOKEN}
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._process.stdout is not None
        said = re.search(r"http://\S+", self._process.stdout.readline())
        assert said is not None
        self._base = said[0].partition("/?")[0]
        self._client: OpenerDirector = build_opener(HTTPCookieProcessor())
        self.get(f"/static/view.css?token={TOKEN}")
        self.started = time.perf_counter() - began
        self.cpu = self._cpu()

    def get(self, address: str) -> float:
        """Seconds until an address is answered."""
        began = time.perf_counter()
        with self._client.open(f"{self._base}{address}") as answer:
            answer.read()
        return time.perf_counter() - began

    def _cpu(self) -> float:
        """Seconds of the processor until now."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="utf-8").split(") ")[1]
        user, system = map(int, fields.split()[11:13])
        return (user + system) / os.sysconf("SC_CLK_TCK")

    def peak(self) -> float:
        """MiB that the process took at most until now."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024

    def loaded(self) -> list[str]:
        """Heavy libraries that the process has loaded."""
        mapped = Path(f"/proc/{self._process.pid}/maps").read_text(encoding="utf-8")
        return [name for name in _HEAVY if f"/{name}/" in mapped]

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


@contextmanager
def serving(run: Path) -> Iterator[Server]:
    """A server that ends."""
    server = Server(run)
    try:
        yield server
    finally:
        server.stop()


def addresses() -> dict[str, Callable[[int], str]]:
    """Slices by what is asked for; the number makes each query a new one, as typing does."""
    number, flag = "blind-test/blind-answers/probability_image", "blind-test/blind-answers/right"

    def rows(number: int = 0, **query: str) -> str:
        pairs = {**query, "from": str(50 * number)}
        return f"/runs/0/samples/rows?{urlencode(pairs)}"

    return {
        "the next slice": rows,
        "a task": lambda i: rows(0, task=TASKS[i % 5]),
        "wrong answers": lambda i: rows(i, where=f"{flag}=wrong"),
        "a new bound": lambda i: rows(0, where=f"{number}>={0.5 + i / 1000}"),
        "sorted, a new bound": lambda i: rows(0, sort=number, where=f"{number}<={0.5 + i / 1000}"),
        "a new search": lambda i: rows(0, q=f"object {i}"),
        "in a long text": lambda i: rows(0, where=f"evidence/evidence-samples/text~object {i} "),
        "one sample": lambda i: f"/runs/0/samples/{i}",
        "a picture": lambda i: f"/runs/0/samples/{i}/pictures/0?side=96",
    }


def first_pages(server: Server) -> dict[str, float]:
    """Seconds of each page when it is asked for first."""
    return {
        "overview": server.get("/runs/0"),
        "samples": server.get("/runs/0/samples"),
        "first search": server.get("/runs/0/samples/rows?q=object+7"),
    }


def imports() -> float:
    """Seconds of a bare interpreter with the server's libraries."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import uvicorn, starlette, numpy"], check=True)
    return time.perf_counter() - began


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--beside", type=int, default=1_000, help="Samples of the small run.")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [make_run(Path(folder, str(n)), n).path for n in (given.samples, given.beside)]
        starts, cpu, bare = [], [], []
        for _ in range(given.rounds):
            bare.append(imports())
            with serving(runs[0]) as server:
                starts.append(server.started)
                cpu.append(server.cpu)
        print(f"start: {median(starts):.2f} s, {median(starts) / median(bare):.1f} x the imports")
        with serving(runs[0]) as large, serving(runs[1]) as small:
            first = {name: round(seconds, 2) for name, seconds in first_pages(large).items()}
            print(f"seconds of first pages, while the run is read: {json.dumps(first)}")
            first_pages(small)
            for name, address in addresses().items():
                both = [
                    [run.get(address(i)) for i in range(given.rounds)] for run in (large, small)
                ]
                mine, base = map(median, both)
                print(f"{name:22} {1000 * mine:7.1f} ms  {mine / base:5.1f} x the small run")
            print(f"loaded: {', '.join(large.loaded()) or 'none of ' + ', '.join(_HEAVY)}\n")
            start = Target("start", median(starts), _START, cpu=median(cpu), unit=" s")
            memory = Target("most memory", large.peak(), _MEMORY, unit=" MiB")
            print(verdicts([start, memory]))


if __name__ == "__main__":
    main()
