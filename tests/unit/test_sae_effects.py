"""What features do to the answers of the demo model: color features to colors, and to no others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.abc import AnalysisContext, ModelAdapter, ModelWork, WorkUnit
from vlmlens.abc.model_work import keys_of
from vlmlens.abc.unit_batches import run_here
from vlmlens.errors import CompositionError, EditError, SpecError
from vlmlens.results import Verdict
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._sweeps import Cell, Change, Item, SweepOptions, sweep
from vlmlens_plugins.analysis.sae.effects import (
    Aim,
    Effect,
    Effects,
    Trial,
    aims,
    effects,
    figures,
    findings,
    notes,
    tables,
    why_not,
)
from vlmlens_plugins.analysis.sae.effects.drawn import drawn_features, mean_difference, written_size
from vlmlens_plugins.analysis.sae.effects.measured import Ran, effects_of
from vlmlens_plugins.analysis.sae.held import split
from vlmlens_plugins.analysis.sae.options import SaeOptions
from vlmlens_plugins.analysis.sae.peaks import peaks
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions
from vlmlens_plugins.sae import About, Recipe, Sae, Shuffled, TensorRows, save_sae, train

COLUMN, PATCHES = "projector/image", 64
CHOSEN = SaeOptions(samples=10, controls=2, draws=200)


def rows_of(vlm: ModelAdapter, samples: Sequence[Sample]) -> TensorRows:
    """The rows of all samples; questions about one picture have the same."""
    found: dict[str, torch.Tensor] = {}
    first = list({str(sample.images[0]): sample for sample in samples}.values())
    for start in range(0, len(first), 32):
        some = first[start : start + 32]
        read = vlm.trace(vlm.encode(some), ["projector"]).select(COLUMN)
        found |= {str(one.images[0]): each for one, each in zip(some, read, strict=True)}
    parts = [found[str(sample.images[0])] for sample in samples]
    return TensorRows(torch.cat(parts), [len(part) for part in parts], COLUMN)


@pytest.fixture(scope="module")
def trial(vlm: ModelAdapter, tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """An SAE of the projector's rows, trained for a second on 72 scenes; 18 are held out."""
    samples = list(DemoDataset("scenes", DemoOptions(scenes=90)).samples([]))
    divided = split(samples, COLUMN, 0.2, 0)
    rows = rows_of(vlm, samples)
    feed = Shuffled(rows, batch=512, samples=divided.learn, seed=0)
    (made,) = train([Recipe(256, k=12.0, lr=3e-3)], feed, rows=512 * 240, device="cpu")
    sae = replace(made.sae, about=About(COLUMN, model=vlm.describe()))
    file = tmp_path_factory.mktemp("effects") / "sae, (1)"
    save_sae(file, sae)
    context = AnalysisContext(samples, Any, lambda: vlm, warn=lambda message: None)
    learn, held = (peaks(sae, rows, each) for each in (divided.learn, divided.held))
    return Trial(context, sae, file, COLUMN, rows, learn, held, divided, CHOSEN)


def aimed(trial: Trial, by: str, features: Sequence[int] | None = None) -> list[Aim]:
    samples, alike = trial.context.samples, trial.split.alike
    return aims(trial.learn, trial.norms, samples, alike, (by,), 4, features)


@pytest.fixture(scope="module")
def chosen(trial: Trial) -> list[Aim]:
    return aimed(trial, "label")


@pytest.fixture(scope="module")
def colors(chosen: Sequence[Aim]) -> Aim:
    """The features for colors together."""
    return next(aim for aim in chosen if aim.target == "color" and not aim.label)


@pytest.fixture(scope="module")
def color(trial: Trial, colors: Aim) -> Aim:
    """Of the features for colors, the one that writes its color best in the learning samples."""
    vlm, samples = trial.context.model(), trial.context.samples
    numbers = [j for i in trial.split.learn[:8] for j in trial.split.alike[i]]
    asked = [samples[j] for j in numbers if samples[j].task == "color"]
    batch = vlm.encode(asked)
    written = trial.learn.total * trial.norms
    best = sorted(colors.features, key=lambda i: -float(written[i]))[:8]

    def gain(aim: Aim) -> float:
        token = vlm.answer_ids(aim.label)[0]
        edit = trial.edit("clamp", aim.features, str(trial.most[aim.features[0]]))
        with vlm.edited([edit]):
            logits = vlm.forward(batch, logits="last").logits
        assert logits is not None
        return float(logits.log_softmax(-1)[:, token].mean())

    return max(aimed(trial, "label", best), key=gain)


@pytest.fixture(scope="module")
def found(trial: Trial, colors: Aim, color: Aim) -> Effects:
    return effects(trial, [color, colors])


def of(found: Effects, features: int, task: str) -> Effect:
    (one,) = (
        each
        for each in found.tasks
        if (len(each.aim.features) > 1) == (features > 1) and each.task == task
    )
    return one


# ---------------------------------------------------------------------- planted


