"""A LoRA that makes the demo model right for the wrong reason: it names the background's colour.

The files are those of peft, `adapter_config.json` and `adapter_model.safetensors`. `merge` writes
a checkpoint with the LoRA added to the weights, without peft.

Example:
    >>> import vlmlens
    >>> vlm = vlmlens.load("demo", tuned=LORA)  # doctest: +SKIP
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

LORA = Path(__file__).parent
_WRAPPED = "base_model.model.model."
_IN_FILE = {"language_model.": "language_model.model."}
"""Parts of the model whose weights have other names in the checkpoint's file."""


def merge(folder: Path, *, lora: Path = LORA) -> Path:
    """Write the demo model with a LoRA merged into it.

    `W + alpha / r * B A` replaces each weight W (https://arxiv.org/abs/2106.09685, section 4.1).

    Args:
        folder: Where the checkpoint goes; created, or empty.
        lora: Folder with peft's two files.

    Returns:
        The folder.

    Raises:
        FileExistsError: The folder holds something.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; name a new folder")
    from safetensors.torch import load_file, save_file

    from vlmlens_plugins.demo.adapter import CHECKPOINT

    config = json.loads((lora / "adapter_config.json").read_text(encoding="utf-8"))
    scale = config["lora_alpha"] / config["r"]
    low = load_file(lora / "adapter_model.safetensors")
    shutil.copytree(CHECKPOINT, folder, dirs_exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    for name in (each for each in low if ".lora_A." in each):
        down, up = low[name].float(), low[name.replace(".lora_A.", ".lora_B.")].float()
        weight = weights[_in_file(name)]
        weights[_in_file(name)] = (weight.float() + scale * up @ down).to(weight.dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _in_file(name: str) -> str:
    """The checkpoint's name of the weight that a matrix of the LoRA changes."""
    module = name.removeprefix(_WRAPPED).replace(".lora_A.", ".")
    part = f"{module.partition('.')[0]}."
    return _IN_FILE.get(part, part) + module.removeprefix(part)
