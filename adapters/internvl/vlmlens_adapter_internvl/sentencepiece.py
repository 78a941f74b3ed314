"""SentencePiece models (`tokenizer.model`) of the BPE kind as `tokenizers` objects.

Only the fields that tokenizing needs are read, straight from the protocol buffer, so that neither
sentencepiece nor protobuf has to be installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from struct import unpack
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers

from vlmlens.errors import CheckpointError

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4
_ADDED = (_CONTROL, _USER_DEFINED)
_BPE = 2
_VARINT, _LONG, _BYTES, _SHORT = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    score: float
    kind: int


def read_sentencepiece(path: Path, overrides: Mapping[int, str]) -> Tokenizer:
    """A BPE model of SentencePiece, without tokens around a text.

    Args:
        path: `tokenizer.model`.
        overrides: Tokens that replace pieces, by id; ids beyond the model are left out.

    Raises:
        CheckpointError: It is not a BPE model.
    """
    pieces, trainer, normalizer = _read(path)
    if trainer.get(3, 1) != _BPE:
        raise CheckpointError(f"{path.name} holds no BPE model.", subject=str(path))
    texts = [overrides.get(i, piece.text) for i, piece in enumerate(pieces)]
    vocabulary = {text: i for i, text in enumerate(texts)}
    unknown = next(i for i, piece in enumerate(pieces) if piece.kind == _UNKNOWN)
    backend = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges([p for i, p in enumerate(pieces) if i not in overrides]),
            unk_token=texts[unknown],
            fuse_unk=True,
            byte_fallback=bool(trainer.get(35, 0)),
        )
    )
    backend.normalizer = _normalizer(normalizer)
    backend.decoder = _decoder(bool(normalizer.get(3, 1)))
    marked = [(t, p) for t, p in zip(texts, pieces, strict=True) if p.kind in _ADDED]
    backend.add_tokens(
        [AddedToken(text, normalized=False, special=p.kind == _CONTROL) for text, p in marked]
    )
    return backend


def _merges(pieces: list[_Piece]) -> list[tuple[str, str]]:
    """Every way to put a piece together out of two others, the best piece first."""
    normal = {piece.text: piece.score for piece in pieces if piece.kind == _NORMAL}
    found = [
        (score, text[:cut], text[cut:])
        for text, score in normal.items()
        for cut in range(1, len(text))
        if text[:cut] in normal and text[cut:] in normal
    ]
    found.sort(key=lambda merge: (-merge[0], len(merge[1])))
    return [(left, right) for _, left, right in found]


def _normalizer(said: Mapping[int, Any]) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if said.get(2):
        steps.append(normalizers.Precompiled(said[2]))
    if said.get(4, 1):
        steps.append(normalizers.Replace(Regex("^ +| +$"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    if said.get(3, 1):
        steps.append(normalizers.Prepend(_SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])


def _decoder(prefixed: bool) -> decoders.Decoder:
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefixed else steps)


def _read(path: Path) -> tuple[list[_Piece], dict[int, Any], dict[int, Any]]:
    """The pieces, the trainer's and the normalizer's settings by field number."""
    pieces: list[_Piece] = []
    parts: dict[int, dict[int, Any]] = {2: {}, 3: {}}
    for field, value in _fields(path.read_bytes()):
        if field == 1:
            pieces.append(_piece(dict(_fields(value))))
        elif field in parts:
            parts[field] = dict(_fields(value))
    if not pieces:
        raise CheckpointError(f"{path.name} is no SentencePiece model.", subject=str(path))
    return pieces, parts[2], parts[3]


def _piece(said: Mapping[int, Any]) -> _Piece:
    (score,) = unpack("<f", said.get(2, bytes(4)))
    return _Piece(said.get(1, b"").decode("utf-8"), score, said.get(3, _NORMAL))


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a protocol-buffer message: numbers, and bytes of any other kind.

    Format: https://protobuf.dev/programming-guides/encoding/
    """
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        else:
            size = {_LONG: 8, _SHORT: 4}[kind]
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
