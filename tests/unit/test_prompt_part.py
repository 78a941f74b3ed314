"""Virtual tokens as a part that is trained, and as a tuned folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import vlmlens
from vlmlens.errors import CheckpointError, CompositionError, DataError, SpecError, VlmlensError
from vlmlens.passes.answer_loss import answer_loss
from vlmlens.passes.modes import differentiable
from vlmlens.passes.soft_prompt import Place
from vlmlens.samples import Sample
from vlmlens.testing.model import TinyLlava, request, tiny_model
from vlmlens.testing.tiny import picture
from vlmlens.tuned.opening import open_tuned
from vlmlens.tuned.prompt import FILE
from vlmlens.tuned.putting import check_fits, put_in
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions
from vlmlens_plugins.tuning.fit import fit
from vlmlens_plugins.tuning.parts.prompt import STARTS, PromptPart, Start, embedded
from vlmlens_plugins.tuning.recipe import Recipe

ASKED = [
    Sample("a", "What is this?", (picture(32, 32),), label="yes"),
    Sample("b", "Name the colour of it:", (picture(64, 40, seed=1),), label="no idea"),
]


@pytest.fixture(scope="module")
def vlm() -> TinyLlava:
    return tiny_model()


def last(vlm: Any) -> torch.Tensor:
    found: torch.Tensor = vlm.forward(vlm.encode(ASKED), logits="last").logits
    return found


def test_vectors_of_words_give_what_the_words_give(vlm: TinyLlava) -> None:
    words = vlm.tokenizer("ab cd ", add_special_tokens=False)["input_ids"]
    part = PromptPart(vlm, tokens=len(words))
    part.load_state({"vectors": embedded(vlm, words)})
    wanted = vlm.encode([replace(one, prompt="ab cd " + one.prompt) for one in ASKED])
    logits = vlm.forward(wanted, logits="last").logits
    assert logits is not None
    with part.attached(vlm):
        assert torch.allclose(last(vlm), logits, atol=1e-5)


@pytest.mark.parametrize("start", STARTS)
def test_what_vectors_begin_as(vlm: TinyLlava, start: Start) -> None:
    part, again = (PromptPart(vlm, tokens=5, start=start, seed=3) for _ in range(2))
    vectors = part.vectors
    every = embedded(vlm, range(len(vlm.tokenizer)))
    assert torch.equal(vectors, again.vectors)
    assert vectors.shape == (5, 32)
    assert vectors.dtype == torch.float32
    if start == "words":
        found = [int((every == row).all(1).nonzero()) for row in vectors]
        assert len(set(found)) == 5
        assert all(vlm.decode([token]).strip().isalpha() for token in found)
    elif start == "mean":
        assert torch.allclose(vectors, every.mean(0).expand(5, -1), atol=1e-6)
    else:
        normed = (vectors - every.mean(0)) / every.std(0)
        assert 0.7 < float(normed.std()) < 1.3
    other = PromptPart(vlm, tokens=5, start=start, seed=4).vectors
    assert torch.equal(vectors, other) is (start == "mean")


def test_only_the_vectors_learn_and_the_model_stays(vlm: TinyLlava) -> None:
    before = last(vlm)
    weights = {name: value.clone() for name, value in vlm.module.named_parameters()}
    part = PromptPart(vlm, tokens=4)
    begun = part.state()["vectors"]
    losses = []
    with part.attached(vlm):
        wanting = [name for name, each in vlm.module.named_parameters() if each.requires_grad]
        assert not wanting
        assert [each.requires_grad for each in part.parameters()] == [True]
        optimizer = torch.optim.AdamW(part.parameters(), lr=0.05)
        for _ in range(12):
            with differentiable():
                loss = answer_loss(vlm, vlm.encode(ASKED, answers=["yes", "no idea"]))
                loss.backward()
            losses.append(float(loss.detach()))
            optimizer.step()
            optimizer.zero_grad()
    assert losses[-1] < losses[0] - 0.5
    assert not torch.equal(begun, part.state()["vectors"])
    assert not part.vectors.requires_grad
    assert torch.equal(last(vlm), before)
    assert all(torch.equal(weights[n], value) for n, value in vlm.module.named_parameters())
    assert vlm.soft_prompt is None


def test_training_with_what_is_frozen_kept_gives_the_same(vlm: TinyLlava) -> None:
    found = []
    for reuse in (True, False):
        part = PromptPart(vlm, tokens=3)
        recipe = Recipe(epochs=2, rate=0.05, batch_size=2, reuse=reuse)
        fit(vlm, part, ASKED, ASKED, recipe)
        found.append(part.state()["vectors"])
    assert torch.allclose(found[0], found[1], atol=1e-5)
    assert not torch.allclose(found[0], PromptPart(vlm, tokens=3).vectors, atol=1e-2)


def test_a_soft_prompt_learns_to_ask_what_the_prompt_leaves_out() -> None:
    """The demo model names the main object's color only if it is asked for it."""
    demo = vlmlens.load("demo", device="cpu")
    scenes = DemoDataset("scenes", DemoOptions(scenes=64)).samples(())
    asked = [replace(one, prompt="Main object:") for one in scenes if one.task == "color"]
    part = PromptPart(demo, tokens=4)

    def right(samples: list[Sample]) -> float:
        first = [answer[0] for answer in (demo.answer_ids(str(one.label)) for one in samples)]
        logits = demo.forward(demo.encode(samples), logits="last").logits
        assert logits is not None
        return float((logits.argmax(-1) == torch.tensor(first)).float().mean())

    with part.attached(demo):
        untrained = right(asked[40:])
    fit(demo, part, asked[:32], asked[32:40], Recipe(epochs=2, rate=0.1, batch_size=8))
    with part.attached(demo):
        trained = right(asked[40:])
    assert right(asked[40:]) <= 0.25
    assert untrained <= 0.25
    assert trained >= 0.9


