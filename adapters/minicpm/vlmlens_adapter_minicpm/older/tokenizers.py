"""The tokenizers of the older generations, without the classes that checkpoints name for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers

from vlmlens.errors import CheckpointError
from vlmlens.hf.checkpoints import checkpoint_file, checkpoint_json
from vlmlens.hf.fast_tokenizer import tokenizer_backend
from vlmlens.hf.sentencepiece_tokenizer import sentencepiece_tokenizer

UNKNOWN = "<unk>"
"""Stands where a token of an image goes."""
MARKS = (
    "<image>", "</image>", "<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>", "<point>",
    "</point>", "<slice>", "</slice>",
)  # fmt: skip
"""Special tokens of all generations, at which text is cut."""
TURN, END_OF_TURN, END_OF_TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
_LATER = (*MARKS, "<image_id>", "</image_id>", UNKNOWN, TURN, END_OF_TURN, END_OF_TEXT)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""MiniCPM-V 2.6's, for checkpoints whose files hold none."""


def slow_tokenizer(model: str, arguments: Mapping[str, Any]) -> Any:
    """MiniCPM-V 2's: SentencePiece, text between special tokens by itself with its dummy prefix.

    A `tokenizer.json` is ignored: it gives other ids.

    Args:
        model: Hub id or folder.
        arguments: For `from_pretrained`; only the revision is used.

    Raises:
        CheckpointError: There is no `tokenizer.model`, or it lacks special tokens.
        MissingDependency: sentencepiece is not installed.
    """
    file = _file(model, "tokenizer.model", arguments)
    known = sentencepiece_tokenizer(file).get_vocab()
    _check_known(known, MARKS, file)
    return sentencepiece_tokenizer(file, {name: known[name] for name in MARKS})


def fast_tokenizer(model: str, arguments: Mapping[str, Any]) -> Any:
    """MiniCPM-V 2.6's and MiniCPM-o 2.6's: Qwen2's with more special tokens.

    Args:
        model: Hub id or folder.
        arguments: For `from_pretrained`; only the revision is used.

    Raises:
        CheckpointError: There is no `tokenizer.json`, or it lacks special tokens.
    """
    file = _file(model, "tokenizer.json", arguments)
    backend = tokenizer_backend(file)
    _check_known(backend.get_vocab(), _LATER, file)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        unk_token=UNKNOWN,
    )
    tokenizer.chat_template = _template(model, arguments)
    return tokenizer


def _file(model: str, name: str, arguments: Mapping[str, Any]) -> Path:
    file = checkpoint_file(model, name, arguments)
    if file is None:
        raise CheckpointError(f"{model!r} has no {name}.", subject=model)
    return file


def _template(model: str, arguments: Mapping[str, Any]) -> str:
    """The chat template that a checkpoint's files hold, else `CHAT_TEMPLATE`."""
    alone = checkpoint_file(model, "chat_template.jinja", arguments)
    if alone is not None:
        return alone.read_text(encoding="utf-8")
    settings = checkpoint_json(model, "tokenizer_config.json", arguments)
    found = settings.get("chat_template")
    if found is not None and not isinstance(found, str):
        raise CheckpointError(
            f"{model!r} has several chat templates; only one is known.", subject=model
        )
    return found or CHAT_TEMPLATE


def _check_known(known: Mapping[str, int], wanted: Sequence[str], file: Path) -> None:
    lacking = [name for name in wanted if name not in known]
    if lacking:
        raise CheckpointError(
            f"{file.name} lacks the token {' and '.join(lacking)}.",
            subject=str(file),
            hint="It belongs to another model.",
        )
