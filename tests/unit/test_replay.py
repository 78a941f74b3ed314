"""Replay: edited passes of one batch that run only what the edit can change."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

import vlmlens.registry  # noqa: F401  edits as text need it
from vlmlens.errors import EditError, EditWithoutEffect
from vlmlens.passes.others import Others
from vlmlens.samples import Sample
from vlmlens.testing.model import TinyLlava, tiny_model
from vlmlens.testing.tiny import picture
from vlmlens.tokens import Selector

EDITS = (
    "vision.block.1/image = zero",
    "projector/image = scale(0.5)",
    "llm.block.1/last = patch",
    "llm.block.0.attn.heads[1]/image = patch",
    "llm.block.0:in/all = patch",
    "llm.block.1.attn / last <- image = cut",
    "llm.norm/last = scale(0.5)",
)


@pytest.fixture
def vlm() -> TinyLlava:
    return tiny_model()


def samples(seed: int = 0) -> list[Sample]:
    return [
        Sample("a", "What is this?", (picture(32, 32, seed=seed),)),
        Sample("b", "Name the colour of it:", (picture(32, 32, seed=seed + 1),)),
    ]


@pytest.mark.parametrize("edit", EDITS)
def test_logits_are_those_of_whole_passes(vlm: TinyLlava, edit: str) -> None:
    donors = samples(7)
    replay, given = vlm.replay(vlm.encode(samples())), vlm.replay(vlm.encode(donors))
    whole = vlm.trace(vlm.encode(samples()), [], logits="last", edits=[edit], donors=donors).logits
    assert replay.logits is not None
    assert whole is not None
    for _ in range(2):  # nothing of the first pass is left
        found = replay.edited([edit], donors=given)
        assert found is not None
        assert torch.equal(found, whole)
    assert not torch.equal(replay.logits, whole)


def test_blocks_before_the_edit_do_not_run(vlm: TinyLlava) -> None:
    replay, ran = vlm.replay(vlm.encode(samples())), Counter[str]()
    inside = {f"{name}.mlp": vlm.sites.resolve(f"{name}.mlp")[0].path for name in blocks(vlm)}
    inside["projector"] = f"{vlm.sites.resolve('projector')[0].path}.linear_1"
    for name, path in inside.items():
        vlm.module.get_submodule(path).register_forward_hook(
            lambda *given, name=name: ran.update([name])
        )
    replay.edited(["llm.block.1/last = zero"])
    replay.rows(vlm.sites.resolve("llm.block.0")[0], Selector.parse("last"))
    assert not ran
    replay.edited(["projector/image = zero"])
    assert ran == Counter({"llm.block.0.mlp": 1, "llm.block.1.mlp": 1})
    ran.clear()
    replay.edited(["llm.block.1.attn.heads[0]/last = zero"])
    assert list(ran) == ["llm.block.1.mlp"]
    replay.edited(["vision.block.1.attn/image = zero"])
    assert ran["projector"] == ran["llm.block.0.mlp"] == 1
    assert ran["vision.block.0.mlp"] == 0


def test_edits_around_it_stay(vlm: TinyLlava) -> None:
    """Also those inside of blocks that would not run, whose own errors must stay possible."""
    around, inner = "llm.block.0.attn.heads[0]/last = zero", "llm.block.1/image = scale(2)"
    batch = vlm.encode(samples())
    with vlm.edited([around]):
        found = vlm.replay(batch).edited([inner])
        whole = vlm.trace(batch, [], logits="last", edits=[inner]).logits
    assert found is not None
    assert whole is not None
    assert torch.equal(found, whole)


def test_edits_without_effect_are_errors(vlm: TinyLlava) -> None:
    replay = vlm.replay(vlm.encode(samples()))
    with pytest.raises(EditWithoutEffect, match="changed no value"):
        replay.edited(["llm.block.1/last = scale(1)"])
    with pytest.raises(EditError, match="1 donors for 2 samples"):
        replay.edited(["llm.block.1/last = patch"], donors=vlm.replay(vlm.encode(samples(7)[:1])))


def test_what_others_are_like_is_measured_once(vlm: TinyLlava) -> None:
    batch, others = vlm.encode(samples()), Others(vlm, samples(9))
    replay = vlm.replay(batch)
    edit = "llm.block.1/last = mean"
    first = replay.edited([edit], others=others)
    spreads = others._spreads
    assert list(spreads) == [("llm.block.1", "last")]
    again = replay.edited([edit], others=Others.measured(vlm, spreads))
    assert first is not None
    assert again is not None
    assert torch.equal(first, again)


def test_a_models_writing_into_an_output_does_no_harm(vlm: TinyLlava) -> None:
    """As Qwen3-VL adds image features to what a block gave."""
    batch = vlm.encode(samples())
    block = vlm.module.get_submodule(vlm.sites.resolve("llm.block.0")[0].path)
    handle = block.register_forward_hook(lambda module, args, output: output.add_(1))
    replay = vlm.replay(batch)
    edit = "llm.block.1/last = zero"
    whole = vlm.trace(batch, [], logits="last", edits=[edit]).logits
    for _ in range(2):
        found = replay.edited([edit])
        assert found is not None
        assert whole is not None
        assert torch.equal(found, whole)
    handle.remove()


@pytest.mark.parametrize("name", ["llm.block.1.attn.heads[1]", "llm.block.1", "projector"])
@pytest.mark.parametrize("around", [(), ("llm.block.1/image = zero", "projector/image = zero")])
def test_rows_are_those_of_a_trace(vlm: TinyLlava, name: str, around: tuple[str, ...]) -> None:
    batch = vlm.encode(samples())
    (site,) = vlm.sites.resolve(name)
    with vlm.edited(around):
        replay = vlm.replay(batch)
        wanted = vlm.trace(batch, [site.name]).select(f"{site.name}/image")
    found = replay.rows(site, Selector.parse("image"))
    assert all(torch.equal(one, two) for one, two in zip(found, wanted, strict=True))


def blocks(vlm: TinyLlava) -> list[str]:
    return [name for name in vlm.sites.canonical if ".block." in name]
