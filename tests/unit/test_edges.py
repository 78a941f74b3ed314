"""Edges of attention: which cells are closed, in which mask, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vlmlens.errors import EditError, EditWithoutEffect, SiteNotFound
from vlmlens.passes.edges import cut_places
from vlmlens.passes.edits import EdgeCut, WrittenEdit
from vlmlens.registry import Registry
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing.model import TinyLlava, tiny_model
from vlmlens.testing.tiny import picture

ALL = "llm.block.*.attn"


def cut(text: str) -> EdgeCut:
    return WrittenEdit.parse(f"{text} = cut").cut


def samples() -> list[Sample]:
    return [
        Sample("a", "What is this?", (picture(32, 32),)),
        Sample("b", "Name the colour of the largest thing:", (picture(32, 32, seed=1),)),
    ]


@pytest.fixture(params=["sdpa", "eager"])
def vlm(request: pytest.FixtureRequest) -> TinyLlava:
    return tiny_model(request.param)


def logits(vlm: TinyLlava, given: list[Sample], *edits: Any) -> torch.Tensor:
    with vlm.edited(list(edits)):
        found = vlm.forward(vlm.encode(given), logits="last").logits
    assert found is not None
    return found


@pytest.mark.parametrize("together", [False, True])
def test_a_cut_image_does_not_matter(vlm: TinyLlava, together: bool) -> None:
    """All later rows in all layers: the answer is the same for any two images of equal grid."""
    one, other = samples()
    swapped = Sample("c", one.prompt, other.images)
    edit = cut(f"{ALL} / text <- image")
    rest = [other] if together else []
    first, second = logits(vlm, [one, *rest], edit), logits(vlm, [swapped, *rest], edit)
    assert torch.equal(first[0], second[0])
    assert not torch.equal(logits(vlm, [one]), logits(vlm, [swapped]))


def test_a_batch_is_like_single_samples_and_eager_like_sdpa() -> None:
    edits, heads = [cut("llm.block.0.attn / last <- image")], "llm.block.0.attn.heads"
    found = []
    for name in ("sdpa", "eager"):
        trace = tiny_model(name).trace(tiny_model(name).encode(samples()), [heads], edits=edits)
        found.append(trace.select(f"{heads}/last"))
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-6)
    alone = torch.cat([logits(tiny_model("sdpa"), [one], *edits) for one in samples()])
    together = logits(tiny_model("sdpa"), samples(), *edits)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_one_head_of_four(vlm: TinyLlava) -> None:
    batch = vlm.encode(samples())
    heads = "llm.block.1.attn.heads"
    plain = vlm.trace(batch, [heads]).select(f"{heads}/last")
    one = vlm.trace(batch, [heads], edits=[cut("llm.block.1.attn.heads[2] / last <- image")])
    whole = vlm.trace(batch, [heads], edits=[cut("llm.block.1.attn / last <- image")])
    changed = (one.select(f"{heads}/last") != plain).any(0).reshape(4, -1).any(1)
    assert changed.tolist() == [False, False, True, False]
    width = plain.shape[1] // 4
    part = slice(2 * width, 3 * width)
    a, b = one.select(f"{heads}/last")[:, part], whole.select(f"{heads}/last")[:, part]
    torch.testing.assert_close(a, b)


def test_cuts_hold_while_writing(vlm: TinyLlava) -> None:
    edits = [cut(f"{ALL} / text <- image"), cut(f"{ALL} / steps[1:] <- image")]
    one, other = samples()
    texts = []
    for given in (one, Sample("c", one.prompt, other.images)):
        batch = vlm.encode([given])
        texts.append(vlm.generate(batch, max_new_tokens=4, edits=edits)[0].token_ids)
    assert texts[0] == texts[1]


def dropped(text: str) -> EdgeCut:
    return WrittenEdit.parse(f"{text} = cut(renormalise=false)").cut


def by_hand(vlm: TinyLlava, given: list[Sample], keys: slice) -> torch.Tensor:
    """What the last rows get in block 0 without some keys, from eager weights and values."""
    batch, values = vlm.encode(given), "llm.block.0.self_attn.v_proj"
    trace = vlm.trace(batch, [values])
    with torch.inference_mode():
        weights = vlm.module(**batch.inputs, output_attentions=True).attentions[0]
    found = []
    for i, each in enumerate(vlm.encode(given).layouts[Axis.LLM].samples):
        rows = torch.from_numpy(each.rows) % weights.shape[-1]
        kept = weights[i, :, rows[-1]].clone()
        kept[:, rows[keys]] = 0
        value = trace[values][i].reshape(weights.shape[-1], 2, 8).repeat_interleave(2, 1)
        found.append(torch.einsum("hk,khd->hd", kept, value).flatten())
    return torch.stack(found)


def test_dropped_edges_lose_what_their_keys_gave(vlm: TinyLlava) -> None:
    """Weights by hand, in a batch; the rest keeps its weights. Heads alone; and cuts together."""
    batch, heads = vlm.encode(samples()), "llm.block.0.attn.heads"

    def last(*edits: EdgeCut) -> torch.Tensor:
        found = vlm.trace(batch, [heads], edits=edits).select(f"{heads}/last")
        assert isinstance(found, torch.Tensor)
        return found

    wanted = by_hand(tiny_model("eager"), samples(), slice(2, 9))
    one, two = dropped("llm.block.0.attn / last <- all[2:6]"), dropped(
        "llm.block.0.attn / all[-3:] <- all[4:9]"
    )  # fmt: skip
    for edits in ([dropped("llm.block.0.attn / last <- all[2:9]")], [one, two], [two, one]):
        torch.testing.assert_close(last(*edits), wanted, atol=1e-6, rtol=1e-6)
    head = last(dropped("llm.block.0.attn.heads[2] / last <- all[2:9]")).reshape(2, 4, 8)
    mixed = last().reshape(2, 4, 8).clone()
    mixed[:, 2] = wanted.reshape(2, 4, 8)[:, 2]
    torch.testing.assert_close(head, mixed, atol=1e-6, rtol=1e-6)
    assert not last(dropped("llm.block.0.attn / last <- all")).any()


def test_dropped_and_closed_edges_together(vlm: TinyLlava) -> None:
    """A closed cell has no weight to lose: the order does not matter, and softmax spreads it."""
    batch, heads = vlm.encode(samples()), "llm.block.0.attn.heads"
    closed, last = cut("llm.block.0.attn / last <- image"), "llm.block.0.attn / last"
    edits = [closed, dropped(f"{last} <- all[-1]")]
    one, other = (
        vlm.trace(batch, [heads], edits=each).select(f"{heads}/last")
        for each in (edits, edits[::-1])
    )
    rest = vlm.trace(batch, [heads], edits=[closed, dropped(f"{last} <- all[:-1]")])
    whole = vlm.trace(batch, [heads], edits=[closed]).select(f"{heads}/last")
    assert torch.equal(one, other)
    torch.testing.assert_close(one + rest.select(f"{heads}/last"), whole, atol=1e-6, rtol=1e-6)


def test_dropped_edges_while_writing(vlm: TinyLlava) -> None:
    """With and without a cache, and as a pass over prompt and answer says."""
    edits = [dropped(f"{ALL} / text <- image"), dropped(f"{ALL} / steps[1:] <- image[:5]")]
    batch, config = vlm.encode(samples()), vlm.module.generation_config
    written = [one.token_ids for one in vlm.generate(batch, max_new_tokens=4, edits=edits)]
    config.use_cache = False
    try:
        again = [one.token_ids for one in vlm.generate(batch, max_new_tokens=4, edits=edits)]
    finally:
        config.use_cache = True
    assert again == written
    plain = [one.token_ids for one in vlm.generate(batch, max_new_tokens=4)]
    assert plain != written
    with vlm.edited(edits):
        said = vlm.forward(vlm.encode(samples(), answers=written), logits="all").logits
    assert said is not None
    assert [row[-5:-1].argmax(-1).tolist() for row in said] == [list(one) for one in written]
    assert "forward" not in vars(
        vlm.module.get_submodule("model.language_model.layers.0.self_attn")
    )


@pytest.mark.parametrize("together", [False, True])
def test_a_dropped_edge_that_was_closed_is_an_error(vlm: TinyLlava, together: bool) -> None:
    edits = [dropped("llm.block.0.attn / all[3] <- last")]
    edits += [dropped("llm.block.0.attn / all[3:] <- image")] if together else []
    with pytest.raises(EditWithoutEffect, match="closed nothing that was open in the sample 'a'"):
        logits(vlm, samples(), *edits)


def test_other_ways_of_attention_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flash attention, say, in which no weights can be seen."""
    vlm = tiny_model("sdpa")
    (site,) = vlm.sites.resolve("llm.block.0.attn")
    monkeypatch.setattr(
        vlm.module.get_submodule(site.path),
        "forward",
        lambda hidden_states, **_: (hidden_states, None),
    )
    with pytest.raises(EditError, match=r"calls torch's softmax or .* 0 times, not once"):
        logits(vlm, samples(), dropped("llm.block.0.attn / last <- image"))


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        ("llm.block.0.attn / last <- all", EditError, "leaves a query of the sample 'a' no key"),
        ("llm.block.0.attn / image <- last", EditWithoutEffect, "closed nothing that was open"),
        ("llm.block.0.mlp / last <- image", EditError, "takes no attention mask"),
        ("vision.block.0.attn / all <- image", EditError, "language models only"),
        ("llm.block.0.attn.heads[9] / last <- image", SiteNotFound, "no head 9"),
    ],
)
def test_what_cannot_be_cut(
    vlm: TinyLlava, edit: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        logits(vlm, samples(), cut(edit))


def test_flash_attention_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = tiny_model("sdpa")
    (place,) = cut_places(cut("llm.block.0.attn / last <- image"), vlm.sites)
    config: Any = vlm.module.get_submodule(place.site.path).config
    monkeypatch.setattr(config, "_attn_implementation_internal", "flash_attention_2")
    from vlmlens.passes.edges import Cutting

    cutting = Cutting(place, vlm.encode(samples()), False)
    module = vlm.module.get_submodule(place.site.path)
    with pytest.raises(EditError, match="flash_attention_2 attention takes no table"):
        cutting(module, ((torch.zeros(1, 2, 32),), {"attention_mask": None}))


def test_edges_as_text() -> None:
    found = Registry([]).edit(" llm.block.[8-16].attn / last <- image[2:5]  = cut ")
    assert isinstance(found, EdgeCut)
    assert (found.site, str(found.queries), str(found.keys)) == (
        "llm.block.[8-16].attn", "last", "image[2:5]",
    )  # fmt: skip
    assert found.renormalise
    assert found.describe() == {"edit": found.text}
    lost = Registry([]).edit("llm.block.0.attn/last <- image = cut(renormalise=False)")
    assert isinstance(lost, EdgeCut)
    assert not lost.renormalise
    assert str(WrittenEdit.parse(found.text)) == "llm.block.[8-16].attn/last <- image[2:5] = cut"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("llm.block.0.attn/last <- image = zero", "does something else to edges"),
        ("llm.block.0.attn/last <- image = cut(2)", "does something else to edges"),
        ("llm.block.0.attn/last <- image = cut(renormalise=2)", "does something else to edges"),
        ("llm.block.0.attn/last <- image = cut(heads=2)", "does something else to edges"),
        ("llm.block.0.attn/last <- image.mean = cut", "pools rows"),
        ("llm.block.0.attn/last <-  = cut", "which rows read which"),
        ("llm.block.0.attn/ <- image = cut", "which rows read which"),
    ],
)
def test_what_is_no_edge(text: str, message: str) -> None:
    with pytest.raises(EditError, match=message):
        Registry([]).edit(text)
