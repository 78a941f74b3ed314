"""The analysis `concepts`: planted truths, files of directions, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit._concepts import clusters, run, samples_of

import vlmlens
from vlmlens.abc import ModelAdapter
from vlmlens.errors import CompositionError, DataError, DataNotFound, MissingAnnotation, SpecError
from vlmlens.results import Result, Table, Verdict
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.concepts import coordinates
from vlmlens_plugins.analysis.concepts.sets import find_sets, image_name
from vlmlens_plugins.analysis.steering.files import open_direction, save_direction
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions

NEAR, FAR = "llm.block.1/last", "llm.block.0/last"


def rows_of(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows()]


def planted(seed: int = 0) -> tuple[list[Sample], dict[str, Any]]:
    """Three labels that lie apart in one column, and noise in another."""
    rows, y = clusters(seed=seed)
    noise = np.random.default_rng(seed).normal(size=rows.shape).astype(np.float32)
    return samples_of([("a", "b", "c")[i] for i in y]), {FAR: noise, NEAR: rows}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("results")
    return run(*planted(), folder), folder


# ------------------------------------------------------------------ on the demo model


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> vlmlens.Run:
    asked = DemoDataset("scenes", DemoOptions(scenes=100)).samples([])
    return vlmlens.run(
        data=[sample for sample in asked if sample.task in ("color", "surface")],
        sites=["vision.block.2/image.mean", "llm.block.5/last"],
        analysis={
            "concepts": {
                "by": ["label", "photographer@color"], "permutations": 199, "resamples": 200,
            }
        },
        out=tmp_path_factory.mktemp("demo") / "run",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "column", "together"),
    [
        ("color", "llm.block.5/last", True),
        ("surface", "vision.block.2/image.mean", True),
        ("surface", "llm.block.5/last", False),
        ("photographer@color", "vision.block.2/image.mean", False),
        ("photographer@color", "llm.block.5/last", False),
    ],
)
def test_on_the_demo_model(demo: vlmlens.Run, name: str, column: str, together: bool) -> None:
    table = rows_of(demo.results["concepts"].table("concepts-columns"))
    (row,) = [row for row in table if (row["set"], row["column"]) == (name, column)]
    assert (row["verdict"] == "encoded") is together
    assert row["samples"] == row["groups"] == 100
    if together:
        assert row["knn"] > 0.85
        assert row["knn_shuffled"] < 0.6
        assert row["separation"] > 5 * abs(row["separation_shuffled"])
        assert row["silhouette_p"] == row["separation_p"] == pytest.approx(1 / 200)
    else:
        assert row["gap"] < 0.2


def test_findings_say_the_answer_first(demo: vlmlens.Run) -> None:
    found = demo.results["concepts"].findings
    texts = [each.text for each in found if each.subject == "surface"]
    assert "surface: samples of a concept lie together on the vision side at vision" in texts[0]
    assert "shuffled" in texts[0]
    (color,) = [each for each in found if each.subject == "color" and not each.scope]
    assert color.verdict is Verdict.ENCODED
    cells = {cell.subject: cell for cell in demo.overview.overview}
    assert cells["color"].question == "lies together"


def test_its_directions_steer_and_are_taken_out(demo: vlmlens.Run, vlm: ModelAdapter) -> None:
    """The files work as `add` and `project-out`, and say what they were learned from."""
    folder = demo.path / "results"
    directions = rows_of(demo.results["concepts"].table("concepts-directions"))
    (red,) = [
        row for row in directions
        if (row["column"], row["set"], row["concept"]) == ("llm.block.5/last", "color", "red")
    ]  # fmt: skip
    file = folder / red["file"]
    found = open_direction(str(file))
    assert found.aim.towards == found.aim.answer == "red"
    assert found.norm == pytest.approx(red["distance"])
    assert found.origin["model"]["digest"] == vlm.describe()["digest"]
    assert len(found.groups) == 100
    samples = [s for s in demo.samples if s.task == "color" and s.label != "red"][:6]
    batch = vlm.encode(samples)
    site = "llm.block.5"
    plain = vlm.trace(batch, [site], logits="last")
    added = vlm.trace(batch, [site], logits="last", edits=[f"{site}/last = add({file}, 3)"])
    token = vlm.answer_ids("red")[0]
    assert (added.logits[:, token] > plain.logits[:, token] + 1).all()
    removed = vlm.trace(batch, [site], edits=[f"{site}/last = project-out({file})"])
    vector = torch.from_numpy(found.vector)
    along = removed.select(f"{site}/last").float() @ vector / vector.norm()
    assert along.abs().max() < 1e-2


# ------------------------------------------------------------------ planted rows


def test_what_is_planted_is_found_where_it_is(made: tuple[Result, Path]) -> None:
    rows = {row["column"]: row for row in rows_of(made[0].table("concepts-columns"))}
    assert rows[NEAR]["verdict"] == "encoded"
    assert rows[FAR]["verdict"] != "encoded"
    assert rows[NEAR]["knn"] == 1
    assert rows[NEAR]["knn_low"] < 1  # exact: resampling alone would claim certainty
    assert rows[NEAR]["majority"] == pytest.approx(1 / 3)
    assert rows[NEAR]["cosine_within"] > 0.6
    assert rows[NEAR]["cosine_between"] < -0.3
    assert rows[NEAR]["knn_p_corrected"] == pytest.approx(2 * rows[NEAR]["knn_p"])


def test_means_of_far_concepts_point_apart(made: tuple[Result, Path]) -> None:
    """Three corners of a simplex, less their middle: all cosines are -1/2."""
    alike = [row for row in rows_of(made[0].table("concepts-alike")) if row["column"] == NEAR]
    assert [row["cosine"] for row in alike] == pytest.approx([-0.5] * 3, abs=0.1)


def test_a_picture_of_every_column_begins_with_the_best(made: tuple[Result, Path]) -> None:
    (points,) = [figure for figure in made[0].figures if figure.kind == "scatter"]
    assert [space.name for space in points.spaces] == [NEAR, FAR]
    assert points.x == ["a", "b", "c"]
    assert len(points.points) == 60
    first = np.array(points.spaces[0].places)
    kinds = np.array([point.kind for point in points.points])
    means = np.stack([first[kinds == kind].mean(0) for kind in range(3)])
    assert np.linalg.norm(means[0] - means[1]) > 4


@pytest.mark.parametrize("reference", ["others", "all"])
def test_on_its_direction_a_concept_is_at_1_and_the_others_at_0(
    tmp_path: Path, reference: str
) -> None:
    samples, columns = planted()
    result = run(samples, columns, tmp_path, reference=reference, directions="best")
    assert len(list(tmp_path.glob("concepts.*.safetensors"))) == 3
    (row,) = [r for r in rows_of(result.table("concepts-directions")) if r["file"] and
              r["concept"] == "b"]  # fmt: skip
    direction = open_direction(str(tmp_path / row["file"]))
    places = coordinates(columns[NEAR], direction)
    own = np.array([sample.label == "b" for sample in samples])
    assert places[own].mean() == pytest.approx(1, abs=1e-4)
    against = ~own if reference == "others" else np.ones(len(own), bool)
    assert places[against].mean() == pytest.approx(0, abs=1e-4)


def test_new_samples_are_projected_on_directions_of_another_run(
    made: tuple[Result, Path],
) -> None:
    file = made[1] / "concepts.llm-block-1-last.t.b.safetensors"
    samples, columns = planted(seed=1)
    new = [Sample(f"n{i}", "?", label=s.label, group=f"n{i // 2}", task="t")
           for i, s in enumerate(samples)]  # fmt: skip
    mixed = [*new[:50], *samples[50:]]
    result = run(mixed, columns, onto=str(file))
    rows = rows_of(result.table("concepts-projected"))
    assert [row["learned_from"] for row in rows] == [False] * 50 + [True] * 10
    with_it = [row["projection"] for row in rows if row["has_it"] and not row["learned_from"]]
    assert np.mean(with_it) == pytest.approx(1, abs=0.15)
    (finding,) = [each for each in result.findings if "direction" in each.text]
    assert finding.values["auc"] == 1
    assert finding.values["learned_from"] == 10
    unlabelled = [Sample(s.id, "?") for s in samples]
    only = run(unlabelled, columns, onto=[str(file)])
    assert [table.name for table in only.tables] == ["concepts-projected"]
    assert "too few of the others are known" in only.findings[0].text
    assert "Samples are projected only: No two values of label" in only.warnings[0]
    with pytest.raises(MissingAnnotation):
        run(unlabelled, columns, onto=[str(file)], by="color")


def test_many_samples_are_drawn_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Directions and neighbours are of the drawn ones; components of all, as if in one piece."""
    samples, columns = planted()
    whole = run(samples, columns)
    few = run(samples, columns, samples=30)
    counted = rows_of(few.table("concepts-sets"))
    assert sum(row["used"] for row in counted) == 30
    assert sum(row["samples"] for row in counted) == 60
    shares = [
        [row["variance_1"] for row in rows_of(each.table("concepts-columns"))]
        for each in (whole, few)
    ]
    assert shares[1] == pytest.approx(shares[0], rel=1e-4)
    monkeypatch.setattr("vlmlens_plugins.analysis.concepts.pca.WIDEST", 3)
    narrow = rows_of(run(samples, columns, samples=30).table("concepts-columns"))
    assert narrow[0]["variance_1"] != pytest.approx(shares[0][0], rel=1e-4)


