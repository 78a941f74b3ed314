"""Removal: what is taken out of image rows, chosen on one half and reported on the other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.abc import AnalysisContext, EditedRows, ModelAdapter, Options, WorkUnit
from vlmlens.errors import MissingAnnotation, SpecError, VlmlensError
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens.sites import Axis, Site
from vlmlens.testing import check_work
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._sweeps import Cell, CellOptions, Change, Item, SweepOptions, sweep
from vlmlens_plugins.analysis._sweeps.operations import projected_out
from vlmlens_plugins.analysis._sweeps.swept import Swept
from vlmlens_plugins.analysis.captions.said import Caption
from vlmlens_plugins.analysis.removal import Removal
from vlmlens_plugins.analysis.removal.asked import halves, has, is_there, object_of
from vlmlens_plugins.analysis.removal.captions import Rewritten
from vlmlens_plugins.analysis.removal.checks import asked, planted_model
from vlmlens_plugins.analysis.removal.measured import Place, chosen
from vlmlens_plugins.analysis.removal.options import RemovalOptions
from vlmlens_plugins.analysis.removal.writing import EditedOptions, EditedTexts
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions
from vlmlens_plugins.edits.directions import ProjectOut, ProjectOutOptions
from vlmlens_plugins.object_names import read_names
from vlmlens_plugins.storage.memory import MemoryStore, forget


def remove(vlm: ModelAdapter, asked_for: Sequence[Sample], **options: Any) -> Result:
    forget("removal")
    analysis = Removal(RemovalOptions(**{"draws": 200, "strengths": [1.0], **options}))
    analysis.check(asked_for, [])
    analysis.check_model(vlm, asked_for, [])
    with MemoryStore.open("removal", mode="a", options=Options()) as store:
        return analysis.run(AnalysisContext(asked_for, store, lambda: vlm))


def rows_of(result: Result, name: str) -> list[dict[str, Any]]:
    table = result.table(name)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows()]


@pytest.fixture(scope="module")
def planted() -> Result:
    """The planted model: "k" is hallucinated by its image rows, "m" is really there."""
    return remove(planted_model("present"), asked("present"))


@pytest.fixture(scope="module")
def scenes() -> list[Sample]:
    """All questions about 24 scenes of the demo."""
    return DemoDataset("scenes", DemoOptions(scenes=24)).samples([])


# ---------------------------------------------------------------------- the edit


def test_nothing_of_a_direction_is_left_and_rows_against_it_stay(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    rows = torch.randn(40, 8, generator=rng)
    vector = torch.randn(8, generator=rng) * 3
    along = rows @ vector
    once = projected_out(rows, vector, 1.0)
    assert (once @ vector)[along > 0].abs().max() < 1e-5
    assert torch.equal(once[along <= 0], rows[along <= 0])
    assert 0 < int((along <= 0).sum()) < 40
    again = projected_out(once, vector, 1.0)
    assert (again - once).abs().max() < 1e-6
    twice = projected_out(rows, vector, 2.0) @ vector
    assert (twice + along)[along > 0].abs().max() < 1e-4  # mirrored
    np.save(tmp_path / "v.npy", vector.numpy())
    written = ProjectOutOptions(file=str(tmp_path / "v.npy"), strength=2.0, positive=True)
    site = Site("llm.block.0", "x", Axis.LLM)
    where = EditedRows(site, Selector.parse("all"), Sample("s", "?"), np.arange(40))
    assert torch.allclose(
        ProjectOut(written).change(rows, where), projected_out(rows, vector, 2.0), atol=1e-6
    )


def test_each_item_has_a_direction_of_its_own(vlm: ModelAdapter, scenes: list[Sample]) -> None:
    """In one batch, and as the intervention on files does it to each sample alone."""
    rng = np.random.default_rng(0)
    vectors = {name: rng.normal(size=vlm_width(vlm)).tolist() for name in "ab"}
    pair = [sample for sample in scenes if object_of(sample)][:2]
    items = [
        Item(sample, ("yes", "no"), directions={"own": name})
        for sample, name in zip(pair, "ab", strict=True)
    ]
    change = Change("llm.block.0/image = x", direction="own", strength=2.0, how="project-out")
    context = AnalysisContext(pair, None, lambda: vlm)  # type: ignore[arg-type]
    found = sweep(
        context, items, [Cell((change,))], SweepOptions(), CellOptions(directions=vectors)
    )
    for i, (sample, name) in enumerate(zip(pair, "ab", strict=True)):
        vector = np.array(vectors[name])

        def by_hand(rows: torch.Tensor, vector: Any = vector) -> torch.Tensor:
            told = rows.double().numpy().copy()
            for k in range(len(told)):
                along = sum(told[k] * vector) / sum(vector**2)
                told[k] -= 2 * along * vector if along > 0 else 0
            return torch.from_numpy(told).to(rows.dtype)

        with vlm.edited({"llm.block.0/image": by_hand}):
            logits = vlm.forward(vlm.encode([sample]), logits="last").logits
        assert logits is not None
        yes, no = (logits[0, vlm.answer_ids(answer)[0]] for answer in ("yes", "no"))
        assert found.difference()[0, i] == pytest.approx(float(yes - no), abs=2e-4)
        assert abs(found.difference()[0, i] - found.difference("base")[0, i]) > 0.01


def vlm_width(vlm: ModelAdapter) -> int:
    width = vlm.sites.width(vlm.sites.resolve("llm.block.0")[0], vlm.widths())
    assert width is not None
    return width


# ---------------------------------------------------------------------- planted


def test_a_planted_hallucination_goes_and_what_is_there_stays(planted: Result) -> None:
    finding = planted.findings[0]
    assert finding.verdict == Verdict.DIFFERS
    values = finding.values
    assert (values["absent_before"], values["absent"]) == (1, 0)
    assert (values["present_before"], values["present"]) == (1, 1)
    assert values["site"] == "llm.block.0"
    by_kind = {row["what"]: row for row in rows_of(planted, "removal-reported")}
    assert by_kind["random directions"]["absent_yes"] == 1
    assert abs(by_kind["random directions"]["gain"]) < 0.1
    assert by_kind["other objects' directions"]["absent_yes"] == 1
    assert by_kind["other objects' directions"]["present_yes"] == 0


def test_the_numbers_are_those_of_passes_by_hand(planted: Result) -> None:
    """Without sweeps: words read by a trace, rows changed by a function, one sample at a time."""
    vlm, samples = planted_model("present"), {sample.id: sample for sample in asked("present")}
    source = str(planted.findings[0].values["source"])
    for row in rows_of(planted, "removal-samples")[::5]:
        word = Sample("w", row["object"])
        state = vlm.trace(vlm.encode([word]), [source]).select(f"{source}/question[-1]")
        t = torch.as_tensor(state).float().flatten()

        def without(rows: torch.Tensor, t: torch.Tensor = t) -> torch.Tensor:
            return torch.stack([x - t * max(float(x @ t), 0.0) / float(t @ t) for x in rows])

        prefix = vlm.answer_ids("yes")[:1]
        batch = vlm.encode([samples[row["sample"]]], answers=[prefix])
        for name, edits in (("_before", {}), ("", {"llm.block.0/image": without})):
            with vlm.edited(edits):
                logits = vlm.forward(batch, logits="last").logits
            assert logits is not None
            yes, no = (logits[0, vlm.answer_ids(answer)[1]] for answer in ("yes", "no"))
            assert row[f"difference{name}"] == pytest.approx(float(yes - no), abs=1e-4)


def test_the_direction_of_another_object_is_caught() -> None:
    """The mistake: the words of the two objects are exchanged."""
    other = {"k": "m", "m": "k"}
    wrong = [
        replace(sample, attributes={"object": other[str(sample.attributes["object"])]})
        for sample in asked("present")
    ]
    finding, logits = remove(planted_model("present"), wrong).findings[:2]
    assert finding.verdict == Verdict.NO_DIFFERENCE
    assert (finding.values["absent"], finding.values["present"]) == (1, 0)
    assert float(str(logits.values["gain"])) < 0


def test_words_are_read_without_the_edits_of_a_run(planted: Result) -> None:
    """Edits of image rows find none in a word; for the questions they hold."""
    vlm = planted_model("present")
    with vlm.edited(["projector/image = zero"]):
        edited = remove(vlm, asked("present"))
    assert planted.findings[0].values["absent_before"] == 1
    assert edited.findings[0].values["absent_before"] == 0


# ---------------------------------------------------------------------- captions


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("names") / "names.txt"
    path.write_text("k\nm\nw\n")
    return str(path)


def captioned(there: str) -> list[Sample]:
    about = {"objects": json.dumps([there])}
    return [
        replace(sample, prompt="What is it?", label=None, choices=(), attributes=about)
        for sample in asked("present")[:24]
    ]


def test_a_planted_hallucination_is_no_longer_named(named: str) -> None:
    """The model writes "k", which its image rows have; without it "m", which is there."""
    options = {"measure": "captions", "objects": named, "max_new_tokens": 1}
    finding, chair = remove(planted_model("present"), captioned("m"), **options).findings
    assert finding.verdict == Verdict.DIFFERS
    assert (finding.values["hallucinated"], finding.values["gone"]) == (12, 1)
    assert finding.values["new"] == 0
    assert (chair.values["chair_i_before"], chair.values["chair_i_after"]) == (1, 0)
    assert (chair.values["recall_before"], chair.values["recall_after"]) == (0, 1)


def test_true_objects_that_go_count_against_the_edit(named: str) -> None:
    """Counted by hand: "k" is wrong and goes, "m" is right and goes, too, and "w" is new."""
    names = read_names(named)
    sample = captioned("m")[0]
    before = Caption(sample, "k k m", frozenset("m"), names)
    after = Caption(sample, "w", frozenset("m"), names)
    found = Rewritten([before], [after])
    assert found.counts.tolist() == [[1, 1, 1, 1, 1]]
    assert found.gains.tolist() == [-1]


def test_without_hallucinations_nothing_is_claimed(named: str) -> None:
    options = {"measure": "captions", "objects": named, "max_new_tokens": 1}
    result = remove(planted_model("present"), captioned("k"), **options)
    assert [each.verdict for each in result.findings] == [Verdict.INCONCLUSIVE]
    assert "0 of 12 named objects are hallucinated" in result.findings[0].text


def test_captions_of_few_pictures_claim_nothing(named: str) -> None:
    samples = [replace(one, group=f"g{i % 4}") for i, one in enumerate(captioned("m"))]
    options = {"measure": "captions", "objects": named, "max_new_tokens": 1}
    finding, _ = remove(planted_model("present"), samples, **options).findings
    assert (finding.values["gone"], finding.verdict) == (1, Verdict.INCONCLUSIVE)


def test_directions_are_taken_out_one_after_the_other(
    vlm: ModelAdapter, scenes: list[Sample]
) -> None:
    """In one batch with a sample that has fewer; also alone, in another order and process."""
    rng = np.random.default_rng(1)
    vectors = {name: rng.normal(size=vlm_width(vlm)).tolist() for name in "ab"}
    work = EditedTexts(EditedOptions(directions=vectors, max_new_tokens=3))
    edit = {"site": "llm.block.0", "rows": "image", "how": "add", "strength": 9.0}
    asked_for = [sample for sample in scenes if sample.task == "color"][:3]
    taken = [["a", "b"], ["b"], []]
    units = [
        WorkUnit(sample, {"edit": edit, "directions": names})
        for sample, names in zip(asked_for, taken, strict=True)
    ]
    check_work(vlm, work, units)
    texts = work.run(vlm, units)
    for sample, names, text in zip(asked_for, taken, texts, strict=True):
        total = sum((9 * np.array(vectors[name]) for name in names), np.zeros(vlm_width(vlm)))
        added = torch.from_numpy(total).float()
        with vlm.edited({"llm.block.0/image": lambda rows, added=added: rows + added}):
            (made,) = vlm.generate(vlm.encode([sample]), max_new_tokens=3)
        assert text == made.text


# ---------------------------------------------------------------------- the demo


def test_words_do_not_remove_objects_from_the_demo(vlm: ModelAdapter, scenes: list[Sample]) -> None:
    """Honest: what its words do, any other object's word does, too."""
    found = remove(
        vlm, scenes, sites=["llm.block.1"], text_sites=["llm.block.1"], samples=3, strengths=[2]
    )
    finding, logits, others = found.findings
    assert finding.verdict == Verdict.INCONCLUSIVE
    assert float(str(finding.values["p"])) > 0.01
    assert logits.values["gain"] == pytest.approx(logits.values["other_gain"], abs=0.05)
    assert abs(float(str(logits.values["gain"]))) < 0.5
    assert others.subject == "other questions"
    assert len(rows_of(found, "removal-samples")) == 6


