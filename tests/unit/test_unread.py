"""Blocks that nothing reads are left out where no wanted site needs them, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from vlmlens.passes.skipping import needless, passing_on
from vlmlens.samples import Sample
from vlmlens.testing.model import TinyLlava, request
from vlmlens.testing.tiny import picture
from vlmlens_plugins.extract.activations import ActivationExtractor
from vlmlens_plugins.extract.attention import AttentionExtractor

TOWER = "model.vision_tower"


@pytest.fixture(scope="module")
def vlm() -> TinyLlava:
    return TinyLlava.load(request())


def block(vlm: TinyLlava, number: int) -> str:
    return vlm.sites.canonical[f"vision.block.{number}"].path


def samples(count: int) -> list[Sample]:
    return [Sample(f"s{i}", "What?" + i * "!", (picture(40, 40, seed=i),)) for i in range(count)]


def test_the_tower_ends_before_its_last_block(vlm: TinyLlava) -> None:
    assert vlm.config.vision_feature_layer == -2
    assert vlm.unread == ("vision.block.2",)


@pytest.mark.parametrize(
    "patterns",
    [
        ["llm.block.*"],
        ["projector", "llm.head"],
        ["vision.block.1", "llm.block.1.mlp"],
        ["vision.block.0.mlp.fc1"],
        ["llm.block.0#0"],
    ],
)
def test_sites_that_do_not_need_it(vlm: TinyLlava, patterns: list[str]) -> None:
    assert needless(vlm, vlm.sites.resolve_all(patterns)) == (block(vlm, 2),)


@pytest.mark.parametrize(
    "patterns",
    [
        ["llm.block.*", "vision.block.*"],
        ["vision.block.2"],
        ["vision.block.2.mlp"],
        ["vision.block.2.self_attn.q_proj"],
        [TOWER],
        [f"{TOWER}.post_layernorm"],
        ["model"],
    ],
)
def test_sites_that_need_it(vlm: TinyLlava, patterns: list[str]) -> None:
    assert needless(vlm, vlm.sites.resolve_all(patterns)) == ()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("wanted", "runs"),
    [(["vision.block.1/image.mean", "llm.block.*/all"], 1), (["llm.head/last"], 1), ([], 3)],
)
def test_extraction_keeps_every_bit(
    vlm: TinyLlava, shared: bool, wanted: list[str], runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_out, ran = extracted(vlm, wanted, shared)
    assert ran == runs, "only the first pass is whole, where the block is not needed"
    monkeypatch.setattr(TinyLlava, "unread", ())
    whole, ran = extracted(vlm, wanted, shared)
    assert ran == 3
    assert left_out == whole


def test_attention_keeps_every_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = TinyLlava.load(request(attention="eager"))
    in_llm = ["llm.block.*.attn/last"]
    for wanted, runs in ((in_llm, 1), (["vision.block.2.attn/image.mean", *in_llm], 3)):
        left_out, ran = extracted(vlm, wanted, False, AttentionExtractor)
        assert ran == runs
        with monkeypatch.context() as patched:
            patched.setattr(TinyLlava, "unread", ())
            assert extracted(vlm, wanted, False, AttentionExtractor) == (left_out, 3)


def extracted(
    vlm: TinyLlava, wanted: list[str], shared: bool, kind: type[Any] = ActivationExtractor
) -> tuple[dict[str, bytes], int]:
    """The columns of the last of three batches, and how often the last vision block computed."""
    group = samples(3)
    if shared:
        group = [replace(sample, images=group[0].images) for sample in group]
    extractor = kind(vlm, wanted, kind.Options())
    calls: list[int] = []
    inside = vlm.module.get_submodule(f"{block(vlm, 2)}.mlp")
    handle = inside.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(3):
        batch = vlm.encode_shared([group]) if shared else vlm.encode(group)
        assert batch is not None
        columns = extractor.extract(batch)
    handle.remove()
    return {name: values.array.tobytes() for name, values in columns.items()}, len(calls)


def test_a_block_that_is_read_would_be_missed(vlm: TinyLlava) -> None:
    batch = vlm.encode(samples(2))
    whole = vlm.trace(batch, ["projector"])["projector"]
    with passing_on(vlm.module, [block(vlm, 1)]):
        less = vlm.trace(batch, ["projector"])["projector"]
    assert not torch.equal(whole, less)
    assert torch.equal(whole, vlm.trace(batch, ["projector"])["projector"])


def test_blocks_compute_again_after_an_error(vlm: TinyLlava) -> None:
    path = block(vlm, 2)
    module: Any = vlm.module.get_submodule(path)
    before = module.__dict__["forward"] = module.forward

    def interrupted() -> None:
        with passing_on(vlm.module, [path]):
            assert module.forward(3, mask=None) == 3
            assert module.forward(hidden=4) == 4
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert module.__dict__.pop("forward") is before
    with passing_on(vlm.module, [path]):
        assert "forward" in module.__dict__
    assert "forward" not in module.__dict__
