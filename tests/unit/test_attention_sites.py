"""`attn` after a block: its self-attention, whatever the family calls the module."""

from __future__ import annotations

import pytest

from vlmlens.errors import SiteNotFound
from vlmlens.sites import Axis, SiteMap, SiteTemplate

BLOCKS = (
    SiteTemplate("vision.block.{i}", ("visual.blocks.{i}",), Axis.VISION),
    SiteTemplate("llm.block.{i}", ("model.layers.{i}",), Axis.LLM),
)


def tree(*inside: str, vision: str = "attn") -> SiteMap:
    modules = ["visual", "visual.blocks.0", f"visual.blocks.0.{vision}", "model"]
    for i in range(2):
        modules += [f"model.layers.{i}", *(f"model.layers.{i}.{name}" for name in inside)]
    return SiteMap(BLOCKS, modules)


def found(sites: SiteMap, pattern: str) -> list[tuple[str, str]]:
    return [(site.name, site.path) for site in sites.resolve(pattern)]


@pytest.mark.parametrize(
    "inside",
    ["attn", "self_attn", "self_attention", "attention", "layer.0.SelfAttention"],
)
def test_every_spelling(inside: str) -> None:
    sites = tree("layer", "layer.0", inside, f"{inside}.q_proj", "mlp", "layer.1.EncDecAttention")
    expected = [(f"llm.block.{i}.attn", f"model.layers.{i}.{inside}") for i in range(2)]
    assert found(sites, "llm.block.*.attn") == expected
    (query,) = found(sites, "llm.block.-1.attn.q_proj")
    assert query == ("llm.block.1.attn.q_proj", f"model.layers.1.{inside}.q_proj")
    (site,) = sites.resolve("llm.block.1.attn#2")
    assert (site.axis, site.index, site.call) == (Axis.LLM, 1, 2)


def test_both_towers_at_once_with_different_spellings() -> None:
    assert found(tree("self_attn"), "*.block.0.attn") == [
        ("vision.block.0.attn", "visual.blocks.0.attn"),
        ("llm.block.0.attn", "model.layers.0.self_attn"),
    ]


def test_a_choice_with_other_modules() -> None:
    names = [name for name, _ in found(tree("self_attn", "mlp"), "llm.block.0.{mlp,attn}")]
    assert sorted(names) == ["llm.block.0.attn", "llm.block.0.mlp"]


def test_any_module_names_the_attention_once() -> None:
    paths = [path for _, path in found(tree("self_attn", "mlp"), "llm.block.0.*")]
    assert paths == ["model.layers.0.self_attn", "model.layers.0.mlp"]


def test_the_outer_one_of_nested_modules() -> None:
    sites = tree("attention", "attention.attention", "crossattention", "crossattention.attention")
    assert found(sites, "llm.block.0.attn") == [("llm.block.0.attn", "model.layers.0.attention")]
    (inner,) = found(sites, "llm.block.0.attn.attn")
    assert inner[1] == "model.layers.0.attention.attention"


def test_two_side_by_side_are_nobodys() -> None:
    with pytest.raises(SiteNotFound):
        tree("self_attn", "attention").resolve("llm.block.0.attn")


def test_blocks_without_it_are_left_out() -> None:
    """A hybrid model: only some blocks attend."""
    modules = ["model.layers.0", "model.layers.0.linear_attn"]
    modules += ["model.layers.1", "model.layers.1.self_attn"]
    sites = SiteMap(BLOCKS, modules)
    assert [name for name, _ in found(sites, "llm.block.*.attn")] == ["llm.block.1.attn"]
    with pytest.raises(SiteNotFound):
        sites.resolve("llm.block.0.attn")
    with pytest.raises(SiteNotFound):
        tree("mlp").resolve("llm.block.*.attn")