def test_steering_subtracts_what_pictures_with_the_object_have_more(
    vlm: ModelAdapter, scenes: list[Sample]
) -> None:
    """By hand: means of traced rows, and passes in which the difference is subtracted."""
    samples = []
    for i, sample in enumerate(one for one in scenes if object_of(one)):
        there = {name.split()[1] for name in json.loads(str(sample.attributes["objects"]))}
        name = ("cube", "sphere", "cone")[i % 3]
        about = {"object": name, "objects": json.dumps(sorted(there))}
        label = "yes" if name in there else "no"
        prompt = f"Is there a red {name}?"
        samples.append(replace(sample, label=label, prompt=prompt, attributes=about))
    site, by_id = "llm.block.0", {sample.id: sample for sample in samples}
    found = remove(vlm, samples, method="steer", sites=[site], strengths=[0.5], samples=4)
    reported = {row["sample"]: row for row in rows_of(found, "removal-samples")}
    shown = {one.id for one in halves(samples, 4, 0).shown}
    first = [sample for sample in samples if sample.id in shown]
    traced = [vlm.trace(vlm.encode([one]), [site]).select(f"{site}/image") for one in first]
    means = np.stack([one[0].float().numpy().mean(0) for one in traced])
    for row in list(reported.values())[:4]:
        there = [row["object"] in json.loads(str(one.attributes["objects"])) for one in first]
        vector = means[there].mean(0) - means[np.logical_not(there)].mean(0)

        def less(rows: torch.Tensor, vector: Any = vector) -> torch.Tensor:
            return rows - 0.5 * torch.from_numpy(vector)

        with vlm.edited({f"{site}/image": less}):
            logits = vlm.forward(vlm.encode([by_id[row["sample"]]]), logits="last").logits
        assert logits is not None
        yes, no = (float(logits[0, vlm.answer_ids(answer)[0]]) for answer in ("yes", "no"))
        assert row["difference"] == pytest.approx(yes - no, abs=1e-3)


