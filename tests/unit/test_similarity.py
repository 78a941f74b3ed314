"""How alike columns are: planted copies and noise, other implementations, two runs, bad input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.neighbors import NearestNeighbors

from vlmlens.abc import AnalysisContext, ColumnBlock, ModelAdapter, Values
from vlmlens.errors import CompositionError, RunNotFound, SpecError
from vlmlens.results import Result, Verdict
from vlmlens.runs.run import Run
from vlmlens.samples import Sample
from vlmlens.spec.model import make_spec
from vlmlens_plugins.analysis.similarity import Similarity
from vlmlens_plugins.analysis.similarity.checks import SimilarityChecks
from vlmlens_plugins.analysis.similarity.compared import steps
from vlmlens_plugins.analysis.similarity.geometry import closeness, neighbours
from vlmlens_plugins.analysis.similarity.options import SimilarityOptions
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions

Array = npt.NDArray[Any]
FIRST, SECOND, THIRD = (f"llm.block.{i}/last" for i in range(3))
COUNT, WIDTH = 120, 12


class TestKit(SimilarityChecks):
    """The kit: a planted copy, noise, and what groups share."""


def rows(seed: int, count: int = COUNT, width: int = WIDTH) -> Array:
    return np.random.default_rng(seed).normal(size=(count, width))


TURN = np.linalg.qr(rows(99, WIDTH))[0]


def turned(x: Array) -> Array:
    return 5 * x @ TURN + 20


def made_run(
    folder: Path,
    columns: dict[str, Array | Values],
    ids: Sequence[int] | None = None,
    groups: Sequence[object] | None = None,
) -> Run:
    """A run on disk whose samples have these numbers as ids."""
    numbers = list(range(COUNT) if ids is None else ids)
    spec = make_spec({"adapter": "demo", "data": "demo:scenes"})
    run = Run.create(folder, spec, {"columns": list(columns)})
    run.write_samples(
        [
            Sample(f"s{n}", "What?", group=None if groups is None else str(groups[i]))
            for i, n in enumerate(numbers)
        ]
    )
    block = {
        name: one
        if isinstance(one, Values)
        else Values(np.ascontiguousarray(one, "<f4"), "float32")
        for name, one in columns.items()
    }
    with run.store(mode="a") as store:
        store.write(ColumnBlock(tuple(f"s{n}" for n in numbers), block))
    return run


def no_model() -> ModelAdapter:
    raise AssertionError("no model is needed")


def analysed(run: Run, told: list[str] | None = None, **options: Any) -> Result:
    analysis = Similarity(SimilarityOptions(**{"permutations": 49, **options}))
    samples = list(run.samples)
    with run.store() as store:
        analysis.check(samples, [info.name for info in store.columns()])
        context = AnalysisContext(
            samples,
            store,
            no_model,
            warn=(told if told is not None else []).append,
            folder=run.path / "results",
        )
        return analysis.run(context)


def pair(result: Result, column: str, other: str) -> dict[str, Any]:
    table = result.table("similarity-pairs")
    found = [dict(zip(table.columns, row, strict=True)) for row in table.rows()]
    (one,) = [row for row in found if (row["column"], row["other"]) == (column, other)]
    return one


# ---------------------------------------------------------------------- planted truths


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A column, its rotated, scaled and shifted copy, and noise."""
    x = rows(0)
    columns = {FIRST: x, SECOND: turned(x), THIRD: rows(1)}
    return analysed(made_run(tmp_path_factory.mktemp("planted") / "run", columns))


def test_a_turned_copy_is_equal_by_all_measures(planted: Result) -> None:
    found = pair(planted, FIRST, SECOND)
    assert found["cka"] == pytest.approx(1, abs=1e-5)
    assert found["rsa"] == pytest.approx(1, abs=1e-5)
    assert found["neighbours"] == pytest.approx(1, abs=1e-5)
    assert found["cka_p"] == found["rsa_p"] == found["neighbours_p"] == 1 / 50


def test_noise_is_at_the_baseline_by_all_measures(planted: Result) -> None:
    found = pair(planted, FIRST, THIRD)
    for name, chance in (("cka", 0), ("rsa", 0), ("neighbours", 10 / (COUNT - 1))):
        assert abs(found[name] - chance) < 4 * found[f"{name}_error"]
        assert found[f"{name}_permuted"] == pytest.approx(chance, abs=0.01)
        assert found[f"{name}_p"] > 0.05


