"""SentencePiece tokenizers (`tokenizer.model`) that split text like the slow Llama tokenizer.

Text is split at the added tokens first. SentencePiece then encodes each part in between on its own,
with its dummy prefix. This is transformers' `legacy` behaviour; several families were trained with
it. Needs the package sentencepiece.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from vlmlens.errors import CheckpointError, MissingDependency

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def sentencepiece_tokenizer(
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
    """A transformers tokenizer for a SentencePiece model. It adds no tokens around a text.

    Args:
        file: `tokenizer.model`.
        added: Special tokens at which text is split, with their ids: that of the piece of the
            same name, or the next id after the vocabulary.
        strip: Whether to drop white space around an added token, as transformers did before 4.34.
        plain: Added tokens that are not special: decoding keeps them.
        bos: Begin-of-text token.
        eos: End-of-text token.
        unk: Unknown token.
        pad: Padding token; None: `unk`.

    Raises:
        MissingDependency: sentencepiece is not installed.
        CheckpointError: The file is not a SentencePiece model, or an added token gets another id.
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

        def convert_tokens_to_string(self, tokens: list[str]) -> str:
            text: str = super().convert_tokens_to_string(_with_bytes_read(tokens))
            return text

        def _convert_id_to_token(self, index: int) -> str:
            """Empty for an id that only the model's head has, as fast tokenizers read it."""
            known = 0 <= index < self.sp_model.get_piece_size()
            piece: str = self.sp_model.IdToPiece(index) if known else ""
            return piece

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


def _with_bytes_read(tokens: list[str]) -> list[str]:
    """The tokens, with runs of byte pieces (`<0xE4>`) decoded as UTF-8."""
    read: list[str] = []
    for is_byte, run in groupby(tokens, lambda token: _BYTE.fullmatch(token) is not None):
        if is_byte:
            read.append(bytes(int(token[3:5], 16) for token in run).decode("utf-8", "replace"))
        else:
            read.extend(run)
    return read