# ------------------------------------------------------------------ odd input


def test_columns_that_cannot_be_measured_are_left_out_with_a_reason() -> None:
    samples, columns = planted()
    spoilt = columns[FAR].copy()
    spoilt[3, 1] = np.inf
    same = np.ones((60, 4), np.float32)
    told: list[str] = []
    result = run(samples, {**columns, FAR: spoilt, "projector/mean": same}, told=told)
    assert sorted(told)[:2] == [
        f"{FAR} was not measured: it holds values that are not finite.",
        "The directions were not saved: there is no run folder.",
    ] or any("not finite" in each for each in told)
    assert any("projector/mean was not measured: it is the same" in each for each in told)
    assert result.table("concepts-columns").columns["column"] == [NEAR]
    assert list(result.warnings) == told
    with pytest.raises(CompositionError, match="No column can be measured"):
        run(samples, {FAR: spoilt})


def test_concepts_by_attributes_tasks_and_image_names() -> None:
    samples = [
        Sample(f"s{i}", "?", (f"images/{'dark_red' if i % 2 else 'blue'}_{i}.jpg",),
               task="one" if i < 8 else "two", attributes={"lit": i % 4 < 2})
        for i in range(16)
    ]  # fmt: skip
    names = [(each.name, each.concepts, len(each.samples)) for each in
             find_sets(["image-name", "lit", "lit@two"], samples)]  # fmt: skip
    assert names == [
        ("image-name", ("blue", "dark_red"), 16),
        ("lit", ("no", "yes"), 16),
        ("lit@two", ("no", "yes"), 8),
    ]
    asked = [Sample(s.id, "?", label=f"{i % 2}", task="lit", attributes=s.attributes)
             for i, s in enumerate(samples)]  # fmt: skip
    both = [each.name for each in find_sets(["label", "lit"], asked)]
    assert both == ["lit", "lit (attribute)"]
    assert [each.name for each in find_sets(["lit", "label"], asked)] == ["lit", "lit (labels)"]
    assert image_name(r"C:\images\red_7.png") == "red"
    assert image_name(None) is None