def test_rows_shifted_by_one_sample_fall_to_the_baseline(tmp_path: Path) -> None:
    x = rows(2)
    run = made_run(tmp_path / "run", {FIRST: x, SECOND: np.roll(turned(x), 1, 0)})
    found = pair(analysed(run), FIRST, SECOND)
    assert abs(found["cka"]) < 0.1
    assert abs(found["rsa"]) < 0.1
    assert found["neighbours"] < 0.2


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_other_implementations_agree(tmp_path: Path, distance: str) -> None:
    x = rows(3) * np.linspace(0.2, 2, WIDTH)
    y = np.tanh(x @ TURN) + 0.5 * rows(4)
    run = made_run(tmp_path / "run", {FIRST: x, SECOND: y})
    found = pair(analysed(run, distance=distance, neighbours=7), FIRST, SECOND)
    centred = [one.astype(np.float32) - one.astype(np.float32).mean(0) for one in (x, y)]
    expected = spearmanr(*(pdist(one, distance) for one in centred)).statistic
    assert found["rsa"] == pytest.approx(expected, abs=1e-5)
    near = [
        NearestNeighbors(n_neighbors=7, metric=distance).fit(one).kneighbors(return_distance=False)
        for one in centred
    ]
    shared = np.mean([len(set(a) & set(b)) / 7 for a, b in zip(*near, strict=True)])
    assert found["neighbours"] == pytest.approx(shared, abs=1e-9)


def test_equal_rows_share_the_room_among_neighbours() -> None:
    x = np.repeat(rows(5, 4, 3), 3, axis=0)
    found = neighbours(closeness(x, "cosine"), 1)
    assert found.sum(1) == pytest.approx(np.ones(12))
    assert found[0, 1] == found[0, 2] == 0.5
    same = neighbours(closeness(turned(np.pad(x, ((0, 0), (0, WIDTH - 3)))), "cosine"), 1)
    assert np.allclose(found, same)


def test_what_a_group_shares_is_no_evidence(tmp_path: Path) -> None:
    groups = np.arange(COUNT) // 4
    columns = {name: rows(seed, 30)[groups] for seed, name in ((6, FIRST), (7, SECOND))}
    run = made_run(tmp_path / "run", columns, groups=groups)
    found = pair(analysed(run), FIRST, SECOND)
    assert found["cka_p"] > 0.05
    assert abs(found["cka"]) < 4 * found["cka_error"]
    each = pair(analysed(run, groups=False), FIRST, SECOND)
    assert each["cka_p"] == 1 / 50, "as single samples, they would seem to be"


def test_the_answer_of_one_run_is_where_it_changes_most(tmp_path: Path) -> None:
    x = rows(8)
    near, far = x + 0.1 * rows(9), rows(10) + 0.5 * x
    names = ["vision.block.0/image.mean", "projector/image.mean", FIRST, SECOND]
    run = made_run(tmp_path / "run", dict(zip(names, (x, near, far, turned(far)), strict=True)))
    result = analysed(run)
    change, closest = result.findings
    assert f"changes most from {names[1]} to {FIRST}: CKA 0." in change.text
    assert f"Most alike are {FIRST} and {SECOND}: CKA 1.00 [1.00, 1.00], permuted" in closest.text
    table = result.table("similarity-steps")
    assert list(table.columns["column"]) == names[1:]
    assert list(table.columns["before"]) == names[:-1]
    assert [figure.name for figure in result.figures] == [
        f"similarity-{name}" for name in ("depth", "cka", "rsa", "neighbours")
    ]
    heat = result.figures[1]
    assert [row[i] for i, row in enumerate(heat.cells)] == [pytest.approx(1)] * 4


def test_steps_follow_one_selector() -> None:
    names = ["vision.block.0/mean", "vision.block.1/mean", "projector/image.mean", FIRST]
    assert steps([*names, "llm.block.0/text.mean", SECOND]) == [
        (0, 1), (1, 2), (2, 3), (2, 4), (3, 5),
    ]  # fmt: skip


# ---------------------------------------------------------------------- two runs


@pytest.fixture
def base(tmp_path: Path) -> Run:
    return made_run(tmp_path / "base", {name: rows(i) for i, name in enumerate((FIRST, SECOND))})