# ---------------------------------------------------------------------- halves


def test_no_group_stands_in_both_halves_and_both_have_both_sides(scenes: list[Sample]) -> None:
    seen = set()
    for seed in range(10):
        found = halves(scenes, 3, seed)
        first, second = ({item.group for item in half} for half in (found.choose, found.report))
        assert not first & second
        for half in (found.choose, found.report):
            assert [is_there(item.target) for item in half].count(True) == 3
            assert all(item.answers == ("yes", "no") for item in half)
        assert {item.group for item, _ in found.untouched} <= second
        assert not {sample.split_group for sample in found.shown} & second
        seen.add(frozenset(first))
    assert len(seen) > 1


def test_the_edit_is_chosen_by_answers_and_then_by_logits() -> None:
    """From made-up sweeps of two questions, the first about an object that is there."""
    items = [
        Item(Sample(f"s{i}", "?", label=label), ("yes", "no"), group=f"g{i}")
        for i, label in enumerate(("yes", "no"))
    ]

    def one(difference: float) -> dict[str, Any]:
        return {"edited": {"logit": [difference, 0.0]}, "base": {"logit": [1.0, 0.0]}}

    tries = {"harm": (-1, -5), "nothing": (1, 1), "goes": (0.5, -0.5), "goes further": (2, -1)}
    cells = [Cell((), {"site": name}) for name in tries]
    results = [[one(value) for value in values] for values in tries.values()]
    swept = Swept(cells, items, [[0, 1]] * 2, results)
    places = [Place(name, name, 1.0) for name in tries]
    assert chosen(places, swept, seed=0, draws=100) == 3
    assert chosen(places[:3], swept.take([0, 1, 2]), seed=0, draws=100) == 2
    assert chosen(places[:2], swept.take([0, 1]), seed=0, draws=100) == 0


