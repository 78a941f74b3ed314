"""Qwen-VL: the conformance kit on four architectures."""

from __future__ import annotations

from vlmlens.tuned.components import parameters_of
from vlmlens_adapter_qwen2vl.checks import (
    Qwen2VLChecks,
    Qwen3VLChecks,
    Qwen3VLMoeChecks,
    Qwen25VLChecks,
)


class TestQwen2VL(Qwen2VLChecks):
    pass


class TestQwen25VL(Qwen25VLChecks):
    pass


class TestQwen3VL(Qwen3VLChecks):
    pass


class TestQwen3VLMoe(Qwen3VLMoeChecks):
    pass


def test_the_tower_is_what_comes_before_the_merger() -> None:
    vlm = TestQwen3VL().vlm
    found = {
        component: {name.split(".")[2] for name in parameters_of(vlm, component)}
        for component in ("vision", "projector")
    }
    assert found["vision"] == {"patch_embed", "pos_embed", "blocks"}
    assert found["projector"] == {"merger", "deepstack_merger_list"}