def test_samples_are_matched_by_id(base: Run, tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(COUNT)[:100]
    theirs = {name: turned(rows(i))[order] for i, name in enumerate((FIRST, SECOND))}
    made_run(tmp_path / "other", {**theirs, THIRD: rows(11, 100)}, order)
    told: list[str] = []
    result = analysed(base, told, against=str(tmp_path / "other"))
    assert pair(result, FIRST, FIRST)["cka"] == pytest.approx(1, abs=1e-5)
    assert pair(result, SECOND, SECOND)["neighbours"] == pytest.approx(1, abs=1e-5)
    assert abs(pair(result, FIRST, THIRD)["cka"]) < 0.1
    assert any("20 of 120 samples are left out" in line for line in told)
    assert "llm.block.0 of base is nearest to llm.block.0 of other: CKA 1.00" in " ".join(
        finding.text for finding in result.findings
    )


def test_where_two_runs_part(base: Run, tmp_path: Path) -> None:
    changed = rows(1) + 1.5 * rows(12)
    made_run(tmp_path / "tuned", {FIRST: rows(0), SECOND: changed})
    result = analysed(base, against=str(tmp_path / "tuned"))
    found = result.findings[0]
    assert found.verdict is Verdict.DIFFERS
    assert found.text.startswith(f"tuned and base part at {SECOND}, the first column with CKA bel")
    assert f"up to {FIRST} it is at least 0.999" in found.text
    assert found.values["p_corrected"] < 1e-6
    low = analysed(base, against=str(tmp_path / "tuned"), parted=0.05).findings[0]
    assert low.verdict is Verdict.NO_DIFFERENCE
    between = float(found.values["cka"]) + 0.2 * (
        float(found.values["cka_high"]) - float(found.values["cka"])
    )
    unsure = analysed(base, against=str(tmp_path / "tuned"), parted=between).findings[0]
    assert unsure.verdict is Verdict.INCONCLUSIVE
    assert "may part" in unsure.text


def test_a_run_is_equal_to_itself(base: Run) -> None:
    result = analysed(base, against=str(base.path))
    assert result.findings[0].verdict is Verdict.NO_DIFFERENCE
    assert "all have at least 0.999" in result.findings[0].text
    assert pair(result, FIRST, FIRST)["cka"] == pytest.approx(1, abs=1e-9)


def test_columns_of_other_widths_and_names(base: Run, tmp_path: Path) -> None:
    x = rows(0)
    made_run(tmp_path / "eye", {"vision.block.3/mean": x @ rows(13, WIDTH, 30), "x/mean": rows(14)})
    result = analysed(base, against=str(tmp_path / "eye"))
    assert "Most alike are llm.block.0/last of base and vision.block.3/mean of eye" in (
        result.findings[0].text
    )
    table = result.table("similarity-nearest")
    assert table.columns["other"][0] == "vision.block.3/mean"


def test_other_prompts_under_the_same_ids_are_said(base: Run, tmp_path: Path) -> None:
    other = made_run(tmp_path / "other", {FIRST: rows(0)})
    other.write_samples([Sample(f"s{i}", "Who?") for i in range(COUNT)])
    told: list[str] = []
    analysed(base, told, against=str(other.path))
    assert any("differs in 120 of 120 samples" in line for line in told)


# ---------------------------------------------------------------------- what cannot be compared


def test_what_is_asked_for_and_is_not_there(base: Run, tmp_path: Path) -> None:
    with pytest.raises(RunNotFound):
        analysed(base, against=str(tmp_path / "none"))
    bare = Run.create(tmp_path / "bare", base.spec, {})
    bare.write_samples(list(base.samples))
    with pytest.raises(CompositionError, match="no columns"):
        analysed(base, against=str(bare.path))
    with pytest.raises(CompositionError, match=r"No stored column matches 'llm\.block\.9'"):
        analysed(base, columns=["llm.block.9"])
    with pytest.raises(CompositionError, match="nothing to compare it with"):
        analysed(base, columns=[FIRST])
    made_run(tmp_path / "eye", {"vision.block.3/mean": rows(0)})
    with pytest.raises(CompositionError, match="No stored column") as caught:
        analysed(base, columns=["llm.block.*"], against=str(tmp_path / "eye"))
    assert "against_columns" in caught.value.hint
    made_run(tmp_path / "others", {FIRST: rows(0)}, range(500, 500 + COUNT))
    with pytest.raises(CompositionError, match="the 0 samples that are in") as caught:
        analysed(base, against=str(tmp_path / "others"))
    assert "same samples" in caught.value.hint


def test_ragged_columns_are_refused(tmp_path: Path) -> None:
    lengths = tuple(1 + i % 2 for i in range(COUNT))
    ragged = Values(rows(0, sum(lengths)).astype("<f4"), "float32", lengths)
    run = made_run(tmp_path / "run", {"llm.block.0/text": ragged})
    with pytest.raises(CompositionError, match="one row per sample"):
        analysed(run)


@pytest.mark.parametrize(("count", "groups"), [(3, None), (40, [0] * 40), (40, [0, 1] * 20)])
def test_too_few_groups_are_refused(tmp_path: Path, count: int, groups: list[int] | None) -> None:
    columns = {name: rows(i, count) for i, name in enumerate((FIRST, SECOND))}
    run = made_run(tmp_path / "run", columns, range(count), groups)
    with pytest.raises(CompositionError, match="4 are needed") as caught:
        analysed(run)
    assert "groups=false" in caught.value.hint
    if count > 3:
        assert pair(analysed(run, groups=False), FIRST, SECOND)["cka"] is not None


def test_few_groups_give_numbers_without_intervals(tmp_path: Path) -> None:
    x = rows(0, 4)
    run = made_run(tmp_path / "run", {FIRST: x, SECOND: turned(x)}, range(4))
    told: list[str] = []
    found = pair(analysed(run, told), FIRST, SECOND)
    assert (found["cka"], found["cka_error"]) == (pytest.approx(1, abs=1e-5), None)
    assert any("Mutual neighbours are left out: 4 samples" in line for line in told)


def test_constant_and_broken_columns_are_said(tmp_path: Path) -> None:
    x, broken = rows(0), rows(1)
    broken[7, 3] = np.nan
    names = [FIRST, SECOND, THIRD, "llm.block.3/last"]
    parts = (x, np.ones((COUNT, 3)), broken, turned(x))
    run = made_run(tmp_path / "run", dict(zip(names, parts, strict=True)))
    told: list[str] = []
    result = analysed(run, told)
    assert told == [
        f"Left out, since values are not finite: {THIRD}.",
        f"Left out, since values are the same for all samples: {SECOND}.",
    ]
    (row,) = result.table("similarity-pairs").rows()
    assert row[:2] == (FIRST, names[3])
    with pytest.raises(CompositionError, match="not enough columns"):
        analysed(run, columns=[FIRST, SECOND, THIRD])


def test_options_are_checked() -> None:
    for wrong in ({"parted": 1.5}, {"neighbours": 0}, {"subset": 2}, {"distance": "dot"}):
        with pytest.raises((SpecError, ValueError)):
            SimilarityOptions(**wrong)


def test_a_subset_and_blocks_are_said(base: Run) -> None:
    result = analysed(base, subset=40, block=30, neighbours=3)
    said = " ".join(result.notes)
    assert "in 4 random blocks" in said
    assert "of all pairs of 40 samples" in said
    assert "share 0.077" in said


# ---------------------------------------------------------------------- the demo model


def test_neighbouring_layers_are_alike_and_an_edit_shows_from_its_layer_on(
    vlm: ModelAdapter, tmp_path: Path
) -> None:
    samples = DemoDataset("scenes", DemoOptions(scenes=48)).samples([])[::5]
    batch = vlm.encode(samples)
    sites = ["vision.block.*", "llm.block.*"]
    runs = []
    for name, edits in (("plain", []), ("edited", ["llm.block.2/image = zero"])):
        trace = vlm.trace(batch, sites, edits=edits)
        columns = {
            column: trace.select(column).float().numpy()
            for site in trace
            for column in [f"{site}/{'image.mean' if site.startswith('vision') else 'last'}"]
        }
        runs.append(made_run(tmp_path / name, columns, range(len(samples))))
    plain, edited = runs
    alone = analysed(plain, columns=["llm.block.*"])
    blocks = [f"llm.block.{i}/last" for i in range(6)]
    assert pair(alone, blocks[0], blocks[1])["cka"] > pair(alone, blocks[0], blocks[5])["cka"] + 0.1
    assert pair(alone, blocks[2], blocks[3])["cka"] > 0.9
    both = analysed(plain, against=str(edited.path))
    along = both.table("similarity-columns")
    cka = dict(zip(along.columns["column"], along.columns["cka"], strict=True))
    before = [value for name, value in cka.items() if name not in blocks[2:]]
    assert before == [pytest.approx(1, abs=1e-6)] * len(before)
    assert all(cka[name] < 0.9999 for name in blocks[3:])
    assert "up to llm.block.2/last it is at least" in both.findings[0].text
