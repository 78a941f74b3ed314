"""Loss recovered: what the demo model's answers lose when rows are replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.abc import AnalysisContext, ModelAdapter, Options, WorkUnit
from vlmlens.errors import DataError
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._scoring import AnswerScorer
from vlmlens_plugins.analysis.sae.held import split
from vlmlens_plugins.analysis.sae.judging import (
    Judged,
    Kind,
    Material,
    Recovered,
    ReplacedLoss,
    Word,
    conclude,
    judge,
    tables,
    with_loss,
)
from vlmlens_plugins.analysis.sae.judging.loss import LossOptions, replaced_parts
from vlmlens_plugins.sae import About, Relu, Sae, TensorRows, TopK, save_sae
from vlmlens_plugins.storage.memory import MemoryStore

WIDTH = 128
COLUMN = "vision.block.3/all"


@pytest.fixture(scope="module")
def colors(scenes: list[Sample]) -> list[Sample]:
    return [sample for sample in scenes if sample.task == "color"]


@pytest.fixture(scope="module")
def mean(vlm: ModelAdapter, colors: list[Sample]) -> torch.Tensor:
    found = vlm.trace(vlm.encode(colors), ["vision.block.3"])["vision.block.3"]
    return found.reshape(-1, WIDTH).mean(0)


def identity(column: str = COLUMN) -> Sae:
    """Each dimension is two features; nothing is lost."""
    signs = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)])
    none = torch.zeros(2 * WIDTH)
    about = About(column=column)
    return Sae(signs.T.contiguous(), none, signs, torch.zeros(WIDTH), Relu(), about=about)


def constant(row: torch.Tensor) -> Sae:
    """It always writes the same row."""
    return replace(identity(), b_enc=torch.full((2 * WIDTH,), -1e4), b_dec=row, subtract=False)


def judged(column: str, saes: dict[str, Sae], mean: torch.Tensor) -> Judged:
    """SAEs judged on rows of noise: of these numbers only the mean row is used here."""
    rows = TensorRows(
        torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(0)), None, column
    )
    samples = [Sample(f"n{i}", "?", (f"{i}.png",), group=str(i)) for i in range(40)]
    material = Material(rows, samples, split(samples, column, 0.5, 0))
    found = judge(saes, material, by=(), controls=1, draws=100)
    return replace(found, means={"all": mean.double().numpy()})


def context(vlm: ModelAdapter, samples: Sequence[Sample], folder: Path | None) -> AnalysisContext:
    with MemoryStore.open("sae-loss", mode="a", options=Options()) as store:
        return AnalysisContext(samples, store, cache(lambda: vlm), folder=folder)


@pytest.fixture(scope="module")
def measured(
    vlm: ModelAdapter, colors: list[Sample], mean: torch.Tensor,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Judged, Path]:  # fmt: skip
    folder = tmp_path_factory.mktemp("loss")
    saes = {
        "identity": identity(),
        "zero": constant(torch.zeros(WIDTH)),
        "mean": constant(mean),
    }
    found = judged(COLUMN, saes, mean)
    return with_loss(found, context(vlm, colors, folder), colors, draws=200), folder


def of(found: Judged, basis: str, rows: str = "all") -> Recovered:
    (one,) = [each for each in found.loss if (each.basis, each.rows) == (basis, rows)]
    return one


def test_what_changes_nothing_recovers_all_and_zeros_recover_nothing(
    measured: tuple[Judged, Path],
) -> None:
    found, _ = measured
    assert of(found, "identity").of_zero.value == pytest.approx(1, abs=1e-4)
    assert of(found, "identity").of_mean.value == pytest.approx(1, abs=1e-4)
    assert of(found, "zero").of_zero.value == pytest.approx(0, abs=1e-9)
    assert of(found, "mean").of_mean.value == pytest.approx(0, abs=1e-4)
    assert of(found, "identity").clean.mean() + 0.5 < of(found, "identity").zero.mean()


def test_losses_are_those_of_whole_passes(
    vlm: ModelAdapter, colors: list[Sample], measured: tuple[Judged, Path]
) -> None:
    one = of(measured[0], "identity")
    asked = [replace(sample, choices=(str(sample.label),)) for sample in colors]
    scorer = AnswerScorer(vlm, mean=True)
    clean = [-float(logs[0]) for logs in scorer.choices(asked)]
    assert one.clean == pytest.approx(clean, abs=1e-4)
    with vlm.edited([f"{COLUMN} = zero"]):
        zero = [-float(logs[0]) for logs in scorer.choices(asked)]
    assert one.zero == pytest.approx(zero, abs=1e-4)


def test_an_sae_that_keeps_the_answers_is_better_than_an_untrained_dictionary(
    measured: tuple[Judged, Path],
) -> None:
    found, folder = measured
    told = found.against("identity", Kind.LOSS)["all"]
    gap = of(found, found.beside("identity").name)
    assert told.difference.value == pytest.approx(
        float((gap.replaced - of(found, "identity").replaced).mean())
    )
    assert found.against("zero", Kind.LOSS)["all"].word is not Word.BETTER
    assert "the answers lose" in conclude(found, "identity").text
    (table,) = [each for each in tables([found]) if each.name == "sae-loss"]
    assert set(table.columns["basis"]) >= {"identity", "zero", "mean"}
    assert list(folder.iterdir()) == []  # the folders of the SAEs are gone


def test_image_rows_and_text_rows_are_replaced_apart(
    vlm: ModelAdapter, colors: list[Sample]
) -> None:
    column = "llm.block.0/all"
    assert list(replaced_parts(column)) == ["all", "image", "text"]
    found = judged(column, {"identity": identity(column)}, torch.zeros(WIDTH))
    found = with_loss(found, context(vlm, colors, None), colors[:4], roles=("SAE",), draws=100)  # type: ignore[arg-type]
    losses = {part: of(found, "identity", part) for part in ("all", "image", "text")}
    assert len({round(float(each.zero.mean()), 3) for each in losses.values()}) == 3
    scorer = AnswerScorer(vlm, mean=True)
    asked = [replace(sample, choices=(str(sample.label),)) for sample in colors[:4]]
    with vlm.edited(["llm.block.0/image = zero"]):
        zero = [-float(logs[0]) for logs in scorer.choices(asked)]
    assert losses["image"].zero == pytest.approx(zero, abs=1e-4)


def test_rows_that_the_answer_does_not_need_have_nothing_to_recover(
    vlm: ModelAdapter, colors: list[Sample]
) -> None:
    """After the last block, image rows are read by nobody."""
    column = "llm.block.5/image"
    found = judged(column, {"identity": identity(column)}, torch.zeros(WIDTH))
    found = with_loss(found, context(vlm, colors, None), colors[:3], draws=100)
    assert np.isnan(of(found, "identity", "image").of_zero.value)
    assert np.isnan(of(found, "identity", "image").of_mean.value)


# ---------------------------------------------------------------------- the work, and odd cases


def work(path: Path, sae: Sae) -> ReplacedLoss:
    options = LossOptions(
        column=COLUMN,
        parts={"all": "all"},
        means={"all": [0.0] * WIDTH},
        files={sae.digest: str(path)},
    )
    return ReplacedLoss(options)


def test_another_process_makes_the_same_work(
    vlm: ModelAdapter, colors: list[Sample], tmp_path: Path
) -> None:
    sae = identity()
    one = work(save_sae(tmp_path / "one", sae), sae)
    other = ReplacedLoss(LossOptions.model_validate(one.to_dict()["options"]))
    units = [WorkUnit(colors[0], {"answer": colors[0].label})]
    assert one.run(vlm, units) == other.run(vlm, units)
    assert work(tmp_path / "elsewhere", sae).identity() == one.identity()
    assert str(tmp_path) not in str(one.identity())


def test_a_folder_that_was_changed_meanwhile_is_refused(
    vlm: ModelAdapter, colors: list[Sample], tmp_path: Path
) -> None:
    asked = work(tmp_path / "one", identity())
    save_sae(tmp_path / "one", constant(torch.ones(WIDTH)))
    with pytest.raises(DataError, match="another SAE than before"):
        asked.run(vlm, [WorkUnit(colors[0], {"answer": "red"})])


def test_without_labels_and_for_transcoders_nothing_is_run(colors: list[Sample]) -> None:
    def never() -> Any:
        raise AssertionError("the model was asked for")

    asked = replace(context(None, colors, None), model=never)  # type: ignore[arg-type]
    found = judged(COLUMN, {"identity": identity()}, torch.zeros(WIDTH))
    bare = [replace(sample, label=None) for sample in colors]
    assert with_loss(found, asked, bare) is found
    crossing = replace(found, column="llm.block.1/all + llm.block.2/all")
    assert with_loss(crossing, asked, colors) is crossing


def test_forms_that_other_tools_do_not_know_are_measured_too(
    vlm: ModelAdapter, colors: list[Sample]
) -> None:
    odd = replace(identity(), activation=TopK(2 * WIDTH, rectified=False))
    odd = replace(odd, W_dec=odd.W_dec / 2)  # both signs of a dimension are written
    found = judged(COLUMN, {"odd": odd}, torch.zeros(WIDTH))
    told = with_loss(found, context(vlm, colors, None), colors[:2], draws=100)
    assert of(told, "odd").replaced == pytest.approx(of(told, "odd").clean, abs=1e-4)


def test_many_samples_are_run_a_few_at_a_time(
    vlm: ModelAdapter, colors: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits of all rows of many samples would not fit into memory."""
    sae, sizes = identity(), []
    asked = work(save_sae(tmp_path / "one", sae), sae)
    units = [WorkUnit(sample, {"answer": sample.label}) for sample in colors[:5]]
    together = asked.run(vlm, units)
    monkeypatch.setattr("vlmlens_plugins.analysis.sae.judging.loss._ROWS", 170)
    again, encode = work(tmp_path / "one", sae), vlm.encode

    def counted(samples: Sequence[Sample], **given: Any) -> Any:
        sizes.append(len(samples))
        return encode(samples, **given)

    monkeypatch.setattr(vlm, "encode", counted)
    for one, other in zip(again.run(vlm, units), together, strict=True):
        assert one["clean"] == pytest.approx(other["clean"], abs=1e-4)
        assert one["all"] == pytest.approx(other["all"], abs=1e-4)
    assert sizes == [1, 2, 2]