def test_rare_concepts_and_those_of_a_single_group_are_left_out() -> None:
    labels = ["a"] * 6 + ["b"] * 6 + ["c"] * 2 + ["d"] * 5
    groups = [*range(12), 12, 13, *[14] * 5]
    rows = np.random.default_rng(0).normal(size=(19, 5)).astype(np.float32)
    told: list[str] = []
    result = run(samples_of(labels, groups), {NEAR: rows}, told=told)
    assert "t: left out as rare, or in a single group: c, d." in told
    left = [row for row in rows_of(result.table("concepts-sets")) if row["samples"] is None]
    assert [row["concept"] for row in left] == ["c", "d"]


@pytest.mark.parametrize(
    ("labels", "options", "error", "said"),
    [
        (["a"] * 9, {}, MissingAnnotation, "No two values of label have 3 samples each"),
        ([None] * 9, {}, MissingAnnotation, "No two values of label"),
        (["a", "b"], {}, MissingAnnotation, "No two values of label"),
        (["a", "b"] * 5, {"by": "colour"}, MissingAnnotation, "No sample has an attribute 'colo"),
        (["a", "b"] * 5, {"by": "label@x"}, MissingAnnotation, "No sample has the task 'x'"),
        (["a", "b"] * 5, {"columns": ["llm.block.9"]}, CompositionError, "No stored column"),
        (["a", "b"] * 5, {"onto": "no.safetensors"}, DataNotFound, "There is no file"),
        (["a", "b"] * 5, {"components": 2}, SpecError, "components is an option of VLM-Lens'"),
        (["a", "b"] * 5, {"prototypes": "x"}, SpecError, "prototypes is an option of VLM-Lens'"),
    ],
)
def test_what_is_missing_is_said_before_any_work(
    labels: list[str | None], options: dict[str, Any], error: type[Exception], said: str
) -> None:
    rows = np.random.default_rng(0).normal(size=(len(labels), 4)).astype(np.float32)
    with pytest.raises(error, match=said):
        run(samples_of(labels), {NEAR: rows}, **options)


