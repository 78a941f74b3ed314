"""Weights of adapters (LoRA) in place of a checkpoint, or beside one: refused, never ignored.

transformers applies those beside a checkpoint where peft is installed, and ignores them without a
word elsewhere: the same folder would be two models. An adapter alone is given with `--tuned`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmlens.errors import CheckpointError
from vlmlens.hf.checkpoints import checkpoint_file

_CONFIG = "adapter_config.json"
_WEIGHTS = (
    "adapter_model*.safetensors", "adapter_model*.bin", "adapters*.safetensors",
    "*lora*.safetensors", "*lora*.bin", "*lora*.pt", "non_lora_trainables.bin",
)  # fmt: skip
_MODELS = (
    "model*.safetensors", "pytorch_model*.bin", "consolidated*.safetensors", "model*.index.json"
)  # fmt: skip


def refuse_adapters(model: str, arguments: Mapping[str, Any]) -> None:
    """Raise if a checkpoint has weights of an adapter that would have to be applied to it.

    Args:
        model: Hub id or folder.
        arguments: For every `from_pretrained`; only the revision is used.

    Raises:
        CheckpointError: It has.
        OSError: The checkpoint cannot be reached.
    """
    folder = Path(model)
    if folder.is_dir():
        found = _matching(folder, (_CONFIG, *_WEIGHTS))
        config = folder / _CONFIG
        alone = not _matching(folder, _MODELS)
    else:
        path = checkpoint_file(model, _CONFIG, arguments)
        if path is None:
            return
        found, config = [_CONFIG], path
        alone = checkpoint_file(model, "config.json", arguments) is None
    if found:
        raise _refused(model, found, _about(config), alone=alone)


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[str]:
    return sorted({path.name for each in patterns for path in folder.glob(each)})


def _about(config: Path) -> Mapping[str, Any]:
    """What adapter_config.json says, as far as it can be read; it only serves the message."""
    try:
        said = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _named_apart(model: str, base: object) -> str:
    return (
        f"Name the model and the adapter: --model {base or 'BASE'} --tuned {model}. "
        "In Python: vlmlens.load(model=..., tuned=...)."
    )


def _refused(
    model: str, found: list[str], said: Mapping[str, Any], *, alone: bool
) -> CheckpointError:
    kind = str(said.get("peft_type") or "LoRA")
    base = said.get("base_model_name_or_path")
    named = f" of the model {base}" if base else ""
    files = ", ".join(found[:4])
    merge = (
        "Merge it, in Python with peft: PeftModel.from_pretrained(the base model, "
        f"{model!r}).merge_and_unload().save_pretrained(NEW), add the processor's files, and name "
        "NEW."
    )
    if alone:
        return CheckpointError(
            f"{model!r} is no model: it holds an adapter ({kind}: {files}){named}, and no weights "
            "of a model.",
            subject=model,
            hint=_named_apart(model, base) if kind.rpartition(".")[2].upper() == "LORA" else merge,
        )
    return CheckpointError(
        f"{model!r} holds the weights of a model and an adapter ({kind}: {files}){named}, which is "
        "not applied here: it is not clear which model is meant.",
        subject=model,
        hint=f"{merge} To look at the base model, take the adapter's files out of the folder.",
    )