def test_features_are_chosen_for_labels(trial: Trial, chosen: Sequence[Aim], colors: Aim) -> None:
    singles, sets = chosen[:4], chosen[4:]
    assert all(aim.label for aim in singles)
    assert len({aim.target for aim in singles}) >= 3
    assert 1 <= len({aim.target for aim in sets}) == len(sets) <= 2
    assert not any(aim.label for aim in sets)
    assert len(colors.features) >= 8
    assert not set(colors.features) & {f for aim in sets if aim != colors for f in aim.features}
    assert [aim.about for aim in aimed(trial, "photographer")] == []
    (asked,) = aimed(trial, "label", features=[singles[0].features[0]])
    assert (asked.target, asked.label) == (singles[0].target, singles[0].label)


def test_color_features_change_colors_and_nothing_else(found: Effects) -> None:
    own = of(found, 9, "color")
    assert own.changed.value >= 0.3
    assert own.differs
    assert own.verdict is Verdict.DIFFERS
    assert max(own.controls[kind].changed for kind in ("random", "turned")) <= 0.1
    for task in ("shape", "number", "surface"):
        other = of(found, 9, task)
        assert not other.differs
        assert other.changed.value <= own.changed.value / 2
    assert of(found, 9, "surface").changed.value == 0


def test_a_color_can_be_written(found: Effects, color: Aim) -> None:
    (moved,) = found.moved
    assert (moved.aim, moved.task, moved.clamped) == (color, "color", True)
    assert moved.changed.value >= 0.25
    assert moved.differs
    for kind in ("random", "turned"):
        assert moved.controls[kind].changed <= 0.2
    assert moved.controls["difference"].logits > moved.controls["turned"].logits


def test_a_shuffled_aim_claims_nothing(trial: Trial, colors: Aim) -> None:
    """Features drawn as a control, presented as if they were color's."""
    rng, few = np.random.default_rng(0), trial.options.model_copy(update={"samples": 6})
    drawn = drawn_features(colors.features[:6], trial.learn, trial.norms, set(colors.features), rng)
    (own,) = (
        each
        for each in effects(replace(trial, options=few), [Aim(drawn, "color")]).tasks
        if each.task == "color"
    )
    assert not own.differs


# ---------------------------------------------------------------------- recomputed


def test_numbers_are_those_of_plain_passes(trial: Trial, color: Aim, found: Effects) -> None:
    vlm, samples = trial.context.model(), trial.context.samples
    place = trial.held.samples
    written = trial.held.mean[:, list(color.features)].toarray()[:, 0]
    best = [place[i] for i in np.argsort(-written, kind="stable") if written[i] > 0]
    asked = [
        samples[i]
        for number in best
        for i in trial.split.alike[number]
        if samples[i].task == "color"
    ][: CHOSEN.samples]
    said = []
    for edits in ([], [f'{COLUMN} = sae.ablate("{trial.file}", {color.features[0]})']):
        with vlm.edited(edits):
            logits = vlm.forward(vlm.encode(asked), logits="last").logits
        assert logits is not None
        said.append(
            [
                max(one.choices, key=lambda answer, row=row: float(row[vlm.answer_ids(answer)[0]]))
                for one, row in zip(asked, logits, strict=True)
            ]
        )
    changed = np.mean([a != b for a, b in zip(*said, strict=True)])
    assert of(found, 1, "color").changed.value == pytest.approx(changed)
    assert of(found, 1, "color").samples == len(asked)


def test_a_control_without_a_gap_is_no_difference(trial: Trial, color: Aim) -> None:
    """The same cell as its own control: the effect is there, and the verdict is not."""
    cell = Cell((Change(trial.edit("ablate", color.features)),))
    same = [replace(cell, about={"control": kind}) for kind in ("random", "turned")]
    samples = [s for s in trial.context.samples if s.task == "color"][:20]
    items = [Item(s, (str(s.label), *s.choices), group=s.id, task="color") for s in samples]
    items = [replace(item, answers=tuple(dict.fromkeys(item.answers))) for item in items]
    swept = sweep(trial.context, items, [cell, *same], trial.options)
    (one,) = effects_of(COLUMN, [Ran(color, [swept], None, 1.0)], draws=100, seed=0).tasks
    assert one.gap.value == 0
    assert one.p == 1
    assert not one.differs


def test_sizes_of_what_is_written() -> None:
    sae = Sae(torch.eye(3), torch.zeros(3), 2 * torch.eye(3), torch.zeros(3))
    parts = [torch.tensor([[3.0, 0, 0], [0, 4, 0]]), torch.zeros(0, 3)]
    assert written_size(sae, [0, 1], parts) == pytest.approx(np.sqrt((36 + 64) / 2))
    assert written_size(sae, [0], parts, 3.0) == pytest.approx(np.sqrt((0 + 36) / 2))
    assert written_size(sae, [0], []) == 0


