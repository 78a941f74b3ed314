"""What components add to logits, against explicit loops over the weights; and frozen norms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from vlmlens.errors import CompositionError, SpecError
from vlmlens.passes.contributions import Contributions, contributions
from vlmlens.passes.frozen import Frozen
from vlmlens.samples import Sample
from vlmlens.testing.model import tiny_model
from vlmlens.testing.tiny import picture
from vlmlens.tokens import TokenKind
from vlmlens_adapter_blip2.checks import OptChecks
from vlmlens_adapter_clip.checks import ClipChecks
from vlmlens_adapter_paligemma.checks import PaliGemma2Checks

ONE = Sample("a", "What is this?", (picture(32, 32, seed=1),))
TOKENS = [5, 9, 17]


def found_in(vlm: Any, **settings: Any) -> Contributions:
    return contributions(vlm, vlm.encode([ONE]), [TOKENS], **settings)


def added(found: Contributions, name: str) -> torch.Tensor:
    return found.added[list(found.names).index(name), 0]


def last(vlm: Any, *sites: str) -> list[torch.Tensor]:
    """Activations of the last row, in float64."""
    trace = vlm.trace(vlm.encode([ONE]), list(sites))
    return [trace.select(f"{site}/last")[0].double() for site in sites]


def close(one: torch.Tensor, other: torch.Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(one, other, atol=atol, rtol=1e-5)


def test_llama_by_hand() -> None:
    """RMSNorm, grouped heads without biases: each head's columns of `o_proj`, one at a time."""
    vlm = tiny_model()
    text: Any = vlm.module.get_submodule("model.language_model")
    head = vlm.module.get_submodule("lm_head").weight.double()
    found = found_in(vlm)
    (end,) = last(vlm, "llm.block.1")
    scale = text.norm.weight.double() / (end.square().mean() + text.norm.variance_epsilon).sqrt()
    names, sites = [], []
    for number, layer in enumerate(text.layers):
        heads, mlp = last(vlm, f"llm.block.{number}.attn.heads", f"llm.block.{number}.mlp")
        for k in range(4):
            written = (
                layer.self_attn.o_proj.weight.double()[:, 8 * k : 8 * k + 8] @ heads[8 * k :][:8]
            )
            sites.append(written)
            names.append(f"llm.block.{number}.attn.heads[{k}]")
        sites.append(mlp)
        names.append(f"llm.block.{number}.mlp_out")
    for name, written in zip(names, sites, strict=True):
        expected = torch.stack([(head[token] * scale * written).sum() for token in TOKENS])
        close(added(found, name), expected)
    embedded = end - sum(sites)
    expected = torch.stack([(head[token] * scale * embedded).sum() for token in TOKENS])
    close(added(found, "llm.block.0:in"), expected)
    swapped = names[0].replace("[0]", "[1]")
    assert not torch.allclose(added(found, names[0]), added(found, swapped), atol=1e-4)
    assert not bool(found.constant.any())
    close(found.added.sum(0), found.total)
    close(found.total, found.logits)


def test_opt_by_hand() -> None:
    """LayerNorm subtracts the mean; it has a bias, and so have the projections."""
    vlm: Any = OptChecks().load()
    norm: Any = vlm.module.get_submodule(vlm.sites.canonical["llm.norm"].path)
    attention: Any = vlm.module.get_submodule(vlm.sites.canonical["llm.block.0"].path).self_attn
    drawn(norm)
    attention.out_proj.bias.data += torch.arange(32) / 32
    found = found_in(vlm)
    head = vlm.module.get_submodule(vlm.sites.canonical["llm.head"].path).weight.double()
    (end,) = last(vlm, "llm.block.1")
    std = (end.var(correction=0) + norm.eps).sqrt()
    weight, bias = norm.weight.double(), norm.bias.double()

    def by_hand(written: torch.Tensor) -> torch.Tensor:
        return head[TOKENS] @ (weight * (written - written.mean()) / std)

    (heads,) = last(vlm, "llm.block.0.attn.heads")
    size = len(heads) // 4
    for k in range(4):
        columns = slice(k * size, (k + 1) * size)
        written = attention.out_proj.weight.double()[:, columns] @ heads[columns]
        close(added(found, f"llm.block.0.attn.heads[{k}]"), by_hand(written))
    close(added(found, "llm.block.0.attn_out (bias)"), by_hand(attention.out_proj.bias.double()))
    close(found.constant[0], head[TOKENS] @ bias)
    assert float(found.constant.abs().max()) > 1e-3
    close(found.added.sum(0) + found.constant, found.logits)
    uncentred = head[TOKENS] @ (weight * attention.out_proj.bias.double() / std)
    assert not torch.allclose(by_hand(attention.out_proj.bias.double()), uncentred, atol=1e-3)


def test_gemma_by_hand() -> None:
    """The final norm multiplies by 1 + w, a norm stands behind the attention, logits are capped."""
    vlm: Any = PaliGemma2Checks().vlm
    found = found_in(vlm)
    text: Any = vlm.module.get_submodule("model.language_model")
    head = vlm.module.get_submodule(vlm.sites.canonical["llm.head"].path).weight.double()
    layer = text.layers[1]
    end, heads = last(vlm, "llm.block.3", "llm.block.1.attn.heads")
    out = layer.self_attn.o_proj.weight.double() @ heads
    behind, final = layer.post_attention_layernorm, text.norm

    def frozen(norm: Any, at: torch.Tensor, written: torch.Tensor) -> torch.Tensor:
        return (1 + norm.weight.double()) * written / (at.square().mean() + norm.eps).sqrt()

    count = vlm.sites.heads(vlm.sites.resolve("llm.block.1.attn")[0]).count
    size = len(heads) // count
    for k in range(count):
        columns = slice(k * size, (k + 1) * size)
        own = layer.self_attn.o_proj.weight.double()[:, columns] @ heads[columns]
        expected = head[TOKENS] @ frozen(final, end, frozen(behind, out, own))
        close(added(found, f"llm.block.1.attn.heads[{k}]"), expected)
    cap = 5.0
    close(cap * torch.tanh(found.total / cap), found.logits)
    assert float((found.total - found.logits).abs().max()) > 1e-4
    close(found.added.sum(0) + found.constant, found.total)


