"""GLaMM's tokenizer: where text is cut, and the ids of the added tokens."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import CheckpointError
from vlmlens.hf.sentencepiece_tokenizer import sentencepiece_tokenizer
from vlmlens_adapter_glamm.adapter import GlammAdapter
from vlmlens_adapter_glamm.tokenizer import load_tokenizer

DATA = Path(__file__).parent / "data" / "glamm"
NAMES = ("<im_start>", "<im_end>", "<bbox>", "<point>", "[SEG]", "<p>", "</p>")
VOCABULARY = 391


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The goldens' checkpoint, to change."""
    shutil.copytree(DATA, tmp_path / "glamm")
    return tmp_path / "glamm"


@cache
def tokenizer() -> Any:
    return load_tokenizer(str(DATA), {}, VOCABULARY)


def load(folder: Path) -> GlammAdapter:
    return GlammAdapter.load(LoadRequest(model=str(folder), device="cpu"))


def changed(file: Path, **values: Any) -> None:
    said = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps(said | values), encoding="utf-8")


def by_rule(pieces: Any, text: str, added: dict[str, int]) -> list[int]:
    """Cut at added tokens, white space beside them dropped, each piece on its own."""
    first = min((text.find(name) for name in added if name in text), default=-1)
    if first < 0:
        return list(pieces.encode(text)) if text else []
    name = next(name for name in added if text.startswith(name, first))
    before, after = text[:first].rstrip(), text[first + len(name) :].lstrip()
    head = list(pieces.encode(before)) if before else []
    return [*head, added[name], *by_rule(pieces, after, added)]


def odd_prompts() -> list[str]:
    said = json.loads((DATA / "real_tokenizer_layout.json").read_text(encoding="utf-8"))
    prompts = [row["prompt"] for row in said["odd_prompts"]]
    return [*prompts, *(row["prompt"] for row in said["layouts"].values()), " a  b [SEG]  c\t<p>d"]


@pytest.mark.parametrize("prompt", odd_prompts())
def test_text_is_cut_as_sentencepiece_cuts_it(prompt: str) -> None:
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(model_file=str(DATA / "tokenizer.model"))
    added = {name: 384 + i for i, name in enumerate(NAMES)}
    for text in prompt.split("<image>"):
        found = tokenizer()(text, add_special_tokens=False)["input_ids"]
        assert found == by_rule(pieces, text, added)


def test_white_space_that_is_kept_is_seen() -> None:
    """Without the rule, a space before an added token would be a piece of its own."""
    added = {name: 384 + i for i, name in enumerate(NAMES)}
    kept = sentencepiece_tokenizer(DATA / "tokenizer.model", added, strip=False)
    text = "red <p> circle </p>"
    right = tokenizer()(text, add_special_tokens=False)["input_ids"]
    assert kept(text, add_special_tokens=False)["input_ids"] != right


def test_ids_of_added_tokens_are_read(checkpoint: Path) -> None:
    listed = {"<im_start>": 384, "<im_end>": 385, "[SEG]": 386, "<bbox>": 387}
    changed(checkpoint / "added_tokens.json", **listed)
    config = load(checkpoint).config
    assert (config.seg_token_id, config.bbox_token_id) == (386, 387)


def test_a_tokenizer_without_the_models_tokens_is_refused(checkpoint: Path) -> None:
    changed(checkpoint / "added_tokens.json", **{"<im_start>": 384, "<im_end>": 385})
    with pytest.raises(CheckpointError, match=r"lacks <bbox>, \[SEG\]"):
        load(checkpoint)


def test_ids_that_do_not_fit_are_refused(checkpoint: Path) -> None:
    changed(checkpoint / "config.json", vocab_size=400)
    with pytest.raises(CheckpointError, match="the id 384, not 393"):
        load(checkpoint)


def test_no_tokenizer_at_all(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match="no tokenizer"):
        load(checkpoint)
