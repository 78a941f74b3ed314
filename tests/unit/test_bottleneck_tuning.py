"""Tuning in `bottleneck`: who is trained on, what is computed of trainings, what is said."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmlens.abc import AnalysisContext, ModelAdapter
from vlmlens.errors import MissingAnnotation, SpecError
from vlmlens.results import Verdict
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._tuning.dividing import Divided
from vlmlens_plugins.analysis.bottleneck import Bottleneck
from vlmlens_plugins.analysis.bottleneck.options import BottleneckOptions
from vlmlens_plugins.analysis.bottleneck.tuning import report, trained
from vlmlens_plugins.analysis.bottleneck.tuning.closing import Closing, Direct, closing
from vlmlens_plugins.analysis.bottleneck.tuning.snapshot import Snapshot, read_off
from vlmlens_plugins.analysis.bottleneck.tuning.trained import Training, Trainings
from vlmlens_plugins.analysis.bottleneck.tuning.tuned import divided_of
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions

TOWER = "vision tower"


def sample(i: int, *, group: str | None = None, prompt: str = "Which?") -> Sample:
    return Sample(
        f"s{i}", prompt, label="ab"[i % 2], choices=("a", "b"), task="t", group=group or f"g{i}"
    )


# ------------------------------------------------------------------------ who is trained on


def test_no_group_is_on_two_sides_and_a_seed_divides_alike() -> None:
    samples = [sample(i, group=f"g{i // 3}") for i in range(120)]
    options = BottleneckOptions(tested=0.5, labelled=1000)
    parts = divided_of(samples, options, 0)
    sides = [{one.group for one in part} for part in (parts.train, parts.held, parts.test)]
    assert not any(sides[i] & sides[j] for i, j in ((0, 1), (0, 2), (1, 2)))
    assert (len(parts.train), len(parts.held), len(parts.test)) == (48, 12, 60)
    assert divided_of(samples, options, 0) == parts
    assert divided_of(samples, options, 1) != parts


def test_at_most_so_many_are_labelled_and_tested() -> None:
    options = BottleneckOptions(labelled=20, tests=30)
    parts = divided_of([sample(i) for i in range(120)], options, 0)
    assert (len(parts.train), len(parts.held), len(parts.test)) == (16, 4, 30)


@pytest.mark.parametrize(
    "samples",
    [
        [sample(i) for i in range(6)],
        [sample(i, group="one") for i in range(100)],
        [replace(sample(i), label="a") for i in range(100)],
    ],
    ids=["few", "one group", "one label"],
)
def test_too_little_to_train_on_is_an_error(samples: Sequence[Sample]) -> None:
    with pytest.raises(MissingAnnotation, match="too few"):
        divided_of(samples, BottleneckOptions(), 0)


# ------------------------------------------------------------------------- direct readout


def test_a_probe_reads_what_is_planted_and_learns_from_the_labelled_alone() -> None:
    rng = np.random.default_rng(0)
    samples = [sample(i) for i in range(120)]
    labels = [str(one.label) for one in samples]
    rows = rng.normal(size=(120, 6)).astype(np.float32)
    signal = np.array([label == "a" for label in labels])
    there = rows.copy()
    there[:, 2] += 4 * signal
    columns = {"noise": rows, "signal": there}
    hits, site = read_off(columns, labels, samples, 60, BottleneckOptions(), 0)
    assert site == "signal"
    assert hits.shape == (60,)
    assert hits.mean() > 0.9
    leaked = there.copy()
    leaked[:60] = rows[:60]  # the signal is in the tested samples only
    hits, _ = read_off({"leak": leaked}, labels, samples, 60, BottleneckOptions(), 0)
    assert hits.mean() < 0.75


# --------------------------------------------------------------------- numbers of trainings


def snapshot(right: Sequence[bool]) -> Snapshot:
    return Snapshot(right, [False] * len(right), ["a"] * len(right), {TOWER: right}, {}, [], [])


def training(component: str, seed: int, right: Sequence[bool], **more: Any) -> Training:
    return Training(
        component, "lora", seed, 10, 2, [None, 1.0, 0.5], [1.0, 0.8, 0.7], 2,
        more.get("shuffled", False), snapshot(right),
    )  # fmt: skip


def shares(n: int, share: float) -> list[bool]:
    return [i < share * n for i in range(n)]


def closed(trainings: Sequence[Training], direct: Sequence[bool], before: float = 0.5) -> Closing:
    test = [sample(i) for i in range(100)]
    parts = Divided(test[:8], test[8:16], test, ["t"])
    options = BottleneckOptions(draws=500)
    base = snapshot(shares(100, before))
    return closing("t", parts, base, Direct(direct, "a probe"), trainings, options, 0)


def test_the_share_of_the_gap_is_what_counting_gives() -> None:
    rng = np.random.default_rng(1)
    before, direct = shares(100, 0.5), list(rng.random(100) < 0.95)
    llm = [list(rng.random(100) < 0.9) for _ in range(3)]
    other = [list(rng.random(100) < 0.55) for _ in range(3)]
    found = closed(
        [training("llm", i, one) for i, one in enumerate(llm)]
        + [training("vision", i, one) for i, one in enumerate(other)],
        direct,
    )
    gap = np.mean(direct) - np.mean(before)
    assert found.states["llm"].right.value == pytest.approx(np.mean(llm))
    assert found.states["llm"].closed.value == pytest.approx((np.mean(llm) - 0.5) / gap)
    assert found.states["vision"].gain.value == pytest.approx(np.mean(other) - 0.5)
    assert found.states["llm"].range == pytest.approx(
        (min(map(np.mean, llm)), max(map(np.mean, llm)))
    )
    assert found.best.name == "llm"
    assert found.leading == ["llm"]


def test_one_bad_training_makes_it_unsure() -> None:
    llm = [training("llm", 0, shares(100, 0.95)), training("llm", 1, shares(100, 0.5))]
    other = [training("vision", i, shares(100, 0.55)) for i in range(2)]
    found = closed([*llm, *other], shares(100, 0.97))
    assert found.best.name == "llm"
    assert found.leading != ["llm"]
    said = report.findings(found)[0]
    assert said.verdict is Verdict.INCONCLUSIVE
    assert "no component's tuning surely gains" in said.text


def test_equal_gains_name_no_bottleneck() -> None:
    both = [training(name, 0, shares(100, 0.9)) for name in ("llm", "vision")]
    found = closed([*both, training("projector", 0, shares(100, 0.55))], shares(100, 0.97))
    assert set(found.leading) == {"llm", "vision"}
    assert "no single bottleneck" in next(iter(report.findings(found))).text


def test_without_a_gap_nothing_is_closed() -> None:
    found = closed([training("llm", 0, shares(100, 0.52))], shares(100, 0.5))
    assert np.isnan(found.states["llm"].closed.value)
    assert "no gap to close" in next(iter(report.findings(found))).text


def test_the_verdict_names_the_component_the_gap_and_the_control() -> None:
    llm = [training("llm", i, shares(100, 0.95)) for i in range(2)]
    other = [training("vision", i, shares(100, 0.55)) for i in range(2)]
    control = training("llm", 0, shares(100, 0.5), shuffled=True)
    found = closed([*llm, *other, control], shares(100, 0.97))
    first, *rest = report.findings(found)
    assert first.text.startswith("t: tuning the language model closes the gap")
    assert first.values["component"] == "llm"
    assert any("shuffled labels" in each.text and "50 %" in each.text for each in rest)
    assert report.glance(found).text == "language model"
    for each in [*report.tables(found), *report.figures(found)]:
        assert each.name.startswith("bottleneck")


# -------------------------------------------------------------------- trainings of the demo


def surface(scenes: int) -> list[Sample]:
    samples = DemoDataset("scenes", DemoOptions(scenes=scenes)).samples([])
    return [one for one in samples if one.task == "surface"]


FEW: dict[str, Any] = {
    "tune": True, "components": ("projector",), "seeds": 1, "epochs": 1, "draws": 100,
    "tower_depths": (1.0,), "depths": (1.0,), "C": (1.0,), "labelled": 20,
}  # fmt: skip


def test_a_training_is_kept_and_the_model_is_as_before(
    vlm: ModelAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: value.clone() for name, value in vlm.module.state_dict().items()}
    samples = surface(40)
    analysis = Bottleneck(BottleneckOptions(**FEW))
    analysis.check(samples, [])
    analysis.check_model(vlm, samples, [])
    context = AnalysisContext(
        samples, None, functools.cache(lambda: vlm), folder=tmp_path  # type: ignore[arg-type]
    )  # fmt: skip
    first = analysis.run(context)
    assert all(
        bool((vlm.module.state_dict()[name] == value).all()) for name, value in before.items()
    )
    kept = sorted((tmp_path / "bottleneck.tuning").glob("*.json"))
    assert len(kept) == 2  # the projector, and its control
    assert not list((tmp_path / "bottleneck.tuning").glob("*.checkpoint"))

    def refuse(*args: Any, **more: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(trained, "fit", refuse)
    again = analysis.run(context)
    assert again.findings == first.findings
    known = json.loads(kept[0].read_text(encoding="utf-8"))
    tested = len(known["after"]["right"])
    assert trained._read(kept[0], tested) is not None
    short = {**known, "after": {**known["after"], "right": known["after"]["right"][:3]}}
    for damaged in ({"component": "llm"}, [], {**known, "after": None}, short):
        kept[0].write_text(json.dumps(damaged), encoding="utf-8")
        assert trained._read(kept[0], tested) is None
    parts = divided_of(samples, analysis.options, context.seed)
    trainings = Trainings(context, analysis.options, "surface", parts)
    assert trainings._file("projector", 0, shuffled=True) == kept[0]
    with pytest.raises(AssertionError, match="trained again"):
        trainings.trained("projector", 0, shuffled=True, progress=lambda done, total: None)


def test_other_labels_are_another_training(vlm: ModelAdapter, tmp_path: Path) -> None:
    options = BottleneckOptions(**FEW)
    context = AnalysisContext([], None, functools.cache(lambda: vlm), folder=tmp_path)  # type: ignore[arg-type]
    names = set()
    for samples in (surface(40), [replace(one, label="plain") for one in surface(40)]):
        parts = Divided(samples[:10], samples[10:20], samples[20:], ["surface"])
        names.add(Trainings(context, options, "surface", parts)._digest())
    assert len(names) == 2


# ---------------------------------------------------------------------------------- errors


def test_several_tasks_need_a_name(vlm: ModelAdapter) -> None:
    samples = DemoDataset("scenes", DemoOptions(scenes=20)).samples([])
    with pytest.raises(SpecError, match="one task") as error:
        Bottleneck(BottleneckOptions(tune=True)).check(samples, [])
    assert "task=NAME" in str(error.value.hint)
    with pytest.raises(SpecError, match="no task 'surfaces'"):
        Bottleneck(BottleneckOptions(tune=True, task="surfaces")).check(samples, [])
    Bottleneck(BottleneckOptions(tune=True, task="surface")).check(samples, [])
