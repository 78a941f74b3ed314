"""Settings of torch on which numbers computed on CUDA depend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_BACKENDS: Any = torch.backends
_SDPA: dict[str, Callable[[], bool]] = {
    "flash": torch.backends.cuda.flash_sdp_enabled,
    "efficient": torch.backends.cuda.mem_efficient_sdp_enabled,
    "cudnn": torch.backends.cuda.cudnn_sdp_enabled,
    "math": torch.backends.cuda.math_sdp_enabled,
}


def keep_precision(dtype: torch.dtype, device: torch.device) -> None:
    """Have convolutions compute float32 models in float32 on CUDA, from now on in this process.

    cuDNN rounds their factors to TF32 (10 bits) otherwise, and the patch embedding of a vision
    tower is a convolution. Matrix products are not rounded unless somebody asks torch for it.

    Args:
        dtype: That of the model.
        device: That of the model.
    """
    if device.type == "cuda" and dtype == torch.float32:
        torch.backends.cudnn.allow_tf32 = False
        if _rounds(torch.backends.cudnn, "conv"):
            _BACKENDS.cudnn.conv.fp32_precision = "ieee"


def _rounds(backend: Any, kind: str) -> bool:
    """Whether TF32 is on for an operation of a backend.

    Newer versions of torch have two settings, and refuse to read the old one where the new one was
    set. What is not set for an operation is as the setting for all of them.
    """
    said = getattr(getattr(backend, kind, None), "fp32_precision", None)
    if said is None:
        return bool((backend if kind == "conv" else backend.matmul).allow_tf32)
    if said == "none":
        said = _BACKENDS.fp32_precision
    return bool(said == "tf32")


def cuda_settings(device: torch.device, attention: str | None) -> dict[str, Any]:
    """What a fingerprint says of these settings; nothing of other devices.

    Args:
        device: That of the model.
        attention: The model's attention.
    """
    if device.type != "cuda":
        return {}
    said: dict[str, Any] = {
        "tf32": {
            "convolutions": _rounds(torch.backends.cudnn, "conv"),
            "products": _rounds(torch.backends.cuda, "matmul"),
        }
    }
    if attention == "sdpa":
        said["sdpa"] = [name for name, enabled in _SDPA.items() if enabled()]
    return said
