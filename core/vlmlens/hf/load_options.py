"""Options of loading a model: device, dtype, attention, quantization, autocast."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import torch

from vlmlens.errors import MissingDependency, SpecError, did_you_mean

if TYPE_CHECKING:
    from vlmlens.abc.adapter import LoadRequest


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" means CUDA, else MPS, else the CPU.

    Raises:
        SpecError: torch cannot use that device on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise SpecError(
            f"The device {name!r} cannot be used here ({str(error).splitlines()[0]}).",
            subject=name,
            hint="Use --device cpu, or see `vlmlens doctor`.",
        ) from error
    return device


def pick_dtype(name: str, config: Any, device: torch.device) -> torch.dtype | str:
    """The dtype to load with: the requested one, or the checkpoint's own.

    On a CPU, float16 is about 200 times slower than float32. There "auto" loads a float16
    checkpoint in float32, and a request for float16 is refused.

    Raises:
        SpecError: float16 on a CPU.
    """
    if name == "auto":
        own = getattr(config, "dtype", None)
        if own is None:
            return "auto"
        half_on_cpu = own == torch.float16 and device.type == "cpu"
        return torch.float32 if half_on_cpu else torch.zeros(0, dtype=own).dtype
    if name == "float16" and device.type == "cpu":
        raise SpecError(
            "float16 is not computed on a CPU.",
            subject=name,
            hint="Use --dtype float32 or bfloat16.",
        )
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def hub_arguments(request: LoadRequest) -> dict[str, Any]:
    """The keyword arguments that every `from_pretrained` call gets."""
    arguments: dict[str, Any] = {"trust_remote_code": request.trust_remote_code}
    if request.revision is not None:
        arguments["revision"] = request.revision
    return arguments


def check_attention(name: str | None) -> None:
    """Raise if transformers knows no attention of that name. Names with a `/` are hub kernels.

    Raises:
        SpecError: There is none; the hint lists the known ones.
    """
    if name is None or "/" in name:
        return
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    known = ["eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()]
    if name not in known:
        usual = [each for each in known if "|" not in each]
        raise SpecError(
            f"There is no attention {name!r}.",
            subject=name,
            hint=f"{did_you_mean(name, usual)} Known: {', '.join(usual)}.".strip(),
        )


def quantization_config(name: str, dtype: torch.dtype | str = "auto") -> Any:
    """A bitsandbytes config of transformers for "4bit" or "8bit".

    Args:
        name: "4bit" or "8bit".
        dtype: In which matrix products of 4 bits are computed; their own default is float32.

    Raises:
        MissingDependency: bitsandbytes or accelerate is not installed.
        SpecError: The name is another one.
    """
    for package in ("bitsandbytes", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependency(
                f"Quantized loading needs {package}, which is not installed.",
                subject=package,
                hint="pip install 'vlmlens[quantization]'",
            )
    if name not in {"4bit", "8bit"}:
        raise SpecError(f"There is no quantization {name!r}.", subject=name, hint="4bit or 8bit.")
    from transformers import BitsAndBytesConfig

    if name == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    computes = dtype if isinstance(dtype, torch.dtype) else torch.float32
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=computes)


def compute_in(module: Any, dtype: str, device: str) -> None:
    """Make a model compute its matrix products in another dtype (torch.autocast), in place.

    Raises:
        SpecError: float16 on a CPU.
    """
    check_autocast(dtype, device)
    for part in (module, getattr(module, "model", None)):
        if isinstance(part, torch.nn.Module):
            part.forward = torch.autocast(device, getattr(torch, dtype))(part.forward)


def check_autocast(dtype: str | None, device: str) -> None:
    """Raise a `SpecError` if matrix products would be computed in float16 on a CPU."""
    if dtype == "float16" and device == "cpu":
        raise SpecError(
            "float16 is not computed on a CPU.", subject=dtype, hint="Use --autocast bfloat16."
        )