def test_what_a_picture_has_is_known_from_its_objects_or_its_question() -> None:
    asked_for = {"object": "cup", "objects": json.dumps(["dog", "red cup"])}
    sample = Sample("s", "?", label="No", attributes=asked_for)
    assert object_of(sample) == "cup"
    assert [has(sample, name) for name in ("cup", "dog", "cat")] == [False, True, False]
    assert has(Sample("s", "?"), "dog") is None
    assert object_of(Sample("s", "?", label="three", attributes={"object": "cup"})) == ""


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"rows": "image.mean"}, SpecError),
        ({"method": "steer", "text_sites": "llm.block.0"}, SpecError),
        ({"sites": "vision.block.0"}, VlmlensError),
        ({"sites": "llm.block.77"}, VlmlensError),
        ({"max_passes": 2}, SpecError),
        ({"objects": "coco.txt"}, SpecError),
    ],
)
def test_what_cannot_be_done_is_said_before_the_model_runs(
    vlm: ModelAdapter, scenes: list[Sample], options: dict[str, Any], error: type[Exception]
) -> None:
    analysis = Removal(RemovalOptions(**options))

    def checked() -> None:
        analysis.check(scenes, [])
        analysis.check_model(vlm, scenes, [])

    with pytest.raises(error):
        checked()


def test_questions_without_an_object_are_refused(scenes: list[Sample]) -> None:
    bare = [replace(sample, attributes={}) for sample in scenes]
    with pytest.raises(MissingAnnotation, match="attribute object"):
        Removal(RemovalOptions()).check(bare, [])
