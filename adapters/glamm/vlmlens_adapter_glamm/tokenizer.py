"""GLaMM's tokenizer: Vicuna's, and the tokens that mark images, boxes, phrases and masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmlens.errors import CheckpointError
from vlmlens.hf.checkpoints import checkpoint_file, checkpoint_json
from vlmlens.hf.sentencepiece_tokenizer import sentencepiece_tokenizer

IM_START, IM_END, BBOX, SEG = "<im_start>", "<im_end>", "<bbox>", "[SEG]"
PHRASE = ("<p>", "</p>")
_ADDED = (IM_START, IM_END, BBOX, "<point>", SEG, *PHRASE)
_SHOWN = {SEG, *PHRASE}
"""Added tokens that are part of an answer's text: they say which phrase a mask belongs to."""
_NEEDED = (IM_START, IM_END, BBOX, SEG)


def load_tokenizer(model: str, arguments: Mapping[str, Any], vocabulary: int) -> Any:
    """The tokenizer of a checkpoint; it splits text like upstream's slow one.

    Args:
        model: Hub id or folder.
        arguments: For `from_pretrained`; only the revision is used.
        vocabulary: Tokens that the model knows. Where no file says otherwise, the last seven are
            the added ones, in upstream's order.

    Raises:
        CheckpointError: It has none, or one that lacks a token.
    """
    file = checkpoint_file(model, "tokenizer.model", arguments)
    if file is None:
        raise CheckpointError(
            f"{model!r} has no tokenizer.", subject=model, hint="It needs tokenizer.model."
        )
    added = checkpoint_json(model, "added_tokens.json", arguments)
    if not added:
        added = {name: vocabulary - len(_ADDED) + i for i, name in enumerate(_ADDED)}
    missing = [name for name in _NEEDED if name not in added]
    if missing:
        raise CheckpointError(
            f"The tokenizer of {model!r} lacks {', '.join(missing)}.",
            subject=model,
            hint="added_tokens.json must list GLaMM's tokens.",
        )
    plain = {name: number for name, number in added.items() if name in _SHOWN}
    hidden = {name: number for name, number in added.items() if name not in _SHOWN}
    return sentencepiece_tokenizer(file, hidden, strip=True, plain=plain)
