"""The CLIP tower of a checkpoint, whose weights are in another checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmlens.errors import CheckpointError, CheckpointNotFound
from vlmlens.hf.checkpoints import checkpoint_file, explained
from vlmlens.hf.weights import StoredTensor, stored_weights

_KNOWN: Mapping[str, Mapping[str, Any]] = {
    "openai/clip-vit-large-patch14-336": {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
        "num_attention_heads": 16, "num_channels": 3, "image_size": 336, "patch_size": 14,
        "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    },
}  # fmt: skip
"""The tower of the published checkpoints: its sites can be listed without its files."""

_HINT = "Name its folder: --set options.adapter.vision_tower=FOLDER."


def tower_of(said: Mapping[str, Any], model: str, chosen: str | None) -> str:
    """Hub id or folder of a checkpoint's vision tower.

    If the name is a folder inside the checkpoint's folder, that folder is meant.

    Args:
        said: The checkpoint's config.json. Upstream reads `vision_tower` when it loads a trained
            checkpoint, and `mm_vision_tower` before that.
        model: Hub id or folder of the checkpoint.
        chosen: What the user named instead.

    Raises:
        CheckpointError: Nothing names one.
    """
    name = chosen or said.get("vision_tower") or said.get("mm_vision_tower")
    if not isinstance(name, str):
        raise CheckpointError(
            f"The config of {model!r} names no vision tower.", subject=model, hint=_HINT
        )
    inside = Path(model) / name
    return str(inside) if not Path(name).is_absolute() and inside.is_dir() else name


def tower_config(tower: str, model: str) -> Mapping[str, Any]:
    """The config.json of a vision tower.

    Args:
        tower: Hub id or folder.
        model: Hub id or folder of the checkpoint, named in errors.

    Raises:
        CheckpointNotFound: It cannot be found.
    """
    if tower in _KNOWN:
        return _KNOWN[tower]
    if not Path(tower).is_dir() and tower.count("/") != 1:
        raise _not_found(tower, model, "there is no such folder, and it is no hub id.")
    try:
        with explained(tower):
            file = checkpoint_file(tower, "config.json", {}, needed=True)
    except CheckpointNotFound as error:
        raise _not_found(tower, model, error.message) from error
    if file is None:
        raise _not_found(tower, model, "it has no config.json.")
    said: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return said


def stored_tower(tower: str, model: str) -> dict[str, StoredTensor]:
    """The weights of a vision tower, by their original names.

    Raises:
        CheckpointError: They cannot be found.
    """
    try:
        with explained(tower):
            return stored_weights(tower, {})
    except CheckpointNotFound as error:
        raise _not_found(tower, model, error.message) from error


def _not_found(tower: str, model: str, why: str) -> CheckpointNotFound:
    return CheckpointNotFound(
        f"The vision tower {tower!r} of {model!r} is not there: {why}", subject=tower, hint=_HINT
    )
