"""The tokenizers of the original layout, which name classes of their remote code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from tokenizers import AddedToken, Tokenizer, processors

from vlmlens.errors import CheckpointError
from vlmlens.hf.checkpoints import checkpoint_file, checkpoint_json
from vlmlens.hf.fast_tokenizer import fast_tokenizer, named_tokens
from vlmlens_adapter_internvl.chat import END_OF_TURN
from vlmlens_adapter_internvl.sentencepiece import read_sentencepiece


def load_tokenizer(model: str, arguments: Mapping[str, Any]) -> Any:
    """A checkpoint's tokenizer: `tokenizer.json`, Qwen's two files, or InternLM2's SentencePiece.

    Raises:
        CheckpointError: It has none, or a token would get another id than the checkpoint says.
    """
    settings = checkpoint_json(model, "tokenizer_config.json", arguments)
    added = _added_tokens(settings, checkpoint_json(model, "added_tokens.json", arguments))
    if (whole := checkpoint_file(model, "tokenizer.json", arguments)) is not None:
        backend = Tokenizer.from_file(str(whole))
    elif (vocabulary := checkpoint_file(model, "vocab.json", arguments)) is not None:
        merges = checkpoint_file(model, "merges.txt", arguments)
        if merges is None:
            raise CheckpointError(f"{model!r} lacks merges.txt.", subject=model)
        backend = _qwen(vocabulary, merges, added)
    elif (pieces := checkpoint_file(model, "tokenizer.model", arguments)) is not None:
        backend = _internlm(pieces, settings, added)
    else:
        raise CheckpointError(f"{model!r} has no tokenizer.", subject=model)
    tokenizer = fast_tokenizer(backend, settings, eos=END_OF_TURN)
    for number, token in added.items():
        if tokenizer.convert_tokens_to_ids(token.content) != number:
            raise CheckpointError(
                f"The tokenizer of {model!r} gives {token.content!r} another id than {number}.",
                subject=model,
            )
    return tokenizer


def _added_tokens(settings: Mapping[str, Any], listed: Mapping[str, int]) -> dict[int, AddedToken]:
    """Tokens beyond the vocabulary, by id, in the order of their ids."""
    tokens = {
        number: AddedToken(name, special=True, normalized=False) for name, number in listed.items()
    }
    for number, token in settings.get("added_tokens_decoder", {}).items():
        tokens[int(number)] = AddedToken(**token)
    return dict(sorted(tokens.items()))


def _qwen(vocabulary: Path, merges: Path, added: Mapping[int, AddedToken]) -> Tokenizer:
    backend: Any = transformers.Qwen2Tokenizer(
        vocab=json.loads(vocabulary.read_text(encoding="utf-8")), merges=_pairs(merges)
    ).backend_tokenizer
    plain = _without_added(backend)
    plain.add_tokens(list(added.values()))
    return plain


def _pairs(merges: Path) -> list[Any]:
    lines = merges.read_text(encoding="utf-8").splitlines()
    pairs = (tuple(line.split()) for line in lines if line and not line.startswith("#version"))
    return [(left, right) for left, right in pairs]


def _without_added(backend: Tokenizer) -> Tokenizer:
    """The tokenizer without the tokens that its class adds by itself, at ids of its choosing."""
    plain = Tokenizer(backend.model)
    plain.normalizer, plain.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    plain.decoder = backend.decoder
    return plain


def _internlm(
    pieces: Path, settings: Mapping[str, Any], added: Mapping[int, AddedToken]
) -> Tokenizer:
    backend = read_sentencepiece(pieces, {n: token.content for n, token in added.items()})
    backend.add_tokens(list(added.values()))
    begin = named_tokens(settings).get("bos_token", "<s>")
    if settings.get("add_bos_token", True):
        backend.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, backend.token_to_id(begin))]
        )
    return backend