# ------------------------------------------------------------------ folders


def saved(vlm: TinyLlava, folder: Path, place: Place = "before-question") -> PromptPart:
    folder.mkdir()
    part = PromptPart(vlm, tokens=4, place=place, seed=7)
    base = {key: value for key, value in vlm.describe().items() if key != "tuned"}
    part.save(folder, {"base": base, "task": "colour"})
    return part


@pytest.mark.parametrize("place", ["before-question", "after-image"])
def test_a_folder_gives_the_same_logits(vlm: TinyLlava, tmp_path: Path, place: Place) -> None:
    part = saved(vlm, tmp_path / "tuned", place)
    with part.attached(vlm):
        wanted = last(vlm)
    opened = open_tuned(tmp_path / "tuned")
    assert (opened.kind, opened.component, opened.about["place"]) == ("prompt", "prompt", place)
    loaded = TinyLlava.load(request())
    check_fits(TinyLlava.skeleton(request()), opened)
    plain = last(loaded)
    put_in(loaded, opened)
    assert torch.equal(last(loaded), wanted)
    assert not torch.equal(plain, wanted)
    assert loaded.describe()["tuned"]["digest"] == opened.digest
    with pytest.raises(CompositionError, match="already"):
        put_in(loaded, opened)
    with pytest.raises(CompositionError, match="already"):
        PromptPart(loaded)


def _other(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        said = json.loads((folder / "tuned.json").read_text())
        change(said)
        (folder / "tuned.json").write_text(json.dumps(said))

    return run


def _vectors(**tensors: torch.Tensor) -> Callable[[Path], None]:
    return lambda folder: save_file(tensors, folder / FILE)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_other(lambda said: said.pop("place")), "no known place"),
        (_other(lambda said: said.update(place="nowhere")), "no known place"),
        (_other(lambda said: said.update(place=["after-image"])), "no known place"),
        (_other(lambda said: said.update(tokens=5)), "says 5 virtual tokens"),
        (_other(lambda said: said.pop("tokens")), "says None virtual tokens"),
        (lambda folder: (folder / FILE).write_bytes(b"{}"), "cannot be read"),
        (_vectors(vectors=torch.zeros(4, 31)), "31 wide"),
        (_vectors(vectors=torch.zeros(4)), "expected is vectors"),
        (_vectors(vectors=torch.zeros(0, 32)), "expected is vectors"),
        (_vectors(other=torch.zeros(4, 32)), "other"),
        (_vectors(vectors=torch.zeros(4, 32), more=torch.zeros(1)), "more"),
        (_vectors(vectors=torch.full((4, 32), torch.nan)), "NaN"),
        (_vectors(vectors=torch.zeros(4, 32, dtype=torch.int32)), "torch.int32"),
    ],
)
def test_damaged_folders(
    vlm: TinyLlava, tmp_path: Path, damage: Callable[[Path], None], says: str
) -> None:
    saved(vlm, tmp_path / "tuned")
    damage(tmp_path / "tuned")
    loaded = TinyLlava(vlm.module, vlm.request)
    with pytest.raises((CheckpointError, CompositionError), match=says) as caught:
        put_in(loaded, open_tuned(tmp_path / "tuned"))
    assert caught.value.hint
    assert loaded.soft_prompt is None
    assert not loaded.holds


# ------------------------------------------------------------------ what cannot be


@pytest.mark.parametrize(
    "given",
    [
        {"tokens": 0}, {"tokens": -1}, {"tokens": 100_000}, {"tokens": 2.5}, {"tokens": True},
        {"place": "before"}, {"start": "zeros"}, {"start": None}, {"seed": -1},
    ],
)  # fmt: skip
def test_arguments_out_of_range(vlm: TinyLlava, given: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as caught:
        PromptPart(vlm, **given)
    assert caught.value.hint


def test_a_part_belongs_to_its_model_and_is_attached_once(vlm: TinyLlava) -> None:
    part = PromptPart(vlm, tokens=2)
    other = TinyLlava.load(request())
    with pytest.raises(SpecError, match="another model"), part.attached(other):
        pass
    with part.attached(vlm), pytest.raises(VlmlensError, match="already"), part.attached(vlm):
        pass
    with part.attached(vlm):
        pass
    with pytest.raises(DataError, match="the virtual tokens are"):
        part.load_state({"vectors": torch.zeros(3, 32)})
    with pytest.raises(DataError, match="the virtual tokens are"):
        part.load_state({"other": torch.zeros(2, 32)})
    with pytest.raises(CompositionError, match="not in memory"):
        PromptPart(TinyLlava.skeleton(request()))
