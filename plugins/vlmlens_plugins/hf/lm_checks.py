"""The conformance kit on tiny text-only models."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens.testing.tiny import byte_tokenizer, save, small_text
from vlmlens_plugins.hf.manifests import LM

_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class TextChecks(AdapterTests):
    """The kit for models without images."""

    manifest: ClassVar[Manifest] = LM
    images: ClassVar[bool] = False


class GPT2Checks(TextChecks):
    """GPT-2: absolute positions, fused projections as `Conv1D`, no chat template."""

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        tokenizer = _of_one_token()
        config = t.GPT2Config(
            n_embd=32, n_layer=3, n_head=4, n_positions=128, **_ids(tokenizer)
        )  # fmt: skip
        save(folder, t.GPT2LMHeadModel(config), tokenizer)


class GPTNeoXChecks(TextChecks):
    """GPT-NeoX (Pythia): attention and MLP side by side, queries, keys and values by head."""

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        tokenizer = _of_one_token()
        config = t.GPTNeoXConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
            max_position_embeddings=128, **_ids(tokenizer),
        )  # fmt: skip
        save(folder, t.GPTNeoXForCausalLM(config), tokenizer)


class LlamaChecks(TextChecks):
    """Llama, a base model: a tokenizer that puts the first token itself, shared keys."""

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        tokenizer = byte_tokenizer(
            ["<unk>", "<s>", "</s>"], bos="<s>", eos="</s>", unk="<unk>", add_bos=True
        )
        save(
            folder,
            t.LlamaForCausalLM(t.LlamaConfig(**small_text(tokenizer, num_hidden_layers=3))),
            tokenizer,
        )


class Qwen2Checks(TextChecks):
    """Qwen 2, instruction-tuned: a chat template, no first token."""

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import transformers as t

        ends = ["<|endoftext|>", "<|user|>", "<|assistant|>"]
        tokenizer = byte_tokenizer(ends, eos=ends[0], pad=ends[0])
        tokenizer.chat_template = _TEMPLATE
        save(
            folder,
            t.Qwen2ForCausalLM(t.Qwen2Config(**small_text(tokenizer, num_hidden_layers=3))),
            tokenizer,
        )


def _of_one_token() -> Any:
    """A tokenizer with one special token for all, which it does not put anywhere itself."""
    end = "<|endoftext|>"
    return byte_tokenizer([end], bos=end, eos=end, unk=end)


def _ids(tokenizer: Any) -> dict[str, Any]:
    end = tokenizer.eos_token_id
    return {"vocab_size": len(tokenizer), "bos_token_id": end, "eos_token_id": end}


CHECKS = (GPT2Checks, GPTNeoXChecks, LlamaChecks, Qwen2Checks)
