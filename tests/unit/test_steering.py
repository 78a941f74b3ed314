"""Steering: directions are learnt, added, measured, saved and read again."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from vlmlens.abc import AnalysisContext, ModelAdapter, Options
from vlmlens.errors import (
    CompositionError,
    DataError,
    DataNotFound,
    MissingAnnotation,
    SpecError,
    VlmlensError,
)
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.steering import Steering
from vlmlens_plugins.analysis.steering.aims import chosen_aim, mark_of, split
from vlmlens_plugins.analysis.steering.files import open_direction, save_direction
from vlmlens_plugins.analysis.steering.learning import learned, matched, random_direction
from vlmlens_plugins.analysis.steering.measuring import new_observation_p
from vlmlens_plugins.analysis.steering.options import SteeringOptions
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions
from vlmlens_plugins.storage.memory import MemoryStore, forget

SITE = "llm.block.3"
FILE = "steering.llm-block-3.last.purple.safetensors"


@pytest.fixture(scope="module")
def questions() -> list[Sample]:
    """Color and shape of 40 scenes."""
    found = DemoDataset("scenes", DemoOptions(scenes=40)).samples([])
    return [sample for sample in found if sample.task in ("color", "shape")]


def steer(
    vlm: ModelAdapter, samples: Sequence[Sample], folder: Path | None, **options: Any
) -> Result:
    forget("steering")
    analysis = Steering(SteeringOptions(**{"samples": 12, "draws": 200, **options}))
    analysis.check(samples, [])
    analysis.check_model(vlm, samples, [])
    with MemoryStore.open("steering", mode="a", options=Options()) as store:
        context = AnalysisContext(samples, store, cache(lambda: vlm), folder=folder)
        return analysis.run(context)


@pytest.fixture(scope="module")
def steered(
    vlm: ModelAdapter, questions: list[Sample], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Result, Path]:
    """The demo, steered towards purple at one site, and the folder with the direction."""
    folder = tmp_path_factory.mktemp("steered")
    options = {"sites": [SITE], "towards": "purple", "strengths": [0, 1, 1.5]}
    return steer(vlm, questions, folder, **options), folder


# ---------------------------------------------------------------------- learning


def clouds(rng: np.random.Generator, shift: np.ndarray[Any, Any], n: int = 2000) -> Any:
    positive = np.arange(2 * n) % 2 == 0
    return rng.normal(size=(2 * n, len(shift))) + np.outer(positive, shift), positive


@pytest.mark.parametrize("method", ["mean-difference", "probe", "pca"])
def test_the_shift_between_two_clouds_is_learnt(method: Any) -> None:
    rng = np.random.default_rng(0)
    shift = rng.normal(size=16)
    rows, positive = clouds(rng, shift)
    found = learned(rows, positive, method, c=1.0, pairs=[""] * len(rows), rng=rng)
    difference = rows[positive].mean(0) - rows[~positive].mean(0)
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(difference))
    assert found @ shift / np.linalg.norm(found) / np.linalg.norm(shift) > 0.99
    if method == "mean-difference":
        # each coordinate has the standard error sqrt(2 / 2000)
        assert np.abs(found - shift).max() < 4.5 * np.sqrt(2 / 2000)


def test_a_component_points_to_the_positive_side() -> None:
    rng = np.random.default_rng(1)
    for sign in (1, -1):
        rows, positive = clouds(rng, sign * 5 * np.eye(4)[0], n=50)
        found = learned(rows, positive, "pca", c=1.0, pairs=[""] * 100, rng=rng)
        assert np.sign(found[0]) == sign


def test_pairs_are_matched_by_name_and_else_at_random() -> None:
    positive = np.array([True, False, False, True, False])
    rng = np.random.default_rng(0)
    assert matched(positive, ["a", "a", "b", "b", "c"], rng) == [(0, 1), (3, 2)]
    found = matched(positive, [""] * 5, rng)
    assert {one for one, _ in found} == {0, 3}
    assert {other for _, other in found} == {1, 2, 4}


def test_random_directions_have_equal_length_and_no_preference() -> None:
    rng = np.random.default_rng(0)
    drawn = np.stack([random_direction(3, 2.5, rng) for _ in range(4000)])
    assert np.linalg.norm(drawn, axis=1) == pytest.approx(2.5)
    assert np.abs(drawn.mean(0)).max() < 4.5 * 2.5 / np.sqrt(3 * 4000)


def test_a_change_like_those_of_random_directions_is_no_finding() -> None:
    """The p-value of one more draw is even: as often below 0.1 as a tenth of the time."""
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(3000, 6, 1))
    p = np.array([new_observation_p(one[0], one[1:]) for one in drawn])
    assert np.mean(p < 0.1) == pytest.approx(0.1, abs=4.5 * np.sqrt(0.09 / 3000))


# ---------------------------------------------------------------------- samples


def made(rows: Sequence[tuple[str, str, str]]) -> list[Sample]:
    """Samples of (group, task, label)."""
    return [
        Sample(f"s{i}", "?", label=label, group=group, task=task)
        for i, (group, task, label) in enumerate(rows)
    ]


def test_nothing_is_tested_on_that_was_learnt_from() -> None:
    """Also where groups hold several samples of several tasks, whatever the seed."""
    rows = [(f"g{i // 3}", "ab"[i % 2], "xyz"[i % 3 * (i // 7) % 3]) for i in range(120)]
    samples, options = made(rows), SteeringOptions(towards="y", task="a")
    halves = set()
    for seed in range(20):
        parts = split(samples, chosen_aim(samples, options), options, seed)
        learnt = {sample.split_group for sample in parts.learn}
        tested = {item.group for item in (*parts.wanted, *parts.untouched)}
        assert not learnt & tested
        assert any(parts.positive)
        assert {item.task for item in parts.wanted} == {"a"}
        assert {item.task for item in parts.untouched} == {"b"}
        assert all(item.answers == ("y", item.target.label) for item in parts.wanted)
        halves.add(frozenset(learnt))
    assert len(halves) > 10


def test_groups_of_a_saved_direction_are_not_tested_on() -> None:
    samples = made([(f"g{i}", "a", "xy"[i % 2]) for i in range(12)])
    options = SteeringOptions(towards="y")
    known = [mark_of(f"g{i}") for i in range(8)]
    parts = split(samples, chosen_aim(samples, options), options, 0, known=known)
    assert {item.group for item in parts.wanted} == {"g8", "g10"}


def test_the_default_is_the_most_frequent_corrupted_answer() -> None:
    pairs = DemoDataset("pairs", DemoOptions(pairs=12)).samples([])
    labels = [s.label for s in pairs if s.attributes["role"] == "corrupted"]
    aim = chosen_aim(pairs, SteeringOptions())
    assert labels.count(aim.towards) == max(map(labels.count, labels))


def test_yes_and_numbers_are_what_yaml_makes_of_them() -> None:
    samples = made([(f"g{i}", "a", ("yes", "no", "3")[i % 3]) for i in range(12)])
    for given, text in ((True, "yes"), (False, "no"), (3, "3")):
        options: dict[str, Any] = {"towards": given, "away": "no" if given is True else []}
        assert chosen_aim(samples, SteeringOptions(**options)).towards == text
    truths = [replace(s, attributes={"seen": s.label == "yes"}) for s in samples]
    assert (
        chosen_aim(truths, SteeringOptions(**{"attribute": "seen", "towards": True})).towards
        == "yes"
    )


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([("g", "a", "x")] * 8, {}, "with another one"),
        ([("g", "a", "x")], {}, "with another one"),
        ([(f"g{i}", "a", "xy"[i % 2]) for i in range(9)], {"towards": "q"}, "'q' and with another"),
        ([(f"g{i}", "a", "xy"[i == 3]) for i in range(9)], {"towards": "y"}, "1 samples of the"),
        ([("g", "a", "xy"[i % 2]) for i in range(9)], {}, "left to test on"),
        ([(f"g{i}", "a", "xy"[i % 2]) for i in range(9)], {"answer": "q"}, "has the answer 'q'"),
        ([(f"g{i}", "a", "xy"[i % 2]) for i in range(9)], {"attribute": "q"}, "the q and with"),
    ],
)
def test_samples_that_do_not_suffice_are_refused(
    rows: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(MissingAnnotation, match=message) as raised:
        Steering(SteeringOptions(**options)).check(made(rows), [])
    assert raised.value.hint


def test_options_that_mean_nothing_are_refused() -> None:
    samples = made([(f"g{i}", "a", "xy"[i % 2]) for i in range(9)])
    for options, subject in (({"rows": "image.mean"}, "rows"), ({"task": "b"}, "task")):
        with pytest.raises(SpecError) as raised:
            Steering(SteeringOptions(**options)).check(samples, [])
        assert raised.value.subject == subject


# ---------------------------------------------------------------------- the demo model


def test_the_demo_is_steered_to_purple(steered: tuple[Result, Path]) -> None:
    result = steered[0]
    main = result.findings[0]
    assert main.verdict is Verdict.DIFFERS
    assert main.values["moved"] > 0.4
    assert main.values["random_moved"] == 0
    assert main.values["untouched_altered"] < 0.2
    assert "untouched questions" in main.text
    table = result.table("steering-strengths").columns
    assert table["strength"] == [0.0, 1.0, 1.5]
    assert table["moved"][2] >= table["moved"][1]
    assert table["change"][0] == table["kl"][0] == table["untouched_kl"][0] == 0.0
    assert result.overview[0].text == SITE


def test_strength_zero_is_bit_equal_to_no_edit(
    vlm: ModelAdapter, questions: list[Sample], steered: tuple[Result, Path]
) -> None:
    batch = vlm.encode(questions[:3])
    plain = vlm.forward(batch, logits="last").logits
    with vlm.edited([replace(_edit(vlm, steered[1], 0), strict=False)]):
        assert torch.equal(vlm.forward(batch, logits="last").logits, plain)


def test_the_change_is_that_of_a_plain_hook(
    vlm: ModelAdapter, questions: list[Sample], steered: tuple[Result, Path]
) -> None:
    """The mean change at strength 1.5, with torch alone, one sample at a time."""
    result, folder = steered
    vector = torch.from_numpy(open_direction(str(folder / FILE)).vector)
    samples = {sample.id: sample for sample in questions}
    table = result.table("steering-samples").columns
    ids = [i for i, own in zip(table["sample"], table["steered"], strict=True) if own]
    module = vlm.module.get_submodule(vlm.sites.canonical[SITE].path)

    def add(module: Any, args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        hidden = hidden.clone()
        hidden[:, -1] += 1.5 * vector
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    changes = []
    for sample in (samples[str(i)] for i in ids):
        batch = vlm.encode([sample])
        tokens = [vlm.answer_ids(answer)[0] for answer in ("purple", str(sample.label))]
        before = vlm.forward(batch, logits="last").logits[0, tokens]
        handle = module.register_forward_hook(add)
        after = vlm.forward(batch, logits="last").logits[0, tokens]
        handle.remove()
        changes.append(float((after - before)[0] - (after - before)[1]))
    strengths = result.table("steering-strengths").columns
    assert np.mean(changes) == pytest.approx(strengths["change"][2], abs=1e-4)


def test_the_direction_is_the_difference_of_means_of_its_half(
    vlm: ModelAdapter, questions: list[Sample], steered: tuple[Result, Path]
) -> None:
    saved = open_direction(str(steered[1] / FILE))
    learnt = [s for s in questions if s.task == "color" and mark_of(s.split_group) in saved.groups]
    rows = vlm.trace(vlm.encode(learnt), [SITE]).select(f"{SITE}/last").double().numpy()
    positive = np.array([sample.label == "purple" for sample in learnt])
    expected = rows[positive].mean(0) - rows[~positive].mean(0)
    assert saved.vector == pytest.approx(expected, abs=1e-4)
    assert saved.norm == pytest.approx(np.linalg.norm(expected), rel=1e-5)
    assert saved.origin["model"]["digest"] == vlm.describe()["digest"]
    tested = set(steered[0].table("steering-samples").columns["sample"])
    assert not tested & {sample.id for sample in learnt}


def test_a_saved_direction_is_an_edit_as_it_is(
    vlm: ModelAdapter, questions: list[Sample], steered: tuple[Result, Path]
) -> None:
    vector = torch.from_numpy(open_direction(str(steered[1] / FILE)).vector)
    batch = vlm.encode(questions[:2])
    with vlm.edited([_edit(vlm, steered[1], 2)]):
        by_file = vlm.forward(batch, logits="last").logits
    with vlm.edited({f"{SITE}/last": lambda rows: rows + 2 * vector}):
        assert torch.equal(vlm.forward(batch, logits="last").logits, by_file)


def test_a_saved_direction_is_tested_again(
    vlm: ModelAdapter, questions: list[Sample], steered: tuple[Result, Path]
) -> None:
    """It gives the same numbers, on samples that it was not learnt from."""
    options = {"direction": str(steered[1] / FILE), "strengths": [0, 1, 1.5]}
    again = steer(vlm, questions, None, **options)
    for name in ("change", "moved", "kl", "untouched_altered"):
        first = steered[0].table("steering-strengths").columns[name]
        assert again.table("steering-strengths").columns[name] == pytest.approx(first, abs=1e-4)
    assert any("read from a file" in note and "'purple'" in note for note in again.notes)
    assert "shuffled_change" not in again.table("steering-sites").columns


def test_a_direction_that_means_nothing_does_not_steer(
    vlm: ModelAdapter, questions: list[Sample], tmp_path: Path
) -> None:
    """Labels at random: the model's answers stay what they are."""
    rng = np.random.default_rng(3)
    colors = rng.permutation([sample.label for sample in questions if sample.task == "color"])
    asked = [
        replace(sample, label=str(colors[i // 2]))
        for i, sample in enumerate(questions)
        if sample.task == "color"
    ]
    found = steer(vlm, asked, tmp_path, sites=[SITE], towards="purple", strengths=[1])
    assert found.findings[0].verdict is Verdict.NO_DIFFERENCE
    assert "at no site" in found.findings[0].text
    assert any("no questions of other tasks" in note for note in found.notes)


def test_too_many_passes_are_refused_before_the_first(
    vlm: ModelAdapter, questions: list[Sample]
) -> None:
    with pytest.raises(SpecError, match=r"Steering needs .* passes") as raised:
        steer(vlm, questions, None, max_passes=20)
    assert raised.value.subject == "max_passes"


def _edit(vlm: ModelAdapter, folder: Path, strength: float) -> Any:
    from vlmlens.registry import Registry

    return Registry.default().edit(f"{SITE}/last = add({folder / FILE}, {strength})")


# ---------------------------------------------------------------------- files


def written(path: Path, vector: Any, **about: Any) -> str:
    known = {
        "site": SITE, "rows": "last", "method": "pca", "task": "color", "attribute": "label",
        "towards": "purple", "away": [], "answer": "purple", "groups": [], "origin": {},
    }  # fmt: skip
    metadata = {"vlmlens direction 1": json.dumps({**known, **about})}
    path.write_bytes(save({"direction": vector}, metadata=metadata))
    return str(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    vector = np.ones(8, np.float32)
    path = tmp_path / "x.safetensors"
    huge = (1 << 60).to_bytes(8, "little") + b"{}"
    for content in (save({"direction": vector}), pickle.dumps(vector), b"", huge, b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(DataError, match="no direction that the analysis") as raised:
            open_direction(str(path))
        assert "add(FILE)" in raised.value.hint
    for wrong in (
        np.full(8, np.nan, np.float32),
        np.zeros(8, np.float32),
        np.ones((2, 4), np.float32),
        np.ones(8),
    ):
        with pytest.raises(DataError):
            open_direction(written(path, wrong))
    for about in ({"rows": "no such"}, {"site": 3}, {"groups": None}, {"origin": []}):
        with pytest.raises(DataError):
            open_direction(written(path, vector, **about))
    saved = open_direction(written(path, vector, towards="b\u00fc"))
    assert saved.norm == pytest.approx(np.sqrt(8))
    for name in ("one", "two"):
        save_direction(tmp_path / name, saved)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert open_direction(str(tmp_path / "one")).aim == saved.aim
    with pytest.raises(DataNotFound):
        open_direction(str(tmp_path / "nothing.safetensors"))


def test_a_direction_of_another_width_or_site_is_refused(
    vlm: ModelAdapter, questions: list[Sample], tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    narrow = written(path, np.ones(8, np.float32))
    with pytest.raises(CompositionError, match="has 8 numbers"):
        steer(vlm, questions, None, direction=narrow)
    width = vlm.widths()[vlm.sites.canonical[SITE].path]
    for site in ("llm.block.*", "llm.block.99"):
        elsewhere = written(path, np.ones(width, np.float32), site=site)
        with pytest.raises(VlmlensError):
            steer(vlm, questions, None, direction=elsewhere)
    with pytest.raises(SpecError, match="method is given together"):
        steer(vlm, questions, None, direction=elsewhere, method="pca")
