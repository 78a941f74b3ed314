"""Tokenizers from a `tokenizer.json`, without the tokenizer class that the checkpoint names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer

from vlmlens.errors import CheckpointError

_ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")


def tokenizer_backend(file: Path) -> Tokenizer:
    """The tokenizer that a `tokenizer.json` holds.

    Raises:
        CheckpointError: The file holds no tokenizer.
    """
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing more special
        raise CheckpointError(f"{file.name} is no tokenizer.", subject=str(file)) from error


def named_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """The tokens that a tokenizer_config.json names, by role, such as `bos_token`."""
    named = {role: settings[role] for role in _ROLES if settings.get(role)}
    return {r: str(t["content"] if isinstance(t, dict) else t) for r, t in named.items()}


def fast_tokenizer(backend: Tokenizer, settings: Mapping[str, Any], *, eos: str) -> Any:
    """A transformers tokenizer.

    Args:
        backend: Splits text into tokens.
        settings: The content of tokenizer_config.json.
        eos: The end token, if the settings name none. It is also the default padding token.
    """
    roles = {"eos_token": eos, **named_tokens(settings)}
    roles.setdefault("pad_token", roles["eos_token"])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **roles)