def test_directions_that_do_not_fit_are_refused(made: tuple[Result, Path], tmp_path: Path) -> None:
    file = made[1] / "concepts.llm-block-1-last.t.b.safetensors"
    samples, columns = planted()
    with pytest.raises(CompositionError, match=r"learned at llm.block.1/last, which is not stored"):
        run(samples, {FAR: columns[FAR]}, onto=str(file))
    with pytest.raises(CompositionError, match=r"has 6 numbers, the rows of llm.block.1/last have"):
        run(samples, {NEAR: columns[NEAR][:, :4]}, onto=str(file))
    found = open_direction(str(file))
    for zero in ("much", float("nan"), True):
        found.origin["zero"] = zero  # type: ignore[index]
        save_direction(tmp_path / "odd.safetensors", found)
        with pytest.raises(DataError, match=r"towards 'b' has the zero"):
            run(samples, columns, onto=str(tmp_path / "odd.safetensors"))


def test_six_samples_exclude_nothing() -> None:
    """No vote is right, and resampling alone would claim certainty."""
    rows = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    (row,) = rows_of(run(samples_of(["a", "b"] * 3), {NEAR: rows}, k=40).table("concepts-columns"))
    assert row["knn"] == row["knn_shuffled"] == 0
    assert row["verdict"] == "inconclusive"
    assert row["gap_high"] == pytest.approx(1 - 0.025 ** (1 / 6))


@pytest.mark.parametrize("rows", [np.zeros((12, 3)), np.ones((12, 1))])
def test_rows_that_say_nothing_have_vlm_lens_numbers_only(rows: Any) -> None:
    result = run(samples_of(["a", "b"] * 6), {NEAR: rows}, vlm_lens=True)
    assert [table.name for table in result.tables][:2] == [
        "concepts-vlm-lens", "concepts-vlm-lens-nearest",
    ]  # fmt: skip
    assert result.findings[0].text == "VLM-Lens' numbers are in the tables."


def test_names_that_are_alike_get_files_of_their_own(tmp_path: Path) -> None:
    samples = samples_of(["dark red", "dark-red", f"../x{'y' * 300}"] * 6)
    rows = np.random.default_rng(0).normal(size=(18, 4)).astype(np.float32)
    run(samples, {NEAR: rows}, tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    ends = ["dark-red-2", "dark-red", f"x{'y' * 59}"]
    assert names == [f"concepts.llm-block-1-last.t.{end}.safetensors" for end in ends]
    towards = {open_direction(str(tmp_path / name)).aim.towards for name in names}
    assert towards == {"dark red", "dark-red", f"../x{'y' * 300}"}