def test_other_rows_and_what_is_refused() -> None:
    vlm: Any = tiny_model()
    found = found_in(vlm, row="text[1]")
    logits = vlm.forward(vlm.encode([ONE]), logits="all").logits
    row = int(vlm.encode([ONE]).layout(0).positions(TokenKind.TEXT)[1])
    close(found.total[0], logits.flatten(0, 1)[row, TOKENS].double())
    with pytest.raises(SpecError, match=r"rows"):
        found_in(vlm, row="text")
    with pytest.raises(SpecError, match="lists of tokens"):
        contributions(vlm, vlm.encode([ONE]), [[1], [2]])
    clip: Any = ClipChecks().vlm
    with pytest.raises(CompositionError):
        found_in(clip)


# ------------------------------------------------------------------ frozen norms


class OnePlus(nn.RMSNorm):
    """Gemma's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        exact = x.float()
        scale = torch.rsqrt(exact.square().mean(-1, keepdim=True) + 1e-6)
        return (exact * scale * (1 + self.weight.float())).type_as(x)


def drawn(norm: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in norm.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return norm


def rows_of(width: int, *, mean: float = 0.7) -> torch.Tensor:
    return torch.randn(3, width, generator=torch.Generator().manual_seed(1)) + mean


NORMS: dict[str, tuple[Callable[[int], nn.Module], bool]] = {
    "LayerNorm": (nn.LayerNorm, True),
    "RMSNorm": (nn.RMSNorm, False),
    "1 + w": (OnePlus, False),
    "no weight": (lambda width: nn.LayerNorm(width, elementwise_affine=False), True),
    "nothing": (lambda width: nn.Identity(), False),
}


@pytest.mark.parametrize("width", [8, 9, 33])
@pytest.mark.parametrize("kind", NORMS)
def test_a_frozen_norm_is_linear_and_gives_what_the_norm_gives(kind: str, width: int) -> None:
    make, centres = NORMS[kind]
    norm, rows = drawn(make(width)), rows_of(width)
    with torch.inference_mode():
        frozen = Frozen.of(norm, rows)
        expected = norm(rows).double()
    assert frozen.centres == centres
    close(frozen(rows[None])[0] + frozen.bias, expected, atol=1e-5)
    parts = torch.stack([rows * 0.25, rows_of(width, mean=3), rows * 0.75 - rows_of(width, mean=3)])
    close(frozen(parts).sum(0) + frozen.bias, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["LayerNorm", "RMSNorm"])
@pytest.mark.parametrize("size", [1e-3, 1e6])
def test_a_frozen_norm_of_small_and_of_huge_rows(kind: str, size: float) -> None:
    norm, rows = drawn(NORMS[kind][0](16)), rows_of(16) * size
    with torch.inference_mode():
        frozen = Frozen.of(norm, rows)
        close(frozen(rows[None])[0] + frozen.bias, norm(rows).double(), atol=1e-5)


def test_rows_whose_mean_is_0_do_not_hide_whether_the_mean_is_subtracted() -> None:
    rows = rows_of(16).double()
    rows = (rows - rows.mean(-1, keepdim=True)).round(decimals=2)
    rows[:, 0] -= rows.sum(-1)
    for make, centres in NORMS.values():
        with torch.inference_mode():
            assert Frozen.of(drawn(make(16)).double(), rows).centres == centres


def test_zeros_in_the_weights_and_in_the_rows() -> None:
    norm, rows = drawn(nn.RMSNorm(8)), rows_of(8)
    norm.weight.data[2:] = 0  # type: ignore[union-attr]
    rows[1] = 0
    with torch.inference_mode():
        frozen = Frozen.of(norm, rows)
        close(frozen(rows[None])[0], norm(rows).double())
    norm.weight.data[:] = 0  # type: ignore[union-attr]
    with torch.inference_mode():
        assert not bool(Frozen.of(norm, rows)(rows[None]).any())


def test_bfloat16() -> None:
    norm, rows = drawn(nn.LayerNorm(64)).bfloat16(), rows_of(64).bfloat16()
    with torch.inference_mode():
        frozen = Frozen.of(norm, rows)
        expected = norm(rows).double()
    assert frozen.centres
    close(frozen(rows[None])[0] + frozen.bias, expected, atol=5e-2)


@pytest.mark.parametrize(
    "norm",
    [
        torch.tanh,
        lambda rows: rows.flip(-1),
        partial(torch.softmax, dim=-1),
        lambda rows: rows / rows.square().mean(-1, keepdim=True).sqrt(),  # gives no number at 0
        lambda rows: rows * float("inf"),
    ],
)
def test_what_is_no_scaling_is_refused(norm: Callable[[torch.Tensor], torch.Tensor]) -> None:
    with pytest.raises(CompositionError, match="cannot be frozen"):
        Frozen.of(norm, rows_of(9))
