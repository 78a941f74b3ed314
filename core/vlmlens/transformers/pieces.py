"""SentencePiece tokenizers (`tokenizer.model`) that cut text as the slow Llama tokenizer did.

The text is cut at the added tokens first, and each piece of text between them is encoded by
SentencePiece on its own, with its dummy prefix: transformers' `legacy` behaviour, for which the
checkpoints of several families were trained. Needs the package sentencepiece.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from vlmlens.errors import CheckpointError, MissingDependency


def piece_tokenizer(
    file: Path,
    added: Mapping[str, int] | None = None,
    *,
    strip: bool = False,
    plain: Mapping[str, int] | None = None,
    bos: str | None = "<s>",
    eos: str | None = "</s>",
    unk: str = "<unk>",
    pad: str | None = None,
) -> Any:
    """A tokenizer of transformers over a SentencePiece model. It puts nothing around a text.

    Args:
        file: `tokenizer.model`.
        added: Special tokens at which the text is cut, with the id that each must have: that of
            the piece of that name, or the next one after the vocabulary.
        strip: Whether white space on both sides of an added token is dropped, as transformers did
            before 4.34.
        plain: Added tokens that are no special tokens: decoding keeps them.
        bos: Begins a text.
        eos: Ends it.
        unk: Stands for the unknown.
        pad: Fills up; None: `unk`.

    Raises:
        MissingDependency: sentencepiece is not installed.
        CheckpointError: The file is no SentencePiece model, or an added token gets another id.
    """
    if importlib.util.find_spec("sentencepiece") is None:
        raise MissingDependency(
            "This checkpoint's tokenizer needs sentencepiece, which is not installed.",
            subject="sentencepiece",
            hint="pip install sentencepiece",
        )
    from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

    class PieceTokenizer(SentencePieceBackend):
        model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    make: type[Any] = PieceTokenizer
    roles = {"bos_token": bos, "eos_token": eos, "unk_token": unk, "pad_token": pad or unk}
    try:
        tokenizer = make(
            vocab_file=str(file), legacy=True, **{k: v for k, v in roles.items() if v is not None}
        )
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"{file.name} is no SentencePiece model.", subject=str(file)
        ) from error
    wanted = [(name, number, True) for name, number in (added or {}).items()]
    wanted += [(name, number, False) for name, number in (plain or {}).items()]
    for name, number, special in sorted(wanted, key=lambda token: token[1]):
        token = AddedToken(name, special=special, normalized=False, lstrip=strip, rstrip=strip)
        tokenizer.add_tokens([token], special_tokens=special)
        found = tokenizer.convert_tokens_to_ids(name)
        if found != number:
            raise CheckpointError(
                f"{file.name} gives {name!r} the id {found}, not {number}.", subject=str(file)
            )
    return tokenizer
