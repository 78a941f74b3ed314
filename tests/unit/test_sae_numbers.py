"""Numbers that a recomputation from the saved SAE alone found wrong, or that could become so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.sparse import csr_array
from tests.unit._sae_toy import COLUMN, Toy

from vlmlens.errors import CompositionError, SpecError
from vlmlens_plugins.analysis.sae import SaeAnalysis, report
from vlmlens_plugins.analysis.sae.held import Split
from vlmlens_plugins.analysis.sae.judging.material import blocks
from vlmlens_plugins.analysis.sae.judging.monosemanticity import (
    by_picture,
    level_of_chance,
    monosemanticity,
)
from vlmlens_plugins.analysis.sae.judging.seen import _Part
from vlmlens_plugins.analysis.sae.making import Making, opened
from vlmlens_plugins.analysis.sae.options import SaeOptions
from vlmlens_plugins.analysis.sae.places import Place
from vlmlens_plugins.sae import About, Recipe, TensorRows, open_sae, save_sae

LATER = "llm.block.4/all"


def test_a_part_that_is_full_in_the_middle_of_a_block_counts_no_rows_beyond() -> None:
    toy = Toy.made()
    material, sae = toy.material(), toy.sae()
    numbers = material.split.held[:21]
    part = _Part(sae, 7, judged=True, blind=False, lean=False)
    for block in blocks(material, numbers, 10**6, 10**6):  # of 1, 4 and 16 samples
        part.add(block, toy.mean.double().numpy())
    found = part.seen(numbers, [8] * 21)
    rows = torch.cat(material.rows.read(numbers[:7]))
    codes = sae.encode(rows).double().numpy()
    assert found.peaks.samples == tuple(numbers[:7])
    np.testing.assert_array_equal(found.peaks.fired, (codes > 0).sum(0))
    np.testing.assert_allclose(found.peaks.density, (codes > 0).mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.peaks.total, codes.sum(0), rtol=1e-5)
    np.testing.assert_allclose(found.peaks.mean.toarray(), codes.reshape(7, 8, -1).mean(1), 1e-5)
    lost = (sae.reconstruct(rows) - rows).double().square().sum().item()
    assert len(found.error) == 7
    np.testing.assert_allclose(found.error.sum(), lost, rtol=1e-5)


def test_codes_that_differ_by_rounding_alone_have_no_score() -> None:
    """A row that is the same in every sample, such as that of BOS, is rounded by its company."""
    rng = np.random.default_rng(0)
    codes = np.full((30, 3), 21.429, np.float32)
    codes[:, 0] *= 1 + 1e-6 * rng.random(30).astype(np.float32)
    codes[:, 1] *= 1 + 1e-2 * rng.random(30).astype(np.float32)
    assert np.ptp(codes[:, 0]) > 0
    found = monosemanticity(csr_array(codes), rng.normal(size=(30, 4)))
    np.testing.assert_array_equal(np.isnan(found), [True, False, True])


def test_off_and_on_may_be_written_bare_which_yaml_reads_as_booleans() -> None:
    found = SaeOptions.model_validate({"model": False, "loss": True})
    assert (found.model, found.loss) == ("off", "on")
    assert SaeOptions.model_validate({"loss": False}).loss == "off"
    with pytest.raises(ValidationError):
        SaeOptions.model_validate({"model": True})


def test_an_sae_is_not_judged_where_another_one_belongs(tmp_path: Path) -> None:
    sae = Toy.made().sae()
    file = str(save_sae(tmp_path / "sae", sae))
    here, there = (Place((name,), "", stored=True) for name in (COLUMN, LATER))
    found = [opened([file], place, (here, there), lambda *told: None) for place in (here, there)]
    assert [len(each) for each in found] == [1, 0]
    told = {"column": [COLUMN, LATER], "file": [file]}
    with pytest.raises(SpecError, match=r"No SAE of `file` belongs to 'llm.block.4/all'"):
        SaeAnalysis(SaeOptions(**told))._places(None, [COLUMN, LATER])


def test_without_the_model_too_an_sae_of_another_column_or_model_is_refused(
    tmp_path: Path,
) -> None:
    about = About(column=COLUMN, model={"class": "A", "digest": "1"})
    file = str(save_sae(tmp_path / "sae", replace(Toy.made().sae(), about=about)))

    def asked(column: str, model: dict[str, str], **more: bool) -> list[Place]:
        analysis = SaeAnalysis(SaeOptions(column=[column], file=[file], **more))
        return analysis._places(None, [COLUMN, LATER], model)

    assert len(asked(COLUMN, {"class": "A", "digest": "1"})) == 1
    with pytest.raises(CompositionError, match="trained at"):
        asked(LATER, {"class": "A", "digest": "1"})
    with pytest.raises(CompositionError, match="trained on"):
        asked(COLUMN, {"class": "A", "digest": "2"})
    assert len(asked(LATER, {"class": "A", "digest": "2"}, anyway=True)) == 1


def test_without_the_model_an_sae_knows_what_its_store_knows_of_it() -> None:
    def making(stored: bool, **known: str) -> Making:
        store = SimpleNamespace(get_meta=lambda: {"fingerprint": known})
        context = SimpleNamespace(store=store, samples=[], seed=0)
        split, rows = Split((), (), {}), TensorRows(torch.zeros(1, 2))
        place = Place((COLUMN,), "", stored=stored)
        return Making(context, None, place, split, rows, None, rows, None, Path())  # type: ignore[arg-type]

    def key(one: Making) -> str:
        return one._key(Recipe(8, k=2), 100, 10, SaeOptions())

    assert making(True, digest="1")._model() == {"digest": "1"}
    others = [making(True, digest="2"), making(False, digest="1")]
    assert key(making(True, digest="1")) == key(making(True, digest="1"))
    assert key(making(True, digest="1")) not in [key(one) for one in others]


def test_columns_of_a_crosscoder_keep_their_order_in_its_file(tmp_path: Path) -> None:
    scales = {"vision.block.3/image": (20, 0.5), "llm.block.3/image": (12, 2.0)}
    about = About(column=" + ".join(scales), scales=scales)
    read = open_sae(save_sae(tmp_path / "one", replace(Toy.made().sae(), about=about)))
    assert list(read.about.scales.items()) == list(scales.items())
    notes = [
        json.loads((save_sae(tmp_path / name, sae) / "cfg.json").read_text())["metadata"]["note"]
        for name, sae in (("two", replace(Toy.made().sae(), about=about)), ("three", read))
    ]
    assert notes[0] == notes[1]
    assert notes[0].index("vision") < notes[0].index("llm")


def test_several_questions_about_a_picture_make_no_pair_of_it_with_itself() -> None:
    rng = np.random.default_rng(0)
    codes = np.maximum(rng.normal(size=(8, 5)), 0)
    embeddings = rng.normal(size=(8, 3))
    asked = rng.permutation(np.repeat(np.arange(8), 3))
    share = rng.uniform(size=(24, 5))
    for picture in range(8):
        share[np.flatnonzero(asked == picture)[1]] = 1
    several = csr_array(codes[asked] * share)
    once = by_picture(several, embeddings[asked], [f"{each}.png" for each in asked])
    expected = monosemanticity(csr_array(codes), embeddings)
    np.testing.assert_allclose(monosemanticity(*once), expected, rtol=1e-9)
    assert np.nanmin(monosemanticity(several, embeddings[asked]) - expected) > 0.01
    assert level_of_chance(once[1]) == pytest.approx(level_of_chance(embeddings))
    assert level_of_chance(embeddings[asked]) > level_of_chance(embeddings) + 0.05


def test_it_is_said_that_an_sae_of_a_file_may_know_the_held_out_samples() -> None:
    said = [report.notes([], SaeOptions(**given)) for given in ({"file": ["a"]}, {})]
    assert ["may have learnt from samples" in " ".join(each) for each in said] == [True, False]
