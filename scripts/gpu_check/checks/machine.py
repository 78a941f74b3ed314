"""Check 0: what the machine is, which settings torch has, and the rates that bound the others."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import torch

from scripts.gpu_check.measuring import gib, seconds
from scripts.gpu_check.trial import Trial

_PACKAGES = (
    "vlmlens", "torch", "transformers", "numpy", "safetensors", "pydantic", "lmdb", "accelerate",
    "triton", "bitsandbytes", "ray",
)  # fmt: skip
_SIDES = {"cuda": 8192, "cpu": 256}
_BYTES = {"cuda": 2**30, "cpu": 2**22}


def check(trial: Trial) -> None:
    """Tell what there is. Products of matrices must be right."""
    cuda = trial.setting.cuda
    trial.note(
        python=platform.python_version(), cores=os.cpu_count(), packages=_versions(),
        tf32={
            "matmul": torch.backends.cuda.matmul.allow_tf32,
            "convolutions": torch.backends.cudnn.allow_tf32,
        },
        sdpa={
            "flash": torch.backends.cuda.flash_sdp_enabled(),
            "efficient": torch.backends.cuda.mem_efficient_sdp_enabled(),
            "cudnn": torch.backends.cuda.cudnn_sdp_enabled(),
            "math": torch.backends.cuda.math_sdp_enabled(),
        },
    )  # fmt: skip
    trial.expect(not cuda or torch.cuda.is_available(), "torch sees no CUDA device")
    if cuda:
        trial.note(**_card())
    device = trial.setting.device
    trial.note(gemm_tflops={str(d).rpartition(".")[2]: _gemm(d, device) for d in _DTYPES})
    trial.note(copy_gb_s=_copy(device))
    for dtype, limit in _DTYPES.items():
        trial.at_most(f"gemm_error_{str(dtype).rpartition('.')[2]}", _error(dtype, device), limit)


_DTYPES = {torch.bfloat16: 1e-2, torch.float32: 1e-5}
"""How far products may be from those in float64; float32 without TF32."""


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _card() -> dict[str, Any]:
    known = torch.cuda.get_device_properties(0)
    return {
        "card": known.name, "cards": torch.cuda.device_count(), "cuda": torch.version.cuda,
        "memory_gib": gib(known.total_memory), "capability": f"{known.major}.{known.minor}",
    }  # fmt: skip


def _gemm(dtype: torch.dtype, device: str) -> float:
    """TFLOP/s of a product of square matrices."""
    side = _SIDES[device]
    one = torch.randn(side, side, device=device).to(dtype)
    seconds(device, lambda: one @ one)
    spent = seconds(device, lambda: one @ one, times=5)
    return 2 * side**3 / spent / 1e12


def _copy(device: str) -> float:
    """GB/s, read and written, of a copy on the device."""
    room = torch.empty(_BYTES[device], dtype=torch.uint8, device=device)
    other = torch.empty_like(room)
    seconds(device, lambda: other.copy_(room))
    return 2 * len(room) / seconds(device, lambda: other.copy_(room), times=5) / 1e9


def _error(dtype: torch.dtype, device: str) -> float:
    """How far a product is from that in float64, as a share of its norm."""
    torch.manual_seed(0)
    one = torch.randn(256, 1024).to(dtype)
    exact = one.double() @ one.double().T
    found = (one.to(device) @ one.to(device).T).cpu().double()
    return float((found - exact).norm() / exact.norm())
