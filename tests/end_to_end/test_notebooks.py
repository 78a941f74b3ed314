"""The notebooks of docs/notebooks run, offline, and show what they promise. One kernel runs all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest
from tests._notebooks import ROOT, executed, kernel, notebook

FOLDER = ROOT / "docs" / "notebooks"
BOOKS = sorted(FOLDER.glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
MACHINE = re.compile(r"/(?:home|Users|root|tmp|work|opt|mnt)/|[A-Za-z]:\\\\|localhost")
LARGEST = 1_000_000
FRESH = "%reset -f"

PROMISED = {
    "01-first-look": {
        "\nlook": ("text/html", r"The answer is &quot;red&quot;.*runs/look/report\.html"),
        "look.findings[0]": ("text/html", "The answer is"),
        "\nrun": ("text/html", r"uses the image.*surface.*runs/first/report\.html"),
        'run.results["logit-lens"]': ("text/html", r"settles at llm\.block.*<img.*<details>"),
        "result.figures[0]": ("image/svg+xml", "<svg"),
        "accuracy_blind": ("text/html", r"<table(.|\n)*surface"),
    },
    "02-your-own-model": {
        "\nvlm.sites": ("text/html", r"<details><summary>vision.*llm\.block\.1"),
        "\nbatch": ("text/html", r"(?s)<b>red</b>.*image \[.*<image href.*<b>text</b>"),
        "\ntrace": ("text/html", r"llm\.block\.1</td><td>2 x \d+ x 32"),
        "layout.texts()": ("stdout", r"'w', 'h', 'i', 'c'|'W', 'h', 'i', 'c', 'h'"),
        "\nrun": ("text/html", "12 samples, 3 columns, finished"),
    },
    "03-find-the-cause": {
        "batch.layout(0)": ("text/html", r"image \[4:68\].*Color</span>.*<image href"),
        "llm.block.4/image = zero": ("stdout", r"0/image = zero +(?!red).*\n.*4/image = zero +red"),
        "image.rest(main)": ("stdout", r"region\(main\) +(?!red).*\n.*rest\(main\) +red"),
        "patching.findings[0]": ("text/html", r"up to llm\.block\.1, image rows carry the answer"),
        "patching.figures[0]": ("image/svg+xml", "<svg"),
        "table.head()": ("text/html", "llm.block.0"),
        "contributions": ("stdout", r"mlp_out +\+"),
    },
    "04-features": {
        "\nsae": ("text/html", r"features for color.*changes (?:[3-9]\d|100)%"),
        "page.name": ("stdout", r"color: \w+ \(AUC"),
        "sae.figures[0]": ("image/svg+xml", "<svg"),
        "random_changed": ("text/html", "verdict"),
        "without many": ("stdout", r"through SAE +(\[.*\])\nwithout one +\1\nwithout many +(?!\1)"),
    },
}
"""By notebook: of the cell with these words, the kind of output and what it shows."""


def problems(book: Any) -> list[str]:
    """What is wrong with a notebook that was run."""
    found = []
    for number, cell in enumerate(code(book), 1):
        if cell.execution_count is None:
            found.append(f"cell {number} did not run")
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"cell {number} failed: {output.ename}")
            if output.get("name") == "stderr":
                found.append(f"cell {number} wrote to stderr: {output.text[:200]}")
            if len(json.dumps(output)) > LARGEST:
                found.append(f"cell {number} has an output of more than a megabyte")
            if output.get("data", {}).get("text/html", "").count("<script"):
                found.append(f"cell {number} brings a script")
    return found


def not_clean(book: Any) -> list[str]:
    """What a committed notebook must not hold."""
    found = [] if book.metadata == METADATA else ["metadata of a machine"]
    for number, cell in enumerate(book.cells, 1):
        if not re.fullmatch(rf"\d\d-{number:02d}", cell.id):
            found.append(f"cell {number} has the id {cell.id!r}")
        if cell.metadata or cell.get("outputs") or cell.get("execution_count") is not None:
            found.append(f"cell {number} holds what a run left")
        if MACHINE.search(cell.source):
            found.append(f"cell {number} names a place on a machine")
    return found


def code(book: Any) -> list[Any]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def shown(cell: Any, kind: str) -> str:
    """All that a cell shows in one way."""
    if kind == "stdout":
        return "".join(each.text for each in cell.outputs if each.get("name") == kind)
    return "\n".join(each.data[kind] for each in cell.outputs if kind in each.get("data", {}))


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Runs notebooks in one kernel, each without the names of the others, in an empty folder."""
    folder = tmp_path_factory.mktemp("notebooks")
    with kernel(folder) as manager:

        def run(book: Any, **settings: Any) -> Any:
            executed(notebook(FRESH), manager)
            return executed(book, manager, **settings)

        run.folder = folder  # type: ignore[attr-defined]
        run.named = cache(lambda path: run(read(path), allow_errors=True))  # type: ignore[attr-defined]
        yield run


def test_there_are_four() -> None:
    assert [path.stem for path in BOOKS] == list(PROMISED)


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_what_a_run_leaves(path: Path) -> None:
    book = read(path)
    nbformat.validate(book)
    assert not_clean(book) == []
    text = path.read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"
    for cell in book.cells:
        for link in re.findall(r"\]\(([^)#]+)", cell.source) if cell.cell_type != "code" else ():
            assert (FOLDER / link).exists(), link


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, running: Any) -> None:
    book = running.named(path)
    assert problems(book) == []
    for words, (kind, pattern) in PROMISED[path.stem].items():
        cells = [cell for cell in code(book) if words in "\n" + cell.source]
        assert any(re.search(pattern, shown(cell, kind)) for cell in cells), words


