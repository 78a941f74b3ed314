"""Runs for tests of the viewer, a client that holds the token, and a look at what a page holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from vlmlens.report.files import stem, to_json
from vlmlens.results import Figure, Finding, Result, Sheet, Table
from vlmlens.runs.run import Run
from vlmlens.samples import Sample
from vlmlens.spec.model import make_spec
from vlmlens.view.access import Access
from vlmlens.view.app import make_app
from vlmlens.view.shown_run import ShownRun
from vlmlens.view.viewer import Viewer

TOKEN = "a-token-of-the-tests"
COLORS = ("red", "green", "blue")
EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>"


def make_run(
    folder: Path, samples: Sequence[Sample], results: Sequence[Result] = (), **spec: Any
) -> Run:
    """A finished run as vlmlens writes it."""
    info = {"state": "finished", "samples": len(samples)}
    run = Run.create(folder, make_spec({"adapter": "none", "data": "planted", **spec}), info)
    run.write_samples(samples)
    write_results(run, results)
    return run


def write_results(run: Run, results: Sequence[Result]) -> None:
    """Results as JSON alone, without figures and tables as files for others."""
    (run.path / "results").mkdir(exist_ok=True)
    for result in results:
        path = run.path / "results" / f"{stem(result.analysis)}.json"
        path.write_text(to_json(result), encoding="utf-8")


class Client(TestClient):
    """A browser, and what it is shown."""

    shown: Sequence[ShownRun] = ()


def client_of(*runs: Run, live: Any = None) -> Client:
    """A browser that has opened the app's address."""
    shown = [ShownRun(run, number) for number, run in enumerate(runs)]
    app = make_app(Viewer(shown, live), Access("127.0.0.1", 8000, TOKEN))
    cookies = {"vlmlens-8000": TOKEN}
    made = Client(app, base_url="http://127.0.0.1:8000", cookies=cookies)
    made.shown = shown
    return made


def page_of(client: TestClient, address: str) -> str:
    """A page as a person gets it."""
    answer = client.get(address, headers={"accept": "text/html"})
    assert answer.status_code == 200, answer.text
    return str(answer.text)


def numbers_in(html: str) -> list[int]:
    """The numbers of the samples that a list holds, in order."""
    return [int(number) for number in re.findall(r'<li value="(\d+)">', html)]


def all_numbers(client: TestClient, query: str, run: int = 0) -> list[int]:
    """The numbers of all samples that fit, slice after slice."""
    found: list[int] = []
    while True:
        asked = f"/runs/{run}/samples/rows?{query}&from={len(found)}"
        answer = client.get(asked)
        assert answer.status_code == 200, answer.text
        some = numbers_in(answer.json()["html"])
        found += some
        if not some:
            assert answer.json()["count"] == len(found)
            return found


class Elements(HTMLParser):
    """What a browser makes of a page: its elements and their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of each element of a kind."""
        return [attributes for name, attributes in self.found if name == tag]


def runs_nothing(html: str) -> bool:
    """Whether nothing of a page can run but the app's own scripts."""
    for tag, attributes in Elements(html).found:
        own = str(attributes.get("src", "")).startswith("/static/")
        if tag == "script" and not own and attributes.get("type") != "application/json":
            return False
        if any(name.startswith("on") for name in attributes):
            return False
        links = (str(attributes.get(name) or "") for name in ("href", "src"))
        if any(link.strip().lower().startswith("javascript:") for link in links):
            return False
        if tag == "img" and not str(attributes.get("src", "")).startswith("/runs/"):
            return False
    return True


def planted(folder: Path, count: int = 240) -> tuple[list[Sample], dict[str, Any]]:
    """Samples on a few pictures, and the values that tables say of them, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [str(folder / f"{number}.png") for number in range(4)]
    for number, path in enumerate(pictures):
        size = (160, 120) if number else (120, 160)
        Image.new("RGB", size, (60 * number, 90, 120)).save(path)
    random = np.random.default_rng(0)
    samples = [
        Sample(
            f"s{i:04}",
            f"What color has thing {i}?",
            (pictures[i % 4],),
            COLORS[i % 3],
            COLORS,
            task=("color", "shape")[i % 2],
            attributes={"regions": '{"left half": [0, 0, 60, 120]}', "depth": i / 10},
        )
        for i in range(count)
    ]
    score = np.round(random.random(count), 2)
    score[random.random(count) < 0.2] = np.nan
    answer = [COLORS[random.integers(3)] for _ in samples]
    order = random.permutation(count)
    return samples, {"score": score, "answer": answer, "order": order}


def planted_results(samples: Sequence[Sample], values: dict[str, Any]) -> list[Result]:
    """Two analyses: a table with a row per sample in another order, one with two rows of each."""
    order = [int(i) for i in values["order"]]
    rows = [samples[i] for i in order]
    score = [None if np.isnan(values["score"][i]) else float(values["score"][i]) for i in order]
    per_sample = Table(
        "answers",
        "The answers",
        {
            "sample": [one.id for one in rows],
            "task": [one.task for one in rows],
            "label": [one.label for one in rows],
            "answer": [values["answer"][i] for i in order],
            "score": score,
            "flipped": [i % 5 == 0 for i in order],
        },
    )
    blanks = ("gray", "noise")
    double = Table(
        "blanks",
        "By blank",
        {
            "sample": [one.id for one in samples for _ in blanks],
            "blank": [blank for _ in samples for blank in blanks],
            "shift": [i + 0.5 * k for i in range(len(samples)) for k in range(2)],
        },
    )
    about = [samples[i].id for i in (3, 5, 8)]
    finding = Finding("Three samples are odd.", subject="color", samples=about)
    sheet = Sheet(samples[2].id, [[0.1, 0.9]], x=("a", "b"))
    lens = Figure("lens", "Top tokens", "lens", (), y=("block 0",), sheets=(sheet,))
    halves = ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))
    patches = Sheet(samples[1].id, [[0.25, 0.75]], boxes=halves)
    maps = Figure("map", "Where it looks", "patches", (), y=("block 0",), sheets=(patches,))
    return [
        Result("blind-test", "Does it look", [finding], [per_sample], [lens, maps]),
        Result("shifts", "Shifts", tables=[double]),
    ]
