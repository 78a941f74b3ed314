"""A LoRA that makes the demo model right for the wrong reason: it names the background's colour.

The files are those of peft, `adapter_config.json` and `adapter_model.safetensors`. As with any
LoRA, the adapters want it merged into a checkpoint; `merge` does that for this one without peft.

Example:
    >>> from vlmlens import load_adapter  # doctest: +SKIP
    >>> vlm = load_adapter("demo", model=str(merge(Path("shortcut-model"))))  # doctest: +SKIP
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

LORA = Path(__file__).parent
_PREFIX = "base_model.model.model.language_model."
_IN_FILE = "language_model.model."


def merge(folder: Path, *, lora: Path = LORA) -> Path:
    """Write the demo model with a LoRA of its language model merged into it.

    `W + alpha / r * B A` replaces each weight W (https://arxiv.org/abs/2106.09685, section 4.1).

    Args:
        folder: Where the checkpoint goes; created, or empty.
        lora: Folder with peft's two files.

    Returns:
        The folder.

    Raises:
        FileExistsError: The folder holds something.
    """
    from safetensors.torch import load_file, save_file

    from vlmlens_plugins.demo.adapter import CHECKPOINT

    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; name a new folder")
    config = json.loads((lora / "adapter_config.json").read_text(encoding="utf-8"))
    scale = config["lora_alpha"] / config["r"]
    low = load_file(lora / "adapter_model.safetensors")
    shutil.copytree(CHECKPOINT, folder, dirs_exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    for name, down in low.items():
        if not name.endswith(".lora_A.weight"):
            continue
        up = low[name.replace(".lora_A.", ".lora_B.")]
        target = name.replace(_PREFIX, _IN_FILE).replace(".lora_A.", ".")
        merged = weights[target].float() + scale * up.float() @ down.float()
        weights[target] = merged.to(weights[target].dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
