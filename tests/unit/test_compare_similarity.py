"""The similarity of two runs beside the tests of a comparison."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from vlmlens.abc import ColumnBlock, Values
from vlmlens.cka import unbiased_cka
from vlmlens.cli import main
from vlmlens.comparison import _alike, compare_runs
from vlmlens.errors import RunError
from vlmlens.results import Result
from vlmlens.runs.run import Run
from vlmlens.samples import Sample
from vlmlens.spec.model import make_spec

Array = npt.NDArray[np.float64]
COUNT = 60
BLOCKS = [f"llm.block.{i}/last" for i in range(3)]


def rows(seed: int, width: int = 8) -> Array:
    return np.random.default_rng(seed).normal(size=(COUNT, width))


def made_run(
    folder: Path, columns: dict[str, Array], groups: Sequence[object] | None = None
) -> Run:
    run = Run.create(
        folder, make_spec({"adapter": "demo", "data": "demo:scenes"}), {"columns": list(columns)}
    )
    names = range(COUNT) if groups is None else groups
    run.write_samples([Sample(str(i), "What?", group=f"g{g}") for i, g in enumerate(names)])
    values = {
        name: Values(np.ascontiguousarray(one, "<f4"), "float32") for name, one in columns.items()
    }
    with run.store(mode="a") as store:
        store.write(ColumnBlock(tuple(map(str, range(COUNT))), values))
    return run


def places(tmp_path: Path, first: dict[str, Array], second: dict[str, Array]) -> list[str]:
    return [str(made_run(tmp_path / n, c).path) for n, c in (("a", first), ("b", second))]


def numbers(result: Result) -> dict[tuple[str, str], float]:
    table = result.table("compare-similarity")
    pairs = zip(table.columns["column"], table.columns["other"], strict=True)
    return dict(zip(pairs, table.columns["cka"], strict=True))


@pytest.fixture
def plain() -> dict[str, Array]:
    return {name: rows(i) for i, name in enumerate(BLOCKS)}


def test_where_a_run_differs_from_another(tmp_path: Path, plain: dict[str, Array]) -> None:
    changed = {**plain, BLOCKS[2]: rows(2) + 2 * rows(9)}
    result = compare_runs(places(tmp_path, plain, changed), to=tmp_path / "page.html")
    (found,) = result.findings
    assert found.text.startswith(f"Representations of b and a are least alike at {BLOCKS[2]}: CKA ")
    assert f"and alike up to {BLOCKS[1]} (at least 0.999), over 60 samples of diff" in found.text
    cka = numbers(result)
    assert list(cka) == [(name, name) for name in BLOCKS]
    expected = unbiased_cka(*(one[BLOCKS[2]].astype("f4") for one in (plain, changed)))
    assert cka[BLOCKS[2], BLOCKS[2]] == pytest.approx(expected, abs=1e-9)
    assert cka[BLOCKS[0], BLOCKS[0]] == pytest.approx(1, abs=1e-9)
    (figure,) = result.figures
    assert (figure.kind, len(figure.x), len(figure.y)) == ("heatmap", 3, 3)
    assert "Representations of b and a" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not result.warnings


def test_the_command_shows_it(
    tmp_path: Path,
    plain: dict[str, Array],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = places(tmp_path, plain, plain)
    page = str(tmp_path / "page.html")
    monkeypatch.setattr("sys.argv", ["vlmlens", "compare", *runs, "--to", page, "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    document = json.loads(capsys.readouterr().out)
    assert "are alike at all of 3 columns: CKA at least 0.999" in document["findings"][0]["text"]
    assert "compare-similarity" in [table["name"] for table in document["tables"]]


def test_runs_of_other_models_are_matched_by_their_nearest_columns(tmp_path: Path) -> None:
    x = rows(0)
    first = {BLOCKS[0]: x, BLOCKS[1]: rows(1)}
    second = {"vision.block.0/image.mean": rows(2, 5), "vision.block.1/image.mean": x[:, ::-1]}
    result = compare_runs(places(tmp_path, first, second))
    assert f"{BLOCKS[0]} of a and vision.block.1/image.mean of b are most alike: CKA 1.00" in (
        result.findings[0].text
    )
    assert next(iter(numbers(result))) == (BLOCKS[0], "vision.block.1/image.mean")


def test_one_column_beside_another(tmp_path: Path, plain: dict[str, Array]) -> None:
    run = str(made_run(tmp_path / "a", plain).path)
    result = compare_runs([f"{run}@{BLOCKS[0]}", f"{run}@{BLOCKS[1]}"])
    assert "Representations of a@llm.block.1/last and a@llm.block.0/last: CKA" in (
        result.findings[0].text
    )
    assert list(numbers(result)) == [(BLOCKS[0], BLOCKS[1])]
    with pytest.raises(RunError, match="neither in its results nor in its store"):
        compare_runs([f"{run}@{BLOCKS[0]}", f"{run}@llm.block.7/last"])


def test_few_samples_and_columns_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"llm.block.{i}/last": rows(i) for i in range(30)}
    monkeypatch.setattr(_alike, "SAMPLES", 20)
    result = compare_runs(places(tmp_path, many, many))
    shown = [name for name, _ in numbers(result)]
    assert len(shown) == 12
    assert (shown[0], shown[-1]) == ("llm.block.0/last", "llm.block.29/last")
    assert set(result.table("compare-similarity").columns["samples"]) == {20}


def test_one_sample_of_a_group_is_read(tmp_path: Path) -> None:
    groups = np.arange(COUNT) // 5
    column = rows(0)[groups]
    runs = [made_run(tmp_path / n, {BLOCKS[0]: column}, groups).path for n in ("a", "b")]
    result = compare_runs([*map(str, runs)])
    assert result.table("compare-similarity").columns["samples"] == [12]


def test_what_cannot_be_measured_is_said_and_the_rest_is_there(
    tmp_path: Path, plain: dict[str, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = str(made_run(tmp_path / "a", plain).path)
    few = str(made_run(tmp_path / "few", plain, [0] * COUNT).path)
    (said,) = [w for w in compare_runs([few, first]).warnings if "left out" in w]
    assert said.endswith("they share samples of 1 group, 4 are needed.")
    constant = {BLOCKS[0]: np.ones((COUNT, 3)), BLOCKS[1]: np.full((COUNT, 2), np.nan)}
    result = compare_runs([first, str(made_run(tmp_path / "flat", constant).path)])
    assert [table.name for table in result.tables] == ["compare-tests", "compare-runs"]
    assert any("columns are constant or not finite." in line for line in result.warnings)
    some = {**plain, BLOCKS[1]: np.ones((COUNT, 3))}
    result = compare_runs([first, str(made_run(tmp_path / "some", some).path)])
    assert [name for name, _ in numbers(result)] == [BLOCKS[0], BLOCKS[2]]
    assert any(f"constant or not finite: {BLOCKS[1]}." in line for line in result.warnings)
    broken = made_run(tmp_path / "broken", plain)
    (broken.path / "columns" / "data.mdb").write_bytes(b"")
    assert (
        "similarity of a and broken left out" in compare_runs([first, str(broken.path)]).warnings[1]
    )
    monkeypatch.setattr(_alike, "_SECONDS", 0.0)
    slow = compare_runs([first, str(made_run(tmp_path / "slow", plain).path)]).warnings
    assert any("more than 0 s" in line and "analysis `similarity`" in line for line in slow)


def test_columns_of_a_stranger_at_another_place_are_not_opened(
    tmp_path: Path, plain: dict[str, Array]
) -> None:
    runs = places(tmp_path, plain, plain)
    spec = Path(runs[1]) / "spec.yaml"
    elsewhere = f"storage: lmdb://{tmp_path / 'a' / 'columns'}"
    spec.write_text(spec.read_text().replace("storage: lmdb", elsewhere))
    warnings = compare_runs(runs).warnings
    assert any("left out" in line and "was not made by you" in line for line in warnings)
