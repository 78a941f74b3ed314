"""The tokenizers of the original layout, which name classes of their remote code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from tokenizers import AddedToken, Tokenizer, processors
from transformers.utils.hub import cached_file

from vlmlens.errors import CheckpointError
from vlmlens_adapter_internvl.chat import END_OF_TURN
from vlmlens_adapter_internvl.sentencepiece import read_sentencepiece


def load_tokenizer(model: str, arguments: Mapping[str, Any]) -> Any:
    """A checkpoint's tokenizer: `tokenizer.json`, Qwen's two files, or InternLM2's SentencePiece.

    Raises:
        CheckpointError: It has none, or a token would get another id than the checkpoint says.
    """
    files = _Files(model, arguments)
    settings = files.json("tokenizer_config.json")
    added = _added_tokens(settings, files.json("added_tokens.json"))
    if (whole := files.path("tokenizer.json")) is not None:
        tokenizer = _fast(Tokenizer.from_file(str(whole)), settings)
    elif (vocabulary := files.path("vocab.json")) is not None:
        tokenizer = _qwen(vocabulary, files, settings, added)
    elif (pieces := files.path("tokenizer.model")) is not None:
        tokenizer = _internlm(pieces, settings, added)
    else:
        raise CheckpointError(f"{model!r} has no tokenizer.", subject=model)
    for number, token in added.items():
        if tokenizer.convert_tokens_to_ids(token.content) != number:
            raise CheckpointError(
                f"The tokenizer of {model!r} gives {token.content!r} another id than {number}.",
                subject=model,
            )
    return tokenizer


class _Files:
    """The files of one checkpoint."""

    def __init__(self, model: str, arguments: Mapping[str, Any]) -> None:
        self.model, self.revision = model, arguments.get("revision")

    def path(self, name: str) -> Path | None:
        found = cached_file(
            self.model, name, revision=self.revision, _raise_exceptions_for_missing_entries=False
        )
        return None if found is None else Path(found)

    def json(self, name: str) -> dict[str, Any]:
        path = self.path(name)
        return {} if path is None else dict(json.loads(path.read_text(encoding="utf-8")))


def _added_tokens(settings: Mapping[str, Any], listed: Mapping[str, int]) -> dict[int, AddedToken]:
    """Tokens beyond the vocabulary, by id, in the order of their ids."""
    tokens = {
        number: AddedToken(name, special=True, normalized=False) for name, number in listed.items()
    }
    for number, token in settings.get("added_tokens_decoder", {}).items():
        tokens[int(number)] = AddedToken(**token)
    return dict(sorted(tokens.items()))


def _fast(backend: Tokenizer, settings: Mapping[str, Any]) -> Any:
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    roles = {name: _content(settings[name]) for name in names if settings.get(name)}
    roles.setdefault("eos_token", END_OF_TURN)
    roles.setdefault("pad_token", roles["eos_token"])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **roles)


def _content(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def _qwen(
    vocabulary: Path,
    files: _Files,
    settings: Mapping[str, Any],
    added: Mapping[int, AddedToken],
) -> Any:
    merges = files.path("merges.txt")
    if merges is None:
        raise CheckpointError(f"{files.model!r} lacks merges.txt.", subject=files.model)
    backend = transformers.Qwen2Tokenizer(
        vocab=json.loads(vocabulary.read_text(encoding="utf-8")), merges=_pairs(merges)
    ).backend_tokenizer
    backend = _without_added(backend)
    backend.add_tokens(list(added.values()))
    return _fast(backend, settings)


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


def _internlm(pieces: Path, settings: Mapping[str, Any], added: Mapping[int, AddedToken]) -> Any:
    backend = read_sentencepiece(pieces, {n: token.content for n, token in added.items()})
    backend.add_tokens(list(added.values()))
    begin = _content(settings.get("bos_token", "<s>"))
    if settings.get("add_bos_token", True):
        backend.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, backend.token_to_id(begin))]
        )
    return _fast(backend, settings)
