"""An SAE is used where it was trained; elsewhere only if its user says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vlmlens.errors import CompositionError
from vlmlens_plugins.sae import About, Sae, check_belongs, open_sae, save_sae
from vlmlens_plugins.sae.belonging import same_model

FOLDER = {"class": "Llava", "checkpoint": "llava", "digest": "d1", "dtype": "float32", "torch": "2"}
HUB = {"class": "Llava", "checkpoint": "org/llava", "revision": "c1", "device": "cpu"}


def made(about: About) -> Sae:
    return Sae(torch.ones(4, 6), torch.zeros(6), torch.ones(6, 4), torch.zeros(4), about=about)


OURS = made(About(column="llm.block.14/image", model=FOLDER))


def check(sae: Sae = OURS, **changes):
    here = {"model": FOLDER, "site": "llm.block.14", "selector": "image", "width": 4}
    return check_belongs(sae, **(here | changes))


def test_at_home_nothing_is_doubtful(tmp_path):
    assert check() == []
    assert check(selector=None, width=None) == []
    assert check(open_sae(save_sae(tmp_path / "sae", OURS))) == []


ELSEWHERE = [
    ({"site": "llm.block.3"}, "trained at 'llm.block.14', and this is 'llm.block.3'"),
    ({"selector": "text"}, "on the rows 'image', and these are 'text'"),
    ({"selector": "image.mean"}, "image.mean"),
    ({"model": FOLDER | {"digest": "d2"}}, "'llava' (d1), and this is 'llava' (d2)"),
    ({"model": FOLDER | {"class": "Qwen"}}, "trained on"),
]


@pytest.mark.parametrize(("changes", "words"), ELSEWHERE, ids=[words for _, words in ELSEWHERE])
def test_elsewhere_it_is_refused_unless_told(changes, words):
    with pytest.raises(CompositionError, match="does not belong here") as raised:
        check(**changes)
    assert words in str(raised.value)
    assert "anyway" in raised.value.hint
    (doubt,) = check(**changes, anyway=True)
    assert words in doubt


def test_all_that_differs_is_said_at_once():
    with pytest.raises(CompositionError) as raised:
        check(site="projector", selector="all", model=HUB | {"class": "Qwen"})
    for word in ("projector", "'all'", "org/llava"):
        assert word in str(raised.value)


def test_the_width_must_fit_always():
    with pytest.raises(CompositionError, match="reads rows of 4 numbers; those of 'projector'"):
        check(site="projector", width=5, anyway=True)
    with pytest.raises(CompositionError, match="of this width"):
        check(made(About()), width=5)


def test_a_file_that_knows_nothing_is_doubtful_not_refused():
    doubts = check(made(About(source="sparsify")))
    assert len(doubts) == 2
    assert "which site" in doubts[0]
    assert "which model" in doubts[1]


def test_a_crosscoder_belongs_to_no_single_site():
    sae = made(About(column="a/all + b/all", scales={"a/all": (2, 1.0), "b/all": (2, 1.0)}))
    with pytest.raises(CompositionError, match="crosscoder of 'a/all \\+ b/all'"):
        check(sae, site="a", selector="all")


def test_spellings_of_a_selector_are_one():
    sae = replace(OURS, about=About(column="llm.block.14/text[-4:]", model=FOLDER))
    assert check(sae, selector="text[-4:]") == []
    with pytest.raises(CompositionError):
        check(sae, selector="text[-3:]")


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        (FOLDER, FOLDER | {"dtype": "bfloat16", "torch": "3", "device": "cuda"}, True),
        (FOLDER, FOLDER | {"checkpoint": "moved"}, True),
        (FOLDER, FOLDER | {"digest": "d2"}, False),
        (HUB, HUB | {"revision": "c2"}, False),
        (HUB, HUB | {"checkpoint": "other/llava"}, False),
        (HUB, HUB | {"revision": None}, None),
        (HUB | {"revision": None}, {"class": "Llava", "checkpoint": "other"}, False),
        (HUB, FOLDER, None),
        ({}, FOLDER, None),
        (FOLDER, {**FOLDER, "class": None}, None),
    ],
)
def test_models_are_told_by_their_weights(before, now, same):
    assert same_model(before, now) is same
    assert same_model(now, before) is same


def test_a_model_that_cannot_be_told_is_doubtful():
    (doubt,) = check(model=HUB)
    assert "cannot be told" in doubt


def test_edits_that_were_there_in_training_are_missed():
    edited = {**FOLDER, "edits": ["llm.block.2/last = zero"]}
    sae = replace(OURS, about=replace(OURS.about, model=edited))
    assert check(sae, model=edited) == []
    assert "other edits" in check(sae)[0]
    assert check(model=edited) == []


def test_the_description_of_a_real_model_is_enough(vlm):
    described = vlm.describe()
    sae = made(About(column="llm.block.2/image", model=described))
    here = {"site": "llm.block.2", "selector": "image", "width": 4}
    assert check_belongs(sae, model=described, **here) == []
    assert same_model(described, {**described, "dtype": "bfloat16"}) is True
    assert same_model(described, {**described, "digest": "other"}) is False
