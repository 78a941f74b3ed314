"""The tokenizer: Vicuna's. CogVLM's own checkpoints have none."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers

from vlmlens.errors import CheckpointError
from vlmlens.hf.checkpoints import checkpoint_file
from vlmlens.hf.fast_tokenizer import tokenizer_backend
from vlmlens.hf.sentencepiece_tokenizer import sentencepiece_tokenizer

DEFAULT = "lmsys/vicuna-7b-v1.5"
"""Where upstream's users take it from."""

_FILES = ("tokenizer.model", "tokenizer.json")


def load_tokenizer(
    model: str, arguments: Mapping[str, Any], config: Any, named: str | None
) -> tuple[Any, str]:
    """The tokenizer, and a digest of its file.

    It is read from `named`, else from the checkpoint, else from Vicuna. A `tokenizer.model` is
    preferred: it splits text like upstream's slow tokenizer.

    Args:
        model: Hub id or folder of the checkpoint.
        arguments: For `from_pretrained`; the revision is that of the checkpoint.
        config: The model's.
        named: Hub id or folder of a tokenizer.

    Raises:
        CheckpointError: There is none, or it does not fit the model's vocabulary.
    """
    file = _file(named, {}) if named else _file(model, arguments) or _file(DEFAULT, {})
    if file is None:
        raise CheckpointError(
            f"{named or model!r} has no tokenizer ({' or '.join(_FILES)}).",
            subject=named or model,
            hint="Name a folder with Vicuna's: --set options.adapter.tokenizer=FOLDER.",
        )
    tokenizer = sentencepiece_tokenizer(file) if file.suffix == ".model" else _fast(file, config)
    _check(tokenizer, config, file)
    return tokenizer, hashlib.sha256(file.read_bytes()).hexdigest()[:32]


def _file(source: str, arguments: Mapping[str, Any]) -> Path | None:
    try:
        found = (checkpoint_file(source, name, arguments) for name in _FILES)
        return next((file for file in found if file is not None), None)
    except OSError as error:
        raise CheckpointError(
            f"The tokenizer of {source!r} cannot be found: {str(error).splitlines()[0]}",
            subject=source,
            hint="Name a folder with Vicuna's: --set options.adapter.tokenizer=FOLDER.",
        ) from error


def _fast(file: Path, config: Any) -> Any:
    backend = tokenizer_backend(file)
    numbers = {"bos": config.bos_token_id, "eos": config.eos_token_id, "pad": config.pad_token_id}
    roles = {f"{role}_token": backend.id_to_token(number) for role, number in numbers.items()}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, **{role: token for role, token in roles.items() if token}
    )


def _check(tokenizer: Any, config: Any, file: Path) -> None:
    expected = {"bos": config.bos_token_id, "eos": config.eos_token_id}
    found = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id}
    if len(tokenizer) > config.vocab_size or found != expected:
        raise CheckpointError(
            f"{file.name} has {len(tokenizer)} tokens, with {found}; the model has "
            f"{config.vocab_size}, with {expected}.",
            subject=str(file),
            hint="It belongs to another model; CogVLM was trained with Vicuna's.",
        )
