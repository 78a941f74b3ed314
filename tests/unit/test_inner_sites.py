"""Sites inside blocks: inputs, heads, and what blocks add to the residual stream."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vlmlens.errors import SiteNotFound, SiteSilent, SiteSyntaxError, VlmlensError
from vlmlens.passes.tracing import hooked
from vlmlens.sites import Axis, Site, SiteMap, SiteTemplate, read_anatomy
from vlmlens.sites.anatomy import Heads
from vlmlens.testing.adapter import AdapterTests
from vlmlens.testing.model import TINY, TinyLlava, tiny_model, write_tiny_llava
from vlmlens_plugins.analysis._columns import choose

BLOCKS = (SiteTemplate("llm.block.{i}", ("layers.{i}",), Axis.LLM),)


class Attention(nn.Module):
    """Six query heads of 4 in a model of width 16: their product is not the width."""

    def __init__(self, **said: int) -> None:
        super().__init__()
        self.o_proj = nn.Linear(24, 16)
        for name, value in said.items():
            setattr(self, name, value)

    def forward(
        self, hidden_states: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        out: torch.Tensor = self.o_proj(torch.cat([hidden_states, hidden_states[..., :8]], -1))
        return out


class Block(nn.Module):
    def __init__(self, attention: nn.Module, **more: nn.Module) -> None:
        super().__init__()
        self.self_attn, self.mlp = attention, nn.Linear(16, 16)
        for name, module in more.items():
            self.add_module(name, module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + getattr(self, "lambda_1", 1) * self.self_attn(mask=None, hidden_states=x)
        out: torch.Tensor = x + self.mlp(x)
        return out


class Net(nn.Module):
    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def mapped(net: nn.Module) -> SiteMap:
    return SiteMap(BLOCKS, [name for name, _ in net.named_modules()], anatomy=read_anatomy(net))


def read(net: nn.Module, sites: list[Site], edits: Any = ()) -> dict[str, torch.Tensor]:
    seen: dict[str, torch.Tensor] = {}
    with hooked(net, sites, lambda s, t: seen.__setitem__(s.name, t), edits):  # type: ignore[arg-type]
        net(torch.arange(32.0).reshape(1, 2, 16))
    return seen


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"num_heads": 6}, (6, 6, 4)),
        ({"head_dim": 4, "num_key_value_groups": 3}, (6, 2, 4)),
        ({"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 4}, (6, 2, 4)),
        ({"key_value_proj_dim": 8}, (3, 3, 8)),
    ],
)
def test_heads_are_counted_by_the_projections_input(
    said: dict[str, int], expected: tuple[int, int, int]
) -> None:
    sites = mapped(Net(Block(Attention(**said))))
    (attention,) = sites.resolve("llm.block.0.attn")
    heads = sites.heads(attention)
    assert heads == Heads("layers.0.self_attn.o_proj", *expected)
    (joined,) = sites.resolve("llm.block.0.attn.heads")
    assert (joined.path, joined.side) == (heads.projection, "in")
    assert sites.heads(joined) == heads


@pytest.mark.parametrize("said", [{}, {"num_heads": 5}, {"num_heads": 6, "head_dim": 5}])
def test_heads_that_do_not_add_up_are_refused_with_the_reason(said: dict[str, int]) -> None:
    sites = mapped(Net(Block(Attention(**said))))
    with pytest.raises(SiteNotFound, match=r"heads of 'llm.block.0.attn'.* not known: it is no"):
        sites.resolve("llm.block.0.attn.heads")


def test_single_heads() -> None:
    net = Net(Block(Attention(num_heads=6)), Block(Attention(num_heads=6)))
    sites = mapped(net)
    names = [site.name for site in sites.resolve("llm.block.*.attn.heads[0-1,5]")]
    assert names == [f"llm.block.{i}.attn.heads[{h}]" for i in (0, 1) for h in (0, 1, 5)]
    seen = read(
        net, sites.resolve("llm.block.1.attn.heads[*]") + sites.resolve("llm.block.1.attn.heads")
    )
    pieces = [value for name, value in seen.items() if "[" in name]
    assert torch.equal(torch.cat(pieces, -1), seen["llm.block.1.attn.heads"])
    with pytest.raises(SiteNotFound, match="no head 6"):
        sites.resolve("llm.block.0.attn.heads[4-99999999]")
    assert sites.width(sites.resolve("llm.block.0.attn.heads[2]")[0], {}) == 4
    assert sites.width(sites.resolve("llm.block.0.attn.heads")[0], {}) == 24


def test_an_edited_head_leaves_the_others() -> None:
    net = Net(Block(Attention(num_heads=6)))
    sites = mapped(net)
    (joined,), (second,) = (sites.resolve(f"llm.block.0.attn.heads{h}") for h in ("", "[1]"))
    before = read(net, [joined])[joined.name]
    after = read(net, [joined, second], [(second, torch.zeros_like)])
    assert not after[second.name].any()
    assert torch.equal(after[joined.name][..., 8:], before[..., 8:])
    assert torch.equal(after[joined.name][..., :4], before[..., :4])


def test_inputs_by_position_and_by_keyword() -> None:
    net = Net(Block(Attention()), Block(Attention()))
    sites = mapped(net)
    block, attention = (
        sites.resolve(name)[0] for name in ("llm.block.1:in", "llm.block.1.attn:in")
    )
    (first,) = sites.resolve("llm.block.0")
    seen = read(net, [block, attention, first])
    assert torch.equal(seen["llm.block.1:in"], seen["llm.block.0"])
    assert torch.equal(seen["llm.block.1.attn:in"], seen["llm.block.0"])
    edited = read(net, [block, attention], [(attention, torch.zeros_like)])
    assert not edited["llm.block.1.attn:in"].any()
    assert torch.equal(edited["llm.block.1:in"], seen["llm.block.1:in"])
    assert sites.width(block, {block.path: 16}) == 16
    assert sites.width(attention, {attention.path: 16}) is None


def test_what_has_no_input() -> None:
    sites = mapped(Net(Block(Attention(num_heads=6))))
    for name in ("llm.block.0.attn.heads:in", "llm.block.0.attn_out:in"):
        with pytest.raises(SiteSyntaxError, match="has no input of its own"):
            sites.resolve(name)
    embedding = nn.Sequential(nn.Embedding(3, 2))
    (site,) = SiteMap([], ["0"]).resolve("0:in")
    with (
        pytest.raises(SiteSilent, match="given no tensor of floats"),
        hooked(embedding, [site], print),
    ):
        embedding(torch.tensor([[1, 2]]))


def test_branches_end_behind_norms_and_scales() -> None:
    def out(**more: nn.Module) -> list[str]:
        sites = mapped(Net(Block(Attention(), **more)))
        return [sites.resolve(f"llm.block.0.{name}")[0].path for name in ("attn_out", "mlp_out")]

    assert out() == ["layers.0.self_attn", "layers.0.mlp"]
    llama = {"input_layernorm": nn.Identity(), "post_attention_layernorm": nn.Identity()}
    assert out(**llama) == ["layers.0.self_attn", "layers.0.mlp"]
    gemma = {**llama, "post_feedforward_layernorm": nn.Identity()}
    assert out(**gemma) == [
        "layers.0.post_attention_layernorm", "layers.0.post_feedforward_layernorm",
    ]  # fmt: skip


def test_a_scaled_branch_is_read_and_edited_as_it_joins() -> None:
    block = Block(Attention())
    block.lambda_1 = nn.Parameter(torch.tensor([0.5] * 15 + [0.0]), requires_grad=False)
    net = Net(block)
    sites = mapped(net)
    (added,), (attention,), (mlp,), (given,), (whole,) = (
        sites.resolve(f"llm.block.0{name}")
        for name in (".attn_out", ".attn", ".mlp_out", ":in", "")
    )
    seen = read(net, [added, attention, mlp, given, whole])
    assert torch.equal(seen[added.name], seen[attention.name] * block.lambda_1)
    assert torch.allclose(seen[given.name] + seen[added.name] + seen[mlp.name], seen[whole.name])

    def same_but_one(rows: torch.Tensor) -> torch.Tensor:
        return torch.cat([rows[..., :1] + 3, rows[..., 1:]], -1)

    edited = read(net, [added, attention], [(added, same_but_one)])
    assert torch.allclose(edited[added.name][..., 0], seen[added.name][..., 0] + 3)
    assert torch.equal(edited[attention.name][..., 1:], seen[attention.name][..., 1:])
    with pytest.raises(VlmlensError, match="multiplies it by 0"):
        read(net, [], [(added, lambda rows: rows + 1)])


def test_a_block_whose_parts_are_not_known() -> None:
    sites = mapped(Net(nn.Sequential(nn.Linear(16, 16))))
    with pytest.raises(SiteNotFound, match="do not add their parts, or this is not known"):
        sites.resolve("llm.block.0.attn_out")


def test_stored_columns_are_chosen_by_heads_and_inputs() -> None:
    stored = [
        f"llm.block.{i}{end}/last"
        for i in (0, 1)
        for end in ("", ":in", ".attn.heads[0]", ".attn.heads[7]")
    ]
    assert choose(["llm.block.*:in"], stored) == ["llm.block.0:in/last", "llm.block.1:in/last"]
    assert choose(["llm.block.1.attn.heads[*]"], stored) == [stored[6], stored[7]]
    assert choose(["llm.block.*.attn.heads[0-3]/last"], stored) == [stored[2], stored[6]]
    assert choose(["llm.block.[0-1]"], stored) == [stored[0], stored[4]]


class Kit(AdapterTests):
    """The kit of the tiny model, whose heads are found by `shown`."""

    manifest = TINY

    @property
    def adapter(self) -> type[TinyLlava]:
        return Shown

    def build(self, folder: Path) -> None:
        write_tiny_llava(folder)


class Shown(TinyLlava):
    @cached_property
    def sites(self) -> SiteMap:
        return MistakenSites(
            self.templates,
            [n for n, _ in self.module.named_modules()],
            (),
            read_anatomy(self.module),
        )


class MistakenSites(SiteMap):
    mistake = ""

    def matching(self, pattern: str) -> list[Site]:
        found = super().matching(pattern)
        if ".heads" in pattern and self.mistake == "output":
            return [replace(site, side="out") for site in found]
        if pattern.endswith("attn_out") and self.mistake == "norm":
            return [replace(site, path=site.path.replace("self_attn", "mlp")) for site in found]
        return found

    def heads(self, site: Site) -> Heads | None:
        found = super().heads(site)
        if found and self.mistake == "order":
            return replace(found, kv_count=found.count)
        return found


@pytest.mark.parametrize(
    ("mistake", "check", "message"),
    [
        ("", "heads_are_heads", ""),
        ("output", "heads_are_heads", "slice of the projection's output"),
        ("order", "heads_take_their_values", "read the values of the first"),
        ("norm", "blocks_add_their_parts", "its parts sum to"),
    ],
)
def test_the_kit_sees_mistakes(
    monkeypatch: pytest.MonkeyPatch, mistake: str, check: str, message: str
) -> None:
    monkeypatch.setattr(MistakenSites, "mistake", mistake)
    result = Kit().run_check(check)
    assert result.outcome == ("failed" if mistake else "passed"), result.detail
    assert message in result.detail


def test_the_tiny_model_shares_values_among_heads() -> None:
    vlm = tiny_model()
    (attention,) = vlm.sites.resolve("llm.block.1.attn")
    heads = vlm.sites.heads(attention)
    assert heads is not None
    assert heads.count == 2 * heads.kv_count
