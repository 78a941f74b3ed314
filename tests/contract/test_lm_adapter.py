"""The adapter of text-only models: the kit, more kinds of blocks, prompts, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import transformers as t

from vlmlens.abc import LoadRequest
from vlmlens.compose.plan import compose
from vlmlens.errors import CheckpointError, DataError, SiteNotFound
from vlmlens.passes.contributions import contributions
from vlmlens.registry import Registry
from vlmlens.samples import Sample
from vlmlens.spec.model import make_spec
from vlmlens.testing.tiny import byte_tokenizer, picture, save, wake
from vlmlens_plugins.demo.adapter import DemoAdapter
from vlmlens_plugins.hf import lm_checks
from vlmlens_plugins.hf.lm import TextAdapter, TextOptions

END = "<|endoftext|>"


class TestGPT2(lm_checks.GPT2Checks):
    pass


class TestGPTNeoX(lm_checks.GPTNeoXChecks):
    pass


class TestLlama(lm_checks.LlamaChecks):
    pass


class TestQwen2(lm_checks.Qwen2Checks):
    pass


# ---------------------------------------------------------------------- other kinds of blocks

LLAMA_LIKE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 128,
}  # fmt: skip
OLD = {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 128, "rotary_dim": 4}
BLOCKS: dict[str, Any] = {
    "parallel": lambda ids: t.GPTJConfig(**OLD, **ids),
    "wrapped attention": lambda ids: t.GPTNeoConfig(
        hidden_size=32, num_layers=2, num_heads=4, max_position_embeddings=128,
        attention_types=[[["global", "local"], 1]], **ids,
    ),
    "two layers for an MLP": lambda ids: t.OPTConfig(
        **LLAMA_LIKE, ffn_dim=64, word_embed_proj_dim=32, **ids
    ),
    "parts that add": lambda ids: t.BloomConfig(hidden_size=32, n_layer=2, n_head=4, **ids),
    "an MLP that adds": lambda ids: t.MptConfig(d_model=32, n_layers=2, n_heads=4, **ids),
    "in place": lambda ids: t.FalconConfig(**LLAMA_LIKE, **ids),
    "norms behind": lambda ids: t.Gemma2Config(
        **LLAMA_LIKE, num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=16, **ids
    ),
    "scaled logits": lambda ids: t.CohereConfig(
        **LLAMA_LIKE, num_key_value_heads=2, logit_scale=0.5, **ids
    ),
    "a norm without weights": lambda ids: t.OlmoConfig(**LLAMA_LIKE, **ids),
    "scaled parts": lambda ids: t.GraniteConfig(
        **LLAMA_LIKE, num_key_value_heads=2, residual_multiplier=0.3, logits_scaling=4.0, **ids
    ),
}  # fmt: skip
CHECKS = (
    "batch_equals_single", "lens_identity", "blocks_add_their_parts", "heads_are_heads", "generate",
)  # fmt: skip


class OneBlock(lm_checks.TextChecks):
    """The kit on a model of one of these kinds."""

    config: ClassVar[Any]

    def build(self, folder: Path) -> None:
        tokenizer = byte_tokenizer([END], bos=END, eos=END)
        end = tokenizer.eos_token_id
        ids = {"vocab_size": len(tokenizer), "bos_token_id": end, "eos_token_id": end,
               "pad_token_id": None}  # fmt: skip
        save(folder, t.AutoModelForCausalLM.from_config(self.config(ids)), tokenizer)


@pytest.mark.parametrize("kind", BLOCKS)
def test_heads_and_branches_of_other_blocks(kind: str) -> None:
    kit = type(kind, (OneBlock,), {"config": staticmethod(BLOCKS[kind])})()
    for side in ("attn_out", "mlp_out", "attn.heads"):
        assert kit.vlm.sites.resolve(f"llm.block.1.{side}")
    for name in CHECKS:
        result = kit.run_check(name)
        assert result.outcome == "passed", result
    found = contributions(kit.vlm, kit.vlm.encode(kit.samples), [[5, 7]] * 3)
    rest = [number for number, name in enumerate(found.names) if "(the rest)" in name]
    assert not found.added[rest].abs().gt(1e-5).any()
    assert torch.allclose(found.added.sum(0) + found.constant, found.total, atol=1e-5)


def test_blocks_that_do_more_have_no_branches() -> None:
    """Doge and MiniMax weigh the residual stream, GPT-1 and small OPT models norm the sums."""
    weighed = t.DogeConfig(**LLAMA_LIKE, num_key_value_heads=2, vocab_size=9)
    normed = t.OPTConfig(
        **LLAMA_LIKE, ffn_dim=64, word_embed_proj_dim=16, do_layer_norm_before=False, vocab_size=9
    )
    factors = t.MiniMaxConfig(**LLAMA_LIKE, num_key_value_heads=2, vocab_size=9)
    first = t.OpenAIGPTConfig(n_layer=2, n_head=4, n_embd=32, vocab_size=9)
    for config in (weighed, normed, factors, first):
        with torch.device("meta"):
            model = t.AutoModelForCausalLM.from_config(config)
        vlm = TextAdapter(model, LoadRequest("x"))
        assert "llm.block.1" in vlm.sites.canonical
        with pytest.raises(SiteNotFound, match="do not add their parts, or this is not known"):
            vlm.sites.resolve("llm.block.1.mlp_out")


def test_without_a_stack_of_blocks_the_error_says_what_there_is() -> None:
    class Strange(t.GPT2LMHeadModel):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.transformer.h = torch.nn.Sequential(*self.transformer.h)

    with torch.device("meta"):
        model = Strange(t.GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9))
    with pytest.raises(CheckpointError, match=r"stack of blocks of Strange .* modules: none\."):
        _ = TextAdapter(model, LoadRequest("x")).sites


# ---------------------------------------------------------------------- beside a VLM


def test_a_vlms_language_model_has_the_same_sites_and_numbers(tmp_path: Path) -> None:
    own = DemoAdapter.load(LoadRequest(device="cpu", dtype="float32"))
    inner: Any = own.module
    alone = t.LlamaForCausalLM(inner.config.text_config)
    alone.model.load_state_dict(inner.model.language_model.state_dict())
    alone.lm_head.load_state_dict(inner.lm_head.state_dict())
    alone.save_pretrained(tmp_path)
    own.tokenizer.save_pretrained(tmp_path)
    text = TextAdapter.load(
        LoadRequest(str(tmp_path), device="cpu", dtype="float32", options=TextOptions(chat=False))
    )
    names = list(text.sites.canonical)
    assert names == [name for name in own.sites.canonical if name.startswith("llm.")]
    sample = Sample("a", own.prompt_text(Sample("a", "What colour is it?")))
    batches = own.encode([Sample("a", "What colour is it?")]), text.encode([sample])
    ids = [batch.inputs["input_ids"].tolist() for batch in batches]
    assert ids[0] == ids[1]
    inside = [*names, "llm.block.1.attn.heads[1]", "llm.block.0.mlp_out"]
    first, second = (
        vlm.trace(batch, inside, logits="all")
        for vlm, batch in zip((own, text), batches, strict=True)
    )
    for name in inside:
        assert torch.equal(first[name], second[name]), name


# ---------------------------------------------------------------------- prompts


@pytest.mark.parametrize(
    ("kit", "options", "written"),
    [
        (lm_checks.GPT2Checks, {}, f"{END}Hm?"),
        (lm_checks.GPT2Checks, {"bos": False}, "Hm?"),
        (lm_checks.LlamaChecks, {"bos": False}, "<s>Hm?"),
        (lm_checks.Qwen2Checks, {}, "<|user|>Hm?\n<|assistant|>"),
        (lm_checks.Qwen2Checks, {"chat": False}, "Hm?"),
    ],
)
def test_prompts_as_they_are_written(
    kit: type[lm_checks.TextChecks], options: dict[str, bool], written: str
) -> None:
    vlm = kit().load(options=TextOptions(**options))
    batch = vlm.encode([Sample("a", "Hm?")])
    assert vlm.decode(batch.inputs["input_ids"][0].tolist()) == written


def test_an_end_that_the_tokenizer_puts_is_left_out(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(["<s>", "</s>"], bos="<s>", eos="</s>", add_bos=True, add_eos=True)
    config = t.GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=len(tokenizer))
    save(tmp_path, wake(t.GPT2LMHeadModel(config)), tokenizer)
    vlm = TextAdapter.load(LoadRequest(str(tmp_path), device="cpu"))
    assert vlm.decode(vlm.encode([Sample("a", "Hm?")]).inputs["input_ids"][0].tolist()) == "<s>Hm?"


def test_prompts_without_tokens_and_with_a_space_at_the_end() -> None:
    vlm = lm_checks.GPT2Checks().load(options=TextOptions(bos=False))
    assert "no tokens" in vlm.read_prompt(Sample("a", "")).problem
    with pytest.raises(DataError, match="no tokens"):
        vlm.encode([Sample("a", "")])
    assert not vlm.read_prompt(Sample("a", "It is")).note
    assert "white space" in vlm.read_prompt(Sample("a", "It is ")).note
    assert not lm_checks.GPT2Checks().vlm.read_prompt(Sample("a", "")).problem


def test_a_checkpoint_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    lm_checks.GPT2Checks().build(tmp_path)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        TextAdapter.skeleton(LoadRequest(str(tmp_path))).encode([Sample("a", "Hm?")])


def test_images_are_refused_before_weights_are_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    lm_checks.GPT2Checks().build(folder)
    (folder / "model.safetensors").unlink()
    picture(32, 32).save(tmp_path / "p.png")
    data = tmp_path / "data.jsonl"
    data.write_text('{"image": "p.png", "prompt": "What is it?", "label": "x"}', encoding="utf-8")
    spec = make_spec({"model": str(folder), "adapter": "lm", "data": str(data)})
    with pytest.raises(DataError, match=r"has an image, and GPT2LMHeadModel .* reads text only"):
        compose(spec, Registry.default())
