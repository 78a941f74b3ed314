"""Virtual tokens: vectors in the rows of a prompt, in passes and while writing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import pytest
import torch

import vlmlens.registry  # noqa: F401  edits as text need it
from vlmlens.errors import CompositionError, DataError, SpecError, VlmlensError
from vlmlens.hf.virtual_rows import Room
from vlmlens.passes.batch import Batch
from vlmlens.passes.modes import differentiable
from vlmlens.passes.soft_prompt import PLACES, Place, SoftPrompt
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing import AdapterTests
from vlmlens.testing._checks import CheckFailed
from vlmlens.testing._exact import exact, exact_batch, make_exact
from vlmlens.testing.model import TINY, TinyLlava, request, tiny_model, write_tiny_llava
from vlmlens.testing.tiny import picture
from vlmlens.tokens import Selector, TokenKind

SIZE, WIDTH = 3, 32


@pytest.fixture(scope="module")
def vlm() -> TinyLlava:
    return tiny_model()


def prompt(place: Place = "before-question", *, size: int = SIZE, seed: int = 0) -> SoftPrompt:
    drawn = torch.randn(size, WIDTH, generator=torch.Generator().manual_seed(seed))
    return SoftPrompt(drawn * 0.5, place)


def samples() -> list[Sample]:
    return [
        Sample("a", "What is this?", (picture(32, 32),)),
        Sample("b", "Name the colour of the largest thing:", (picture(64, 40, seed=1),)),
    ]


def last(vlm: TinyLlava, batch: Batch) -> torch.Tensor:
    found = vlm.forward(batch, logits="last").logits
    assert found is not None
    return found


def rows(batch: Batch, selector: str, i: int = 0) -> list[int]:
    found: list[int] = Selector.parse(selector).positions(batch.layout(i)).tolist()
    return found


# ------------------------------------------------------------------ independent recomputation


def by_hand(vlm: TinyLlava, sample: Sample, given: SoftPrompt) -> torch.Tensor:
    """`inputs_embeds` `[1, rows, width]`: embeddings, image features, and the vectors between."""
    inputs: Any = vlm.encode([sample]).inputs
    model: Any = vlm.module.model
    words = model.language_model.embed_tokens(inputs["input_ids"])[0]
    image = inputs["input_ids"][0] == vlm.image_token_id
    tower = model.vision_tower(inputs["pixel_values"], output_hidden_states=True)
    words[image] = model.multi_modal_projector(tower.hidden_states[-2][:, 1:])[0]
    behind = int(image.nonzero().max()) + 1
    newline = 1  # the template writes a line break behind the image
    at = behind if given.place == "after-image" else behind + newline
    return torch.cat([words[:at], given.vectors, words[at:]])[None]


@pytest.mark.parametrize("place", PLACES)
def test_a_pass_is_that_of_embeddings_put_together_by_hand(vlm: TinyLlava, place: Place) -> None:
    given = prompt(place)
    with torch.no_grad():
        wanted = [
            vlm.module(inputs_embeds=by_hand(vlm, one, given)).logits[0, -1] for one in samples()
        ]
        other = vlm.module(inputs_embeds=by_hand(vlm, samples()[0], prompt(place, seed=1))).logits
    with vlm.prompted(given):
        found = last(vlm, vlm.encode(samples()))
    assert torch.allclose(found, torch.stack(wanted), atol=1e-5)
    assert not torch.allclose(found[0], other[0, -1], atol=1e-2)


@pytest.mark.parametrize("cache", [True, False])
def test_texts_are_those_of_embeddings_put_together_by_hand(vlm: TinyLlava, cache: bool) -> None:
    given, model = prompt(), cast("Any", vlm.module)
    config = model.generation_config
    before, config.use_cache = config.use_cache, cache
    try:
        with vlm.prompted(given):
            made = vlm.generate(vlm.encode(samples()), max_new_tokens=5)
        plain = vlm.generate(vlm.encode(samples()), max_new_tokens=5)
    finally:
        config.use_cache = before
    for one, sample in zip(made, samples(), strict=True):
        embeds, written = by_hand(vlm, sample, given), list[int]()
        with torch.no_grad():
            for _ in one.token_ids:
                written.append(int(model(inputs_embeds=embeds).logits[0, -1].argmax()))
                word = model.model.language_model.embed_tokens(torch.tensor([[written[-1]]]))
                embeds = torch.cat([embeds, word], 1)
        assert list(one.token_ids) == written
    assert [one.token_ids for one in made] != [one.token_ids for one in plain]


def test_gradients_of_the_vectors_are_slopes() -> None:
    model: Any = make_exact(TinyLlava.load(request()))
    vectors = prompt().vectors.double().requires_grad_()

    def value(moved: torch.Tensor) -> torch.Tensor:
        with exact(), model.prompted(SoftPrompt(moved)):
            return last(model, exact_batch(model.encode(samples())))[:, 5].sum()

    with differentiable():
        value(vectors).backward()
    assert vectors.grad is not None
    for place in ((0, 0), (1, 7), (2, 31)):
        step = torch.zeros_like(vectors)
        step[place] = 1e-5
        with torch.no_grad():
            slope = (value(vectors + step) - value(vectors - step)) / 2e-5
        assert float(slope) == pytest.approx(float(vectors.grad[place]), rel=1e-6)


# ------------------------------------------------------------------ rows


@pytest.mark.parametrize("place", PLACES)
def test_virtual_rows_are_no_words_and_move_nothing_else(vlm: TinyLlava, place: Place) -> None:
    plain = vlm.encode(samples(), answers=["yes", "no idea"])
    with vlm.prompted(prompt(place)):
        grown = vlm.encode(samples(), answers=["yes", "no idea"])
    for i in range(2):
        before, after = plain.layout(i), grown.layout(i)
        own = after.kinds != TokenKind.VIRTUAL
        assert after.token_ids is not None
        assert before.token_ids is not None
        assert np.array_equal(after.kinds[own], before.kinds)
        assert np.array_equal(after.token_ids[own], before.token_ids)
        virtual = rows(grown, "virtual", i)
        assert virtual == list(range(virtual[0], virtual[0] + SIZE))
        for name in ("question", "text", "image", "answer", "special", "last", "steps"):
            assert len(rows(grown, name, i)) == len(rows(plain, name, i))
            assert not set(rows(grown, name, i)) & set(virtual)
        assert rows(grown, "last", i)[0] == rows(plain, "last", i)[0] + SIZE
        end = rows(grown, "question", i)[0] if place == "before-question" else None
        assert virtual[0] == rows(grown, "image", i)[-1] + 1 or place == "before-question"
        assert end is None or virtual[-1] + 1 == end
    words = rows(grown, "word(colour)", 1)
    assert vlm.decode(grown.layout(1).token_ids[words].tolist()) == "colour"  # type: ignore[index]


def test_no_token_appears_that_a_prompt_has_not(vlm: TinyLlava) -> None:
    """A repetition penalty must not hit the filler."""
    plain = vlm.encode(samples())
    with vlm.prompted(prompt()):
        grown = vlm.encode(samples())
    for before, after in zip(plain.inputs["input_ids"], grown.inputs["input_ids"], strict=True):
        assert set(after.tolist()) == set(before.tolist())


def test_several_images_and_images_between_words(vlm: TinyLlava) -> None:
    two = (picture(32, 32), picture(40, 40, seed=1))
    asked = [
        Sample("before", "Compare them:", two),
        Sample("between", "Is <image> like <image> or not?", two),
        Sample("behind", "What is this? <image>", two[:1]),
    ]
    for sample, first in zip(asked, (True, False, False), strict=True):
        with vlm.prompted(prompt()):
            batch = vlm.encode([sample])
        assert rows(batch, "virtual")[-1] + 1 == rows(batch, "question")[0]
        assert (rows(batch, "virtual")[0] > rows(batch, "image")[-1]) is first
        with vlm.prompted(prompt("after-image")):
            batch = vlm.encode([sample])
        assert rows(batch, "virtual")[0] == rows(batch, "image")[-1] + 1


def test_samples_without_an_image(vlm: TinyLlava) -> None:
    text = Sample("t", "What is red?")
    with vlm.prompted(prompt()):
        together = last(vlm, vlm.encode([text, *samples()]))
        alone = last(vlm, vlm.encode([text]))
    assert torch.allclose(together[:1], alone, atol=1e-5)
    with vlm.prompted(prompt("after-image")), pytest.raises(DataError, match="has no image"):
        vlm.encode([text])


def test_a_prompt_without_words_has_its_virtual_tokens_behind_the_image(vlm: TinyLlava) -> None:
    with vlm.prompted(prompt()):
        batch = vlm.encode([replace(samples()[0], prompt="")])
        assert rows(batch, "virtual")[0] == rows(batch, "image")[-1] + 1
        with pytest.raises(DataError, match="neither a question nor an image"):
            vlm.encode([Sample("t", "")])


def test_a_prompt_at_the_limit_of_the_context(vlm: TinyLlava) -> None:
    assert vlm.context is not None
    room = vlm.context - len(vlm.encode([Sample("t", "x")]).layout(0)) + 1
    long = Sample("t", "x" * room)
    vlm.encode([long])
    with vlm.prompted(prompt(size=1)), pytest.raises(DataError, match="2049 tokens"):
        vlm.encode([long])


# ------------------------------------------------------------------ with everything else


def test_edits_see_the_vectors_and_can_change_them(vlm: TinyLlava) -> None:
    given = prompt()
    with vlm.prompted(given):
        batch = vlm.encode(samples())
        trace = vlm.trace(batch, ["llm.embed"])
        for own in trace.select("llm.embed/virtual"):
            assert torch.equal(own, given.vectors)
        zeroed = vlm.trace(batch, [], logits="last", edits=["llm.embed/virtual = zero"]).logits
    with vlm.prompted(SoftPrompt(torch.zeros(SIZE, WIDTH))):
        assert zeroed is not None
        assert torch.equal(zeroed, last(vlm, batch))


def test_donors_are_read_with_virtual_tokens(vlm: TinyLlava) -> None:
    donors = [replace(one, images=(picture(32, 32, seed=2),)) for one in samples()]
    with vlm.prompted(prompt()):
        batch = vlm.encode(samples())
        wanted = last(vlm, vlm.encode(donors))
        edits = ["llm.block.0/all = patch"]
        found = vlm.trace(batch, [], logits="last", edits=edits, donors=donors).logits
        replayed = vlm.replay(batch).edited(edits, donors=vlm.replay(vlm.encode(donors)))
    assert found is not None
    assert replayed is not None
    assert torch.allclose(found, wanted, atol=1e-5)
    assert torch.equal(replayed, found)


def test_nothing_is_shared_and_the_model_says_what_it_holds(vlm: TinyLlava) -> None:
    same = [samples()[0], replace(samples()[0], id="c", prompt="Where?")]
    said, before = vlm.describe(), last(vlm, vlm.encode(samples()))

    def hooks() -> int:
        return sum(len(each._forward_hooks) for each in vlm.module.modules())

    assert vlm.encode_shared([same]) is not None
    held = hooks()
    with vlm.prompted(prompt()):
        vlm.forward(vlm.encode(samples()))
        assert vlm.encode_shared([same]) is None
        tuned = vlm.describe()["tuned"]
    assert tuned["place"] == "before-question"
    assert tuned["digest"] != prompt(seed=1).describe()["digest"]
    assert tuned["digest"] != prompt("after-image").describe()["digest"]
    assert vlm.describe() == said
    assert torch.equal(last(vlm, vlm.encode(samples())), before)
    assert hooks() == held


# ------------------------------------------------------------------ what cannot be


def test_batches_are_of_the_soft_prompt_that_the_model_had(vlm: TinyLlava) -> None:
    plain = vlm.encode(samples())
    with vlm.prompted(prompt()):
        grown = vlm.encode(samples())
        with pytest.raises(DataError, match="has room for 0 virtual tokens"):
            vlm.forward(plain)
    with vlm.prompted(prompt(size=2)), pytest.raises(DataError, match="room for 3"):
        vlm.generate(grown, max_new_tokens=1)
    with pytest.raises(DataError, match="was encoded with virtual tokens"):
        vlm.forward(grown)


def test_one_soft_prompt_at_a_time_that_fits(vlm: TinyLlava) -> None:
    with vlm.prompted(prompt()), pytest.raises(CompositionError, match="already"):
        vlm.prompted(prompt()).__enter__()
    wide = SoftPrompt(torch.zeros(2, WIDTH + 1))
    with pytest.raises(CompositionError, match="33 wide, and the model's embedding 32"):
        vlm.prompted(wide).__enter__()
    assert vlm.soft_prompt is None


@pytest.mark.parametrize(
    ("vectors", "place"),
    [
        (torch.zeros(2, 3), "before"),
        (torch.zeros(2, 3), None),
        (torch.zeros(2, 3, dtype=torch.int64), "before-question"),
        (torch.zeros(0, 3), "before-question"),
        (torch.zeros(3), "before-question"),
        (torch.full((2, 3), torch.nan), "before-question"),
        (torch.full((2, 3), torch.inf), "after-image"),
    ],
)
def test_what_is_no_soft_prompt(vectors: torch.Tensor, place: Any) -> None:
    with pytest.raises(SpecError) as caught:
        SoftPrompt(vectors, place)
    assert caught.value.hint


class _Own(TinyLlava):
    """An adapter whose `encode` makes no room."""

    def _room(self, *given: Any) -> None:
        return None


def test_adapters_that_make_no_room_are_told(vlm: TinyLlava) -> None:
    own = _Own(vlm.module, vlm.request)
    with own.prompted(prompt()), pytest.raises(CompositionError, match="makes no room"):
        own.encode(samples())


class _OneOff(TinyLlava):
    """A mistake: the room is a row too early."""

    def _room(self, *given: Any) -> Room | None:
        found = super()._room(*given)
        if found is None:
            return None
        earlier = [[number - 1 for number in each] for each in (found.places, found.before)]
        return replace(found, places=earlier[0], before=earlier[1])


class _OneOffKept(TinyLlava):
    """A mistake: the vectors are a row beside the room that was made."""

    def _room(self, *given: Any) -> Room | None:
        found = super()._room(*given)
        return found and replace(found, before=[number - 1 for number in found.before])


class _Suite(AdapterTests):
    manifest = TINY
    mistaken: type[TinyLlava] = TinyLlava

    def build(self, folder: Any) -> None:
        write_tiny_llava(folder)

    @cached_property
    def vlm(self) -> TinyLlava:
        return self.mistaken(tiny_model().module, tiny_model().request)


@pytest.mark.parametrize("mistaken", [_OneOff, _OneOffKept])
def test_the_kit_sees_vectors_one_row_off(mistaken: type[TinyLlava], tmp_path: Any) -> None:
    suite: Any = type("Mistaken", (_Suite,), {"mistaken": mistaken})()
    _Suite().check_virtual_tokens_are_tokens(tmp_path)
    with pytest.raises(CheckFailed, match="the words give other logits"):
        suite.check_virtual_tokens_are_tokens(tmp_path)


def test_selectors_say_what_is_missing(vlm: TinyLlava) -> None:
    with pytest.raises(VlmlensError, match="'virtual' keeps no token"):
        rows(vlm.encode(samples()), "virtual")
    kinds: Sequence[str] = [str(Selector.parse(text)) for text in ("virtual", "virtual[0].mean")]
    assert list(kinds) == ["virtual", "virtual[0].mean"]
    assert Axis.ENCODER not in vlm.encode(samples()).layouts