def test_it_runs_again_where_its_folders_exist(running: Any) -> None:
    first, again = running.named(BOOKS[1]), running(read(BOOKS[1]), allow_errors=True)
    assert problems(again) == []
    last = [shown(code(book)[-1], "text/plain") for book in (first, again)]
    assert last[0] == last[1]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("1 / 0", "cell 2 failed: ZeroDivisionError"),
        ("import warnings; warnings.warn('old')", "cell 2 wrote to stderr: .*old"),
        ("'x' * 2_000_000", "cell 2 has an output of more than a megabyte"),
        ("from IPython.display import HTML; HTML('<script>1</script>')", "cell 2 brings a script"),
    ],
)
def test_a_mistake_in_a_cell_is_seen(cell: str, said: str, running: Any) -> None:
    found = problems(running(notebook("1", cell), allow_errors=True))
    assert len(found) == 1
    assert re.match(said, found[0])
    assert "cell 1 did not run" in problems(notebook("1"))


def test_what_a_run_left_is_seen() -> None:
    book = read(BOOKS[0])
    cell = code(book)[0]
    for changed in (
        {"outputs": [nbformat.v4.new_output("stream", text="1")]},
        {"execution_count": 3},
        {"metadata": {"collapsed": True}},
        {"source": 'open("/home/me/x.png")'},
        {"id": "a1b2c3"},
    ):
        before = {name: cell[name] for name in changed}
        cell.update(nbformat.from_dict(changed))
        assert len(not_clean(book)) == 1
        cell.update(before)
    assert not_clean(book) == []
    assert not_clean(nbformat.from_dict({**book, "metadata": {}})) == ["metadata of a machine"]


# ---------------------------------------------------------------------- progress and interruption

SETTINGS = """
import time
import vlmlens
from vlmlens.runner.notebook_progress import NotebookObserver

quick = NotebookObserver.advance
def slow(self, done):
    quick(self, done)
    time.sleep(0.05)

settings = {"limit": 60, "sites": "llm.block.*/last", "batch_size": 2, "device": "cpu"}
"""
WHOLE = 'whole = vlmlens.extract(**settings, out="whole")'
CUT = """
NotebookObserver.advance = slow
try:
    run = vlmlens.{call}
finally:
    NotebookObserver.advance = quick
"""
SAME = """
columns, again = whole.activations, run.activations
[name for name in columns if (columns[name] != again[name]).any() or len(again[name]) != 60]
"""
CLEANED = "print(vlmlens.open('cut').info['state'], {t.name for t in threading.enumerate()})"


def test_progress_is_one_output_that_is_replaced(running: Any) -> None:
    book = running(notebook(SETTINGS, WHOLE + "\nwhole"))
    assert problems(book) == []
    (display, value) = code(book)[1].outputs
    assert display.output_type == "display_data"
    assert re.fullmatch(r"✓ extract \(60/60, [\d.]+ s\)", display.data["text/plain"])
    assert "<progress" not in display.data["text/html"]
    assert value.output_type == "execute_result"


@pytest.mark.parametrize("times", [1, 3])
def test_an_interrupted_run_goes_on_in_the_same_kernel(times: int, running: Any) -> None:
    cut = CUT.format(call='extract(**settings, out="cut", mode="fresh")')
    resume = 'run = vlmlens.extract(**settings, out="cut", mode="resume")'
    look = "import threading\n" + CLEANED
    book = running(
        notebook(SETTINGS, WHOLE.replace(")", ', mode="resume")'), cut, look, resume, SAME),
        allow_errors=True,
        stop=r"… extract \((?:[2-9]|[1-4]\d)/60",
        times=times,
        first=2,
    )
    _, _, stopped, looked, resumed, same = code(book)
    bar, error = stopped.outputs
    assert re.match(r"✗ extract \(\d+/60", bar.data["text/plain"])
    assert error.ename == "KeyboardInterrupt"
    said = "Interrupted. What was finished is kept in 'cut'. Go on with the same call and "
    assert error.evalue == said + "out='cut', mode=\"resume\"."
    assert error.traceback == [f"KeyboardInterrupt: {error.evalue}"]
    assert shown(looked, "stdout").startswith("interrupted")
    assert "vlmlens-" not in shown(looked, "stdout")
    assert problems(notebook_of(looked, resumed, same)) == []
    assert shown(same, "text/plain") == "[]"


def test_an_interrupted_analysis_goes_on_when_it_is_called_again(running: Any) -> None:
    options = 'analyze("{}", "blind-test")["blind-test"]'
    make = 'for name in "ab":\n    vlmlens.extract(**{**settings, "limit": 20}, out=name)'
    book = running(
        notebook(
            SETTINGS,
            make,
            f"first = vlmlens.{options.format('a')}",
            CUT.format(call=options.format("b")),
            f"run = vlmlens.{options.format('b')}",
            "from vlmlens.report.files import to_json\nto_json(run) == to_json(first)",
        ),
        allow_errors=True,
        stop=r"… blind-test \([1-9]\d?/\d",
        first=3,
    )
    error = code(book)[3].outputs[-1]
    assert error.evalue == (
        "Interrupted. What was finished is kept in 'b'. Make the same call again."
    )
    assert shown(code(book)[5], "text/plain") == "True"


def notebook_of(*cells: Any) -> Any:
    """A notebook of cells that were run."""
    made = nbformat.v4.new_notebook()
    made.cells = list(cells)
    return made
