"""SentencePiece tokenizers that cut text at their added tokens, as the slow Llama tokenizer did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vlmlens.errors import CheckpointError
from vlmlens.hf.sentencepiece_tokenizer import sentencepiece_tokenizer

sentencepiece = pytest.importorskip("sentencepiece")

TEXT = (
    "the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs. "
    "what colour is the large shape on the left of the picture? hello world, how are you"
)
ADDED = {"<im_start>": 300, "[SEG]": 301}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "text").write_text("\n".join([TEXT] * 4), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"), model_prefix=str(folder / "tokenizer"), vocab_size=300,
        model_type="bpe", byte_fallback=True, minloglevel=2, hard_vocab_limit=False,
        user_defined_symbols=["<mark>"],
    )  # fmt: skip
    path = folder / "tokenizer.model"
    size = sentencepiece.SentencePieceProcessor(model_file=str(path)).get_piece_size()
    ADDED.update({"<im_start>": size, "[SEG]": size + 1})
    return path


@pytest.fixture(scope="module")
def pieces(file: Path) -> Any:
    return sentencepiece.SentencePieceProcessor(model_file=str(file))


def test_each_text_between_added_tokens_is_encoded_alone(file: Path, pieces: Any) -> None:
    tokenizer = sentencepiece_tokenizer(file, ADDED)
    ids = tokenizer("the fox<im_start>hello[SEG][SEG]")["input_ids"]
    start, seg = ADDED["<im_start>"], ADDED["[SEG]"]
    assert ids == [*pieces.encode("the fox"), start, *pieces.encode("hello"), seg, seg]
    assert pieces.encode("hello") != pieces.encode("xhello")[-len(pieces.encode("hello")) :]


def test_white_space_around_added_tokens(file: Path, pieces: Any) -> None:
    text, start = "the fox <im_start> hello", ADDED["<im_start>"]
    kept = sentencepiece_tokenizer(file, ADDED)(text)["input_ids"]
    stripped = sentencepiece_tokenizer(file, ADDED, strip=True)(text)["input_ids"]
    assert kept == [*pieces.encode("the fox "), start, *pieces.encode(" hello")]
    assert stripped == [*pieces.encode("the fox"), start, *pieces.encode("hello")]


def test_user_defined_pieces_and_bytes(file: Path, pieces: Any) -> None:
    tokenizer = sentencepiece_tokenizer(file)
    for text in ("the <mark> fox", "runs  of   spaces", "é 图", "line\nbreak"):
        assert tokenizer(text)["input_ids"] == pieces.encode(text)
    assert tokenizer.decode(pieces.encode("hello world")) == "hello world"


def test_special_tokens(file: Path) -> None:
    tokenizer = sentencepiece_tokenizer(
        file, {"<im_start>": ADDED["<im_start>"]}, plain={"[SEG]": ADDED["[SEG]"]}
    )
    ids = tokenizer("hello<im_start>[SEG]")["input_ids"]
    assert "[SEG]" in tokenizer.decode(ids, skip_special_tokens=True)
    assert "<im_start>" not in tokenizer.decode(ids, skip_special_tokens=True)
    assert ADDED["<im_start>"] in tokenizer.all_special_ids
    assert ADDED["[SEG]"] not in tokenizer.all_special_ids
    assert tokenizer.pad_token_id == tokenizer.unk_token_id == 0


def test_a_wrong_id_is_refused(file: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gives '\[SEG\]' the id \d+, not 7"):
        sentencepiece_tokenizer(file, {"[SEG]": 7})


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(CheckpointError, match="no SentencePiece model"):
        sentencepiece_tokenizer(tmp_path / "tokenizer.model")
