"""Runs side by side: which numbers are compared, and whether the tests keep what they promise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmlens.comparison import Side, compare, compare_runs, read_side, read_sides
from vlmlens.comparison._differences import Measured, from_intervals, paired, unpaired
from vlmlens.errors import RunError, RunNotFound
from vlmlens.report.files import write_result
from vlmlens.results import Result, Table, Verdict
from vlmlens.runs.run import Run
from vlmlens.samples import Sample
from vlmlens.spec.model import make_spec

DRAWS = 999


def answers(right: Sequence[bool | None], ids: Sequence[str]) -> Table:
    """Answers to two tasks, by turns."""
    columns = {
        "sample": list(ids),
        "task": ["color" if i % 2 else "shape" for i in range(len(ids))],
        "label": ["a"] * len(ids),
        "answer": [None if value is None else "a" if value else "b" for value in right],
        "confidence": [0.5 + 0.4 * bool(value) for value in right],
    }
    return Table("answers", "Answers", columns)


def layers(best: float) -> Table:
    values = [0.1, 0.5, best]
    columns = {
        "target": ["color"] * 3,
        "column": [f"llm.block.{i}/last" for i in range(3)],
        "verdict": ["encoded"] * 3,
        "gap": values,
        "gap_low": [value - 0.05 for value in values],
        "gap_high": [value + 0.05 for value in values],
        "majority": [0.3] * 3,
    }
    return Table("layers", "Layers", columns)


MANY = [str(i) for i in range(60)]


def side(
    name: str, *tables: Table, groups: Sequence[str] = MANY, column: str | None = None
) -> Side:
    ids = [str(i) for i in range(len(groups))]
    result = Result("probe", "P", tables=tables)
    known = dict(zip(ids, groups, strict=True))
    return Side(name, {"probe": result}, known, dict.fromkeys(ids, ""), column)


def drawn(rate: float, count: int, seed: int) -> list[bool]:
    return [bool(x) for x in np.random.default_rng(seed).random(count) < rate]


def test_a_planted_difference_is_found_and_equal_runs_are_not() -> None:
    ids = [str(i) for i in range(200)]
    first = [True] * 200
    worse = [i % 4 != 0 for i in range(200)]  # even samples are those of the task shape
    made = compare([side("a", answers(first, ids)), side("b", answers(worse, ids))], draws=DRAWS)
    found, same = made.findings
    assert (found.verdict, found.subject) == (Verdict.DIFFERS, "shape")
    assert found.text.startswith("probe, shape, answer is the label: 0.500 in b, 1.000 in a (")
    assert "paired over 100 samples" in found.text
    assert found.values["difference"] == -0.5
    assert same.verdict is Verdict.NO_DIFFERENCE
    assert "for color" in same.text
    table = made.table("compare-tests")
    assert list(table.columns["measure"]) == ["answer is the label"] * 2 + ["confidence"] * 2
    assert set(table.columns["test"]) == {"paired"}


def test_samples_of_one_run_only_are_left_out_and_said() -> None:
    ids = [str(i) for i in range(40)]
    a = side("a", answers([True] * 40, ids), groups=["g"] * 40)
    b = side("b", answers([True] * 30, ids[:30]), groups=["g"] * 30)
    made = compare([a, b], draws=DRAWS)
    assert set(made.table("compare-tests").columns["samples"]) == {15}
    assert any("10 samples that only one run has" in line for line in made.warnings)


def test_runs_without_a_common_sample_are_compared_unpaired() -> None:
    a = side("a", answers(drawn(0.9, 120, 1), [f"a{i}" for i in range(120)]))
    b = side("b", answers(drawn(0.4, 120, 2), [f"b{i}" for i in range(120)]))
    table = compare([a, b], draws=DRAWS).table("compare-tests")
    assert set(table.columns["test"]) == {"unpaired"}
    assert set(table.columns["verdict"]) == {"differs"}


def test_numbers_with_intervals_are_compared_by_column() -> None:
    made = compare([side("a", layers(0.9)), side("b", layers(0.6))])
    (found,) = made.findings
    assert "differs at 1 of 3 columns, most at llm.block.2/last: 0.600 in b" in found.text
    table = made.table("compare-tests")
    assert table.columns["column"] == [f"llm.block.{i}/last" for i in range(3)]
    assert table.columns["measure"] == ["gap"] * 3, "numbers without an interval are left out"
    (figure,) = made.figures
    assert figure.kind == "line"
    assert [list(series.y) for series in figure.series] == [[0.1, 0.5, 0.9], [0.1, 0.5, 0.6]]


def test_a_column_against_another() -> None:
    first = side("a", layers(0.9), answers([True] * 4, "wxyz"), column="llm.block.0/last")
    second = side("b", layers(0.9), answers([True] * 4, "wxyz"), column="llm.block.2/last")
    table = compare([first, second]).table("compare-tests")
    assert table.columns["difference"] == [pytest.approx(0.8)]
    assert table.columns["analysis"] == ["probe"], "what is of no column says nothing of layers"


def test_tables_that_say_their_keys() -> None:
    columns = {"sample": ["x", "x", "y", "y"], "depth": ["1", "2", "1", "2"], "p": [0.1, 0.2] * 2}
    told = [Table("t", "T", columns, keys=("depth",)), Table("u", "U", columns)]
    table = compare([side("a", *told), side("b", *told)], draws=99).table("compare-tests")
    assert table.columns["subject"] == ["1", "2"], "rows that are not told apart are no measure"


def test_another_question_under_the_same_id_is_said() -> None:
    a = Side("a", {"p": Result("p", "P", tables=[answers([True] * 4, "wxyz")])}, {}, {"w": "1"})
    b = Side("b", a.results, {}, {"w": "2"})
    assert "differs in 1 of 1 sample with the same id" in compare([a, b], draws=99).warnings[0]
    assert compare([a, Side("c", {})]).warnings[-1] == (
        "a and c share no number that can be compared."
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6))
def test_a_paired_test_sees_what_an_unpaired_one_cannot(seed: int, per_group: int) -> None:
    rng = np.random.default_rng(seed)
    base = rng.normal(0, 10, 12 * per_group)
    groups = [str(i // per_group) for i in range(len(base))]
    shifted = base + 1 + rng.normal(0, 0.01, len(base))
    made = paired(base, shifted, groups, rng, 999)
    assert made.p < 0.01
    assert made.low <= made.difference <= made.high
    assert unpaired(base, shifted, (groups, groups), rng, 999).p > 0.01


@pytest.mark.parametrize("test", ["paired", "unpaired"])
def test_equal_runs_seldom_differ(test: str) -> None:
    """At level 0.05 with groups that share an effect: at most 0.05 and three standard errors."""
    hits, trials = 0, 200
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        effects = rng.normal(0, 1, (2, 20, 1))
        first, second = (effects + rng.normal(0, 0.3, (2, 20, 5))).reshape(2, -1)
        groups = [str(i // 5) for i in range(100)]
        if test == "paired":
            p = paired(first, second, groups, rng, 499).p
        else:
            p = unpaired(first, second, (groups, groups), rng, 499).p
        hits += p <= 0.05
    assert 1 <= hits <= 0.05 * trials + 3 * (0.05 * 0.95 * trials) ** 0.5


def test_ignoring_the_groups_would_be_seen() -> None:
    hits = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        effects = rng.normal(0, 1, (2, 20, 1))
        first, second = (effects + rng.normal(0, 0.3, (2, 20, 5))).reshape(2, -1)
        hits += paired(first, second, [str(i) for i in range(100)], rng, 499).p <= 0.05
    assert hits > 20


def test_two_intervals() -> None:
    made = from_intervals(Measured(0.5, 0.4, 0.6, 60), Measured(0.8, 0.7, 0.9, 60))
    assert made is not None
    assert made.difference == pytest.approx(0.3)
    assert made.p == pytest.approx(3.3e-5, rel=0.1)
    assert (made.low, made.high) == pytest.approx((0.3 - 0.1 * 2**0.5, 0.3 + 0.1 * 2**0.5))
    assert from_intervals(Measured(1.0, 1.0, 1.0, 60), Measured(0.5, 0.5, 0.5, 60)) is None
    same = from_intervals(Measured(1.0, 1.0, 1.0, 60), Measured(1.0, 1.0, 1.0, 60))
    assert same is not None
    assert same.p == 1.0


def made_run(folder: Path, *tables: Table) -> Run:
    run = Run.create(folder, make_spec({"adapter": "demo", "data": "demo:scenes"}), {})
    run.write_samples([Sample(str(i), "What?", label="a") for i in range(60)])
    if tables:
        write_result(Result("probe", "P", tables=tables), folder / "results")
    return run


def test_runs_are_read_from_their_folders(tmp_path: Path) -> None:
    ids = [str(i) for i in range(60)]
    for name, best in (("a", 0.9), ("b", 0.2)):
        made_run(tmp_path / name, answers([best > 0.5] * 60, ids), layers(best))
    page = tmp_path / "compare.html"
    places = [str(tmp_path / "a"), str(tmp_path / "b")]
    result = compare_runs(places, to=page)
    assert {finding.verdict for finding in result.findings} == {Verdict.DIFFERS}
    source = page.read_text(encoding="utf-8")
    assert f"vlmlens compare {places[0]} {places[1]}" in source
    assert ".parquet" not in source, "no such files are written"
    assert "demo:scenes" in source
    one = read_side(f"{places[0]}@llm.block.1/last")
    assert (one.name, one.column) == ("a@llm.block.1/last", "llm.block.1/last")


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    made_run(tmp_path / "bare")
    made_run(tmp_path / "full", layers(0.5))
    full, bare = str(tmp_path / "full"), str(tmp_path / "bare")
    with pytest.raises(RunError, match="no results"):
        read_side(bare)
    with pytest.raises(RunNotFound):
        read_side(str(tmp_path / "none"))
    with pytest.raises(RunError, match="has the column") as caught:
        read_side(f"{full}@llm.block.7/last")
    assert "Did you mean" in caught.value.hint
    with pytest.raises(RunError, match="only one run"):
        read_sides([full])
    with pytest.raises(RunError, match="given twice"):
        read_sides([full, full])


def depth(values: np.ndarray, ids: Sequence[str], *, single: bool) -> list[Table]:
    """Settling depth as the logit lens reports it: its mean with an interval, and by sample."""
    shares = np.bincount(values) / len(ids)
    draws = np.random.default_rng(0).multinomial(len(ids), shares, size=400)
    low, high = np.quantile(draws @ np.arange(len(shares)) / len(ids), [0.025, 0.975])
    mean = {
        "task": ["color"],
        "samples": [len(ids)],
        "settling_mean": [float(values.mean())],
        "settling_mean_low": [float(low)],
        "settling_mean_high": [float(high)],
    }
    each = {
        "sample": list(ids),
        "task": ["color"] * len(ids),
        "settling": [int(value) for value in values],
    }
    tables = [Table("lens-tasks", "T", mean)]
    return [*tables, Table("lens-settling", "S", each)] if single else tables


def lens_side(name: str, values: np.ndarray, ids: Sequence[str], *, single: bool) -> Side:
    result = Result("logit-lens", "L", tables=depth(values, ids, single=single))
    return Side(name, {"logit-lens": result}, {i: i for i in ids}, dict.fromkeys(ids, "same"))


@pytest.mark.parametrize("count", [8, 12, 20, 50])
@pytest.mark.parametrize("shape", ["few late ones", "one half", "rare"])
def test_a_run_does_not_differ_from_a_part_of_itself(count: int, shape: str) -> None:
    """Of 60 sub-samples at most 3, with and without numbers of single samples."""
    wrong, trials = 0, 60
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        rate = {"few late ones": 0.05, "one half": 0.5, "rare": 0.01}[shape]
        values = np.where(rng.random(600) < rate, rng.integers(1, 4, 600), 0)
        ids = [str(i) for i in range(600)]
        part = rng.permutation(600)[:count]
        single = seed % 2 == 0
        sides = [
            lens_side("all", values, ids, single=single),
            lens_side("part", values[part], [ids[i] for i in part], single=single),
        ]
        made = compare(sides, draws=99)
        wrong += any(found.verdict is Verdict.DIFFERS for found in made.findings)
        if count < 50 and not single:
            assert set(made.table("compare-tests").columns["p"]) == {None}
            assert "fewer than 50" in made.findings[0].text
    assert wrong <= 3


def test_single_samples_are_paired_instead_of_their_means_intervals() -> None:
    ids = [str(i) for i in range(60)]
    first = lens_side("a", np.arange(60) % 3, ids, single=True)
    later = lens_side("b", np.arange(60) % 3 + 1, ids, single=True)
    made = compare([first, later], draws=DRAWS)
    table = made.table("compare-tests")
    assert table.columns["measure"] == ["settling"]
    assert table.columns["test"] == ["paired"]
    assert made.findings[0].text.startswith("logit-lens, color, settling: 2.000 in b, 1.000 in a")


def test_a_number_in_two_tables_is_tested_once_and_a_rank_never() -> None:
    again = Table("again", "Again", {**layers(0.9).columns, "rank": [1, 2, 3]})
    ranked = Table(
        "ranked",
        "Ranked",
        {
            "target": ["color"] * 3,
            "column": [f"llm.block.{i}/last" for i in range(3)],
            **{f"{name}{end}": [3.0, 2.0, 1.0] for name in ("rank", "gap_rank") for end in ENDS},
        },
    )
    made = compare([side("a", layers(0.9), again, ranked), side("b", layers(0.6), again, ranked)])
    assert made.table("compare-tests").columns["measure"] == ["gap"] * 3
    assert len(made.findings) == 1


ENDS = ("", "_low", "_high")


def test_the_same_model_on_the_same_samples_is_not_tested() -> None:
    known = {"digest": "1", "dtype": "float32"}
    a = replace(side("a", layers(0.9)), model=known)
    b = replace(side("b", layers(0.6)), model=known)
    made = compare([a, b])
    assert not len(made.table("compare-tests"))
    (found,) = made.findings
    assert found.verdict is Verdict.INFO
    assert "probe: nothing to test" in found.text
    assert not made.warnings
    other = compare([a, replace(b, model={**known, "dtype": "bfloat16"})])
    assert other.findings[0].verdict is Verdict.DIFFERS
    options = Result("probe", "P", tables=[layers(0.6)], options={"kind": "mlp"})
    assert compare([a, replace(b, results={"probe": options})]).table("compare-tests").columns["p"]
    columns = [replace(a, column=f"llm.block.{i}/last") for i in (0, 2)]
    assert compare(columns).findings[0].verdict is Verdict.DIFFERS


def test_the_same_model_on_a_part_of_the_samples_is_not_judged_by_intervals() -> None:
    known = {"digest": "1"}
    a = replace(side("a", layers(0.9), groups=[str(i) for i in range(200)]), model=known)
    b = replace(side("b", layers(0.6)), model=known)
    made = compare([a, b])
    assert set(made.table("compare-tests").columns["verdict"]) == {"inconclusive"}
    assert "only the samples differ" in made.findings[0].text
    assert not made.warnings, "nothing is paired, so nothing is left out of it"


def test_what_the_model_is_comes_from_the_run(tmp_path: Path) -> None:
    """Where a checkpoint lies does not matter; without digest or commit nothing is known."""
    for name, model in {
        "a": {"checkpoint": "here", "digest": "1"},
        "b": {"checkpoint": "there", "digest": "1"},
        "c": {"checkpoint": "hub/name", "revision": "abc"},
        "d": {"checkpoint": "hub/other", "revision": "abc"},
        "e": {"checkpoint": "hub/name", "revision": None},
    }.items():
        made_run(tmp_path / name, layers(0.5)).update(model=model)
    a, b, c, d, e = (read_side(str(tmp_path / name)) for name in "abcde")
    assert a.same_model(b)
    assert not c.same_model(d)
    assert not e.same_model(e)
