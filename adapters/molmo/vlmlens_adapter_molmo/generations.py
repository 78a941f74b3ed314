"""Telling the two generations of Molmo apart by the model type in a checkpoint's config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from vlmlens.errors import CheckpointError

Generation = Literal["molmo", "molmo2"]
_NAMES = {"molmo": "the first generation of Molmo", "molmo2": "Molmo2"}


def check_generation(said: Mapping[str, Any], wanted: Generation, model: str) -> None:
    """Raise if a checkpoint is of the other generation. Adapters are named like the model types.

    Args:
        said: Its config.json.
        wanted: The model type that the adapter reads.
        model: Hub id or folder, named in the error.

    Raises:
        CheckpointError: It is; the hint names the adapter to take.
    """
    found = said.get("model_type")
    if found in _NAMES and found != wanted:
        raise CheckpointError(
            f"{model!r} is {_NAMES[found]}; the adapter {wanted!r} reads {_NAMES[wanted]}.",
            subject=model,
            hint=f"Take --adapter {found}.",
        )