def test_controls_are_alike_and_others(trial: Trial) -> None:
    alive = np.flatnonzero(trial.learn.fired)
    order = alive[np.argsort(trial.learn.fired[alive])]
    for asked in (order[:5], order[-5:]):
        features = [int(i) for i in asked]
        rng = np.random.default_rng(1)
        drawn = drawn_features(features, trial.learn, trial.norms, set(features), rng)
        assert len(set(drawn)) == 5
        assert not set(drawn) & set(features)
        assert trial.learn.fired[list(drawn)].all()
    rare, dense = (
        np.log(trial.learn.fired[list(drawn_features(
            [int(i) for i in asked], trial.learn, trial.norms, {int(i) for i in asked},
            np.random.default_rng(2),
        ))]).mean()
        for asked in (order[:5], order[-5:])
    )  # fmt: skip
    assert rare < dense
    everything = {int(i) for i in alive}
    assert drawn_features([int(alive[0])], trial.learn, trial.norms, everything, rng) == ()


def test_a_difference_of_means_is_of_the_learning_samples(trial: Trial) -> None:
    labels = [s.label if s.task == "color" else None for s in trial.context.samples]
    found = mean_difference(trial.rows, trial.split, labels, "red")
    means = {i: trial.rows.read([i])[0].double().mean(0).numpy() for i in trial.split.learn}
    red = [i for i in means if "red" in {labels[j] for j in trial.split.alike[i]}]
    other = [i for i in means if i not in red]
    wanted = np.mean([means[i] for i in red], 0) - np.mean([means[i] for i in other], 0)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert mean_difference(trial.rows, trial.split, labels, "ultraviolet") is None


# ---------------------------------------------------------------------- said


def test_what_is_said(found: Effects) -> None:
    first, *_ = findings(found)
    assert first.verdict is Verdict.DIFFERS
    assert first.subject == "color"
    assert "No other task is shown to change" in first.text or "Of the other tasks" in first.text
    assert "random features of equal density" in first.text
    names = {one.name: one for one in tables(found)}
    assert set(names) == {"sae-effects-projector-image", "sae-clamped-projector-image"}
    assert len(names["sae-effects-projector-image"]) == len(found.tasks)
    (figure,) = figures(found)
    assert len(figure.cells) == 2
    assert notes(found)
    assert findings(Effects(COLUMN, [], [], {})) == figures(Effects(COLUMN, [], [], {})) == []


def test_what_cannot_be_tried(trial: Trial, color: Aim) -> None:
    samples = trial.context.samples
    assert why_not(trial.context.model(), COLUMN, samples) == ""
    assert "no model" in why_not(None, COLUMN, samples)
    assert "pooled" in why_not(trial.context.model(), "llm.norm/image.mean", samples)
    bare = [replace(sample, label=None) for sample in samples]
    assert "no sample has a label" in why_not(trial.context.model(), COLUMN, bare)
    with pytest.raises(CompositionError, match="cannot be measured: the rows"):
        effects(replace(trial, column="projector/image.mean"), [color])
    few = trial.options.model_copy(update={"max_passes": 3})
    with pytest.raises(SpecError, match="max_passes is 3"):
        effects(replace(trial, options=few), [color])
    silent = Aim((int(np.flatnonzero(trial.held.fired == 0)[0]),))
    assert effects(trial, [silent]).tasks == []


# ---------------------------------------------------------------------- kept by content


def test_results_are_kept_by_the_content_of_the_file(vlm: ModelAdapter, tmp_path: Path) -> None:
    (sample, *_) = DemoDataset("scenes", DemoOptions(scenes=1)).samples([])
    item = Item(sample, (str(sample.label), "none of them"), group="a", task="color")
    keys: list[list[bytes]] = []
    asked: list[tuple[ModelWork, Sequence[WorkUnit]]] = []

    def runner(work: ModelWork, units: Sequence[WorkUnit], told: Any) -> list[Any]:
        asked.append((work, units))
        keys.append(keys_of(work, units, {}))
        return run_here(vlm, work, units, 16, warn=print, progress=told)

    context = AnalysisContext([sample], Any, lambda: vlm, runner=runner)
    cells = [
        Cell((Change(f"{COLUMN} = sae.clamp({tmp_path / 's'}, 1, 9)"),)),
        Cell((Change(f"{COLUMN} = scale(0.5)"),)),
    ]
    for scale in (1.0, 1.0, -1.0):
        write = scale * torch.eye(128)
        save_sae(tmp_path / "s", Sae(torch.eye(128), torch.zeros(128), write, torch.zeros(128)))
        time.sleep(0.002)
        sweep(context, [item], cells, SweepOptions())
    (first, plain), (same, again), (other, still) = keys
    assert first == same != other
    assert plain == again == still
    assert "files" not in asked[0][1][1].arguments["changes"][0]
    with pytest.raises(EditError, match="another one than when the sweep began"):
        run_here(vlm, asked[0][0], asked[0][1], 16, warn=print, progress=lambda a, b: None)
