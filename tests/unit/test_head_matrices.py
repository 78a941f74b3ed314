"""Matrices of heads, read by running attention modules, beside the same read by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t

from vlmlens.abc import LoadRequest
from vlmlens.samples import Sample
from vlmlens.testing.model import tiny_model
from vlmlens.testing.tiny import byte_tokenizer, picture, save, small_text
from vlmlens_plugins.analysis.weights.calling import Call, Unreadable, calls
from vlmlens_plugins.analysis.weights.matrices import HeadMatrices, read_matrices
from vlmlens_plugins.analysis.weights.norms import read_norm
from vlmlens_plugins.hf.lm import TextAdapter

NEAR = 1e-5
HEADS, SHARED, SIZE, WIDTH = 4, 2, 8, 32
Matrices = dict[str, torch.Tensor]


def tokenizer() -> Any:
    return byte_tokenizer(["<s>"], bos="<s>", eos="<s>", pad="<s>", unk="<s>")


def config(kind: Any, **more: Any) -> Any:
    return kind(**small_text(tokenizer(), num_key_value_heads=SHARED, **more))


def gpt2() -> Any:
    size = len(tokenizer())
    return t.GPT2LMHeadModel(t.GPT2Config(n_embd=WIDTH, n_layer=2, n_head=HEADS, vocab_size=size))


def neox() -> Any:
    size = len(tokenizer())
    return t.GPTNeoXForCausalLM(
        t.GPTNeoXConfig(
            hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=HEADS, vocab_size=size,
        )
    )  # fmt: skip


MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: t.LlamaForCausalLM(config(t.LlamaConfig)),
    "phi3": lambda: t.Phi3ForCausalLM(config(t.Phi3Config)),
    "qwen2": lambda: t.Qwen2ForCausalLM(config(t.Qwen2Config)),
    "gemma": lambda: t.GemmaForCausalLM(config(t.GemmaConfig, head_dim=SIZE)),
    "gemma2": lambda: t.Gemma2ForCausalLM(config(t.Gemma2Config, head_dim=SIZE)),
    "olmo2": lambda: t.Olmo2ForCausalLM(config(t.Olmo2Config)),
    "granite": lambda: t.GraniteForCausalLM(config(t.GraniteConfig, residual_multiplier=0.5)),
    "qwen3": lambda: t.Qwen3ForCausalLM(config(t.Qwen3Config, head_dim=SIZE)),
    "gpt2": gpt2,
    "neox": neox,
}


@cache
def folder_of(name: str, base: Path) -> Path:
    torch.manual_seed(0)
    model = MODELS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.normal_(1.0, 0.3)
    return save(base / name, model, tokenizer())


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TextAdapter]:
    base = tmp_path_factory.mktemp("models")

    def loaded(name: str, dtype: str = "float32", attention: str | None = None) -> TextAdapter:
        folder = str(folder_of(name, base))
        return TextAdapter.load(LoadRequest(folder, device="cpu", dtype=dtype, attention=attention))

    return loaded


def read(vlm: Any, name: str = "llm.block.1.attn", *, fold: bool = True) -> HeadMatrices:
    sample = Sample("a", "What is this?")
    if name.startswith("vision"):
        sample = Sample("a", "What is this?", (picture(32, 32, seed=1),))
    (site,) = vlm.sites.resolve(name)
    given = calls(vlm, vlm.encode([sample]), [site])
    return read_matrices(vlm, site, given[name], fold=fold)


def by_head(rows: torch.Tensor) -> torch.Tensor:
    """`[heads * size, width]` as `[query heads, size, width]`; heads that are shared repeated."""
    split = rows.detach().float().unflatten(0, (-1, SIZE))
    return split.repeat_interleave(HEADS // len(split), 0)


def by_hand(name: str, model: Any, *, fold: bool = True) -> Matrices:
    """The matrices of the second block, from the weights by their names."""
    if name == "gpt2":
        block = model.transformer.h[1]
        query, key, value = block.attn.c_attn.weight.T.chunk(3)
        output, norm = block.attn.c_proj.weight, block.ln_1
    elif name == "neox":
        block = model.gpt_neox.layers[1]
        fused = block.attention.query_key_value.weight.unflatten(0, (HEADS, 3, SIZE))
        query, key, value = (fused[:, part].flatten(0, 1) for part in range(3))
        output, norm = block.attention.dense.weight.T, block.input_layernorm
    elif name == "clip":
        block = model.layers[1]
        own = block.self_attn
        query, key, value = own.q_proj.weight, own.k_proj.weight, own.v_proj.weight
        output, norm = own.out_proj.weight.T, block.layer_norm1
    else:
        block = model.model.layers[1]
        own = block.self_attn
        if name == "phi3":
            sizes = [HEADS * SIZE, SHARED * SIZE, SHARED * SIZE]
            query, key, value = own.qkv_proj.weight.split(sizes)
        else:
            query, key, value = own.q_proj.weight, own.k_proj.weight, own.v_proj.weight
        output, norm = own.o_proj.weight.T, getattr(block, "input_layernorm", None)
    found = {"query": query, "key": key, "value": value, "output": output}
    split = {part: by_head(rows) for part, rows in found.items()}
    if not fold:
        return split
    read = {} if name == "olmo2" else folded(name, norm, query, key, value)
    return split | read | {"output": split["output"] * behind(name, block)}


def behind(name: str, block: Any) -> Any:
    """What multiplies the output of an attention before it joins the residual stream."""
    if name == "granite":
        return 0.5
    if name in ("gemma2", "olmo2"):
        return block.post_attention_layernorm.weight.detach() + (name == "gemma2")
    return 1


def folded(name: str, norm: Any, *reads: torch.Tensor) -> Matrices:
    gain = norm.weight + name.startswith("gemma")
    parts = zip(("query", "key", "value"), reads, strict=True)
    found = {part: by_head(rows) * gain for part, rows in parts}
    if isinstance(norm, torch.nn.LayerNorm):
        middle = torch.eye(WIDTH) - 1 / WIDTH
        found = {part: rows @ middle for part, rows in found.items()}
    return {part: rows.detach() for part, rows in found.items()}


def error(found: HeadMatrices, expected: Matrices) -> float:
    """The largest difference, in shares of the largest number of each matrix."""
    worst = 0.0
    for part, matrix in expected.items():
        own = getattr(found, part)
        assert own.shape == matrix.shape
        worst = max(worst, float((own - matrix).abs().max() / matrix.abs().max()))
    return worst


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["llama", "phi3", "qwen2", "gemma", "granite", "gpt2", "neox"])
def test_matrices_are_those_of_the_weights(name: str, attention: str, load: Any) -> None:
    vlm = load(name, attention=attention)
    for fold in (True, False):
        found = read(vlm, fold=fold)
        assert error(found, by_hand(name, vlm.module, fold=fold)) < NEAR
        assert found.why == ""


def test_norms_on_both_sides_are_folded_in_where_scores_are_soft_capped(load: Any) -> None:
    vlm = load("gemma2", attention="eager")
    assert error(read(vlm), by_hand("gemma2", vlm.module)) < NEAR


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_matrices_of_a_vision_tower(attention: str) -> None:
    vlm = tiny_model(attention)
    found = read(vlm, "vision.block.1.attn")
    (block,) = vlm.sites.resolve("vision.block.1")
    tower = vlm.module.get_submodule(block.path.rpartition(".layers.")[0])
    assert error(found, by_hand("clip", tower)) < NEAR


@pytest.mark.parametrize("name", ["llama", "phi3", "gpt2"])
def test_a_wrong_slice_or_group_would_be_seen(name: str, load: Any) -> None:
    vlm = load(name)
    found = read(vlm)
    right = by_hand(name, vlm.module)
    wrong = {
        "the next head's output": right | {"output": right["output"].roll(1, 0)},
        "slices of another size": right
        | {"query": right["query"].transpose(0, 1).reshape(right["query"].shape)},
        "norms left out": by_hand(name, vlm.module, fold=False),
    }
    if name != "gpt2":
        once = right["value"][:: HEADS // SHARED]
        wrong["groups in turn"] = right | {"value": once.repeat(HEADS // SHARED, 1, 1)}
        wrong["groups swapped"] = right | {"key": right["key"].flip(0)}
    for what, matrices in wrong.items():
        assert error(found, matrices) > 0.1, what


@pytest.mark.parametrize("name", ["qwen3", "olmo2"])
def test_normalised_queries_are_left_out_and_values_stay(name: str, load: Any) -> None:
    vlm = load(name)
    found = read(vlm)
    assert found.query is found.key is None
    assert "normalised" in found.why
    expected = by_hand(name, vlm.module)
    assert error(found, {part: expected[part] for part in ("value", "output")}) < NEAR


def test_weights_of_half_precision_are_read_exactly_and_stay_as_they_are(load: Any) -> None:
    vlm = load("qwen2", "bfloat16")
    before = {name: each.clone() for name, each in vlm.module.state_dict().items()}
    found = read(vlm, fold=False)
    assert error(found, by_hand("qwen2", vlm.module, fold=False)) < NEAR
    for name, each in vlm.module.state_dict().items():
        assert each.dtype == before[name].dtype
        assert torch.equal(each, before[name])


@pytest.mark.parametrize(
    ("part", "message"),
    [("v_proj", "not linear in its input"), ("o_proj", "not the sum of what its heads write")],
)
def test_what_is_not_linear_is_refused(part: str, message: str, load: Any) -> None:
    vlm = load("llama")
    projection = getattr(vlm.module.model.layers[1].self_attn, part)
    plain = projection.forward
    projection.forward = lambda rows: plain(rows).tanh()
    with pytest.raises(Unreadable, match=message):
        read(vlm)


def test_a_module_that_cannot_be_run_alone_is_refused(load: Any) -> None:
    vlm = load("llama")
    own = vlm.module.model.layers[1].self_attn
    (site,) = vlm.sites.resolve("llm.block.1.attn")
    given = calls(vlm, vlm.encode([Sample("a", "x")]), [site])[site.name]
    own.o_proj = torch.nn.Linear(3, WIDTH)
    with pytest.raises(Unreadable, match="cannot be run alone"):
        read_matrices(vlm, site, given)


def test_weights_that_are_elsewhere_and_rows_of_another_stack_are_refused(load: Any) -> None:
    vlm = load("llama")
    (site,) = vlm.sites.resolve("llm.block.1.attn")
    given = calls(vlm, vlm.encode([Sample("a", "x")]), [site])[site.name]
    args, kwargs = given.arguments
    crossed = Call((args, {**kwargs, "encoder_hidden_states": torch.zeros(1, 2, WIDTH)}), None)
    with pytest.raises(Unreadable, match="cross-attention"):
        read_matrices(vlm, site, crossed)
    vlm.module.model.layers[1].self_attn.k_proj.to("meta")
    with pytest.raises(Unreadable, match="not in memory"):
        read_matrices(vlm, site, given)


def test_modules_that_do_not_run_are_left_out() -> None:
    vlm = tiny_model()
    sites = vlm.sites.resolve("{vision,llm}.block.0.attn")
    found = calls(vlm, vlm.encode([Sample("a", "No picture.")]), sites)
    assert list(found) == ["llm.block.0.attn"]


def test_norms_are_told_by_what_they_do() -> None:
    device = torch.device("cpu")
    gain = torch.linspace(0.5, 2, WIDTH)
    layer, root = torch.nn.LayerNorm(WIDTH), torch.nn.RMSNorm(WIDTH, eps=1e-6)
    with torch.no_grad():
        layer.weight.copy_(gain)
        layer.bias.normal_()
        root.weight.copy_(gain)
        for norm, centred in ((layer, True), (root, False), (lambda rows: rows * gain, False)):
            found = read_norm(norm, WIDTH, device)
            assert found is not None
            assert found.centred is centred
            torch.testing.assert_close(found.gain, gain, atol=1e-4, rtol=0)
        assert read_norm(torch.tanh, WIDTH, device) is None
        assert read_norm(torch.nn.Linear(WIDTH, WIDTH), WIDTH, device) is None
