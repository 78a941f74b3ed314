"""Tokenizers of a `tokenizer.json`, without the class that a checkpoint names for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer

from vlmlens.errors import CheckpointError

_ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")


def tokenizer_backend(file: Path) -> Tokenizer:
    """What a `tokenizer.json` holds.

    Raises:
        CheckpointError: It is no tokenizer.
    """
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing more special
        raise CheckpointError(f"{file.name} is no tokenizer.", subject=str(file)) from error


def named_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """The tokens that a tokenizer_config.json names for a role, by role such as `bos_token`."""
    named = {role: settings[role] for role in _ROLES if settings.get(role)}
    return {r: str(t["content"] if isinstance(t, dict) else t) for r, t in named.items()}


def fast_tokenizer(backend: Tokenizer, settings: Mapping[str, Any], *, eos: str) -> Any:
    """A tokenizer of transformers.

    Args:
        backend: Cuts the text.
        settings: What tokenizer_config.json says.
        eos: Ends a text where the settings name nothing. What ends it also fills up by default.
    """
    roles = {"eos_token": eos, **named_tokens(settings)}
    roles.setdefault("pad_token", roles["eos_token"])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **roles)
