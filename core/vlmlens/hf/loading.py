"""Loading a checkpoint through transformers, with errors that say what to do."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vlmlens.errors import (
    CheckpointError,
    CheckpointGated,
    CheckpointNotFound,
    CompositionError,
    MissingDependency,
    SpecError,
    did_you_mean,
)

if TYPE_CHECKING:
    from vlmlens.abc.adapter import LoadRequest

_ABOUT_ATTENTION = re.compile(r"(?i)attn_implementation|(flex|flash|dot_product)[ _]?attention")
_WHOLE_FILE = 64 * 2**20
_SLICE = 2**20
_SLICES = 16


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA, else MPS, else the CPU.

    Raises:
        SpecError: torch cannot use that device here.
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
    """The dtype to load with: the asked one, or the checkpoint's own.

    float16 is not computed on a CPU: there it is about 200 times slower than float32, so "auto"
    takes float32 for a float16 checkpoint, and asking for float16 is refused.

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


@contextmanager
def explained(model: str, attention: str | None = None) -> Iterator[None]:
    """Turn the hub's and transformers' complaints about a checkpoint into our errors.

    Args:
        model: Hub id or folder.
        attention: What the user asked for.

    Raises:
        SpecError: There is no such attention.
        CompositionError: The model has it not.
        MissingDependency: A package is not installed.
        CheckpointError: Anything else.
    """
    check_attention(attention)
    try:
        yield
    except ImportError as error:
        raise MissingDependency(
            f"The checkpoint {model!r} needs a package that is not installed: "
            f"{' '.join(str(error).split())}",
            subject=model,
            hint=f"Install it, or leave --attention {attention} out." if attention else "",
        ) from error
    except ValueError as error:
        if attention is not None and _ABOUT_ATTENTION.search(str(error)):
            raise CompositionError(
                f"The checkpoint {model!r} cannot run with {attention!r} attention: "
                f"{' '.join(str(error).split())}",
                subject=attention,
                hint="Use --attention eager, or leave it out.",
            ) from error
        raise _explain(model, error) from error
    except OSError as error:
        raise _explain(model, error) from error


def check_attention(name: str | None) -> None:
    """Raise where transformers knows no attention of that name; a hub kernel has a `/` in its own.

    Raises:
        SpecError: There is none; lists those that there are.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    known = ["eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()]
    if name is not None and name not in known and "/" not in name:
        usual = [each for each in known if "|" not in each]
        raise SpecError(
            f"There is no attention {name!r}.",
            subject=name,
            hint=f"{did_you_mean(name, usual)} Known: {', '.join(usual)}.".strip(),
        )


def quantization_config(name: str) -> Any:
    """A bitsandbytes config of transformers for "4bit" or "8bit".

    Raises:
        MissingDependency: bitsandbytes or accelerate is not installed.
        SpecError: Another name.
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

    return BitsAndBytesConfig(load_in_4bit=name == "4bit", load_in_8bit=name == "8bit")


def compute_in(module: Any, dtype: str, device: str) -> None:
    """Let a model compute its matrix products in another dtype (torch.autocast), in place.

    Raises:
        SpecError: float16 on a CPU.
    """
    check_autocast(dtype, device)
    for part in (module, getattr(module, "model", None)):
        if isinstance(part, torch.nn.Module):
            part.forward = torch.autocast(device, getattr(torch, dtype))(part.forward)


def check_autocast(dtype: str | None, device: str) -> None:
    """Raise `SpecError` where matrix products are to be computed in float16 on a CPU."""
    if dtype == "float16" and device == "cpu":
        raise SpecError(
            "float16 is not computed on a CPU.", subject=dtype, hint="Use --autocast bfloat16."
        )


def check_complete(model: str, missing: Collection[str]) -> None:
    """Raise `CheckpointError` where a checkpoint lacks weights, which lists them."""
    if missing:
        names = sorted(missing)
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise CheckpointError(
            f"The checkpoint {model!r} lacks {len(names)} weights of its model: {shown}.",
            subject=model,
            hint="It belongs to another class, or is incomplete; choose another adapter or file.",
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' own progress bars off our standard error."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


def checkpoint_identity(model: str, config: Any, revision: str | None = None) -> dict[str, Any]:
    """What tells this checkpoint from any other: the hub commit, or a digest of the folder.

    Args:
        model: Hub id or folder.
        config: Its config, which may carry the commit; else the cache of the hub tells.
        revision: The branch, tag or commit that was asked for.
    """
    folder = Path(model)
    if folder.is_dir():
        return {"checkpoint": folder.name, "digest": _folder_digest(folder)}
    commit = getattr(config, "_commit_hash", None) or _cached_commit(model, revision)
    return {"checkpoint": model, "revision": commit}


def _cached_commit(model: str, revision: str | None) -> str | None:
    """The commit of a hub checkpoint as it lies in the hub's cache, in a folder of that name."""
    from huggingface_hub import try_to_load_from_cache
    from transformers.utils.hub import extract_commit_hash

    for name in ("config.json", "params.json"):
        found = try_to_load_from_cache(model, name, revision=revision)
        if isinstance(found, str):
            commit: str | None = extract_commit_hash(found, None)
            return commit
    return None


def _explain(model: str, error: Exception) -> CheckpointError:
    text = str(error)
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    if "gated" in text.lower():
        return CheckpointGated(
            f"The checkpoint {model!r} is gated.",
            subject=model,
            hint=f"Accept its terms at https://huggingface.co/{model}, then set HF_TOKEN or run "
            "`hf auth login`.",
        )
    if _looks_local(model):
        if not Path(model).is_dir():
            return CheckpointNotFound(
                f"The checkpoint folder {model!r} does not exist.", subject=model
            )
        return CheckpointNotFound(
            f"The folder {model!r} holds no checkpoint that loads: {first}",
            subject=model,
            hint="It needs config.json, the weights, and the processor's files.",
        )
    offline = os.environ.get("HF_HUB_OFFLINE", "") in {"1", "true", "TRUE", "ON", "YES"}
    hint = (
        "HF_HUB_OFFLINE is set: only checkpoints in the local cache can be used."
        if offline
        else "Check the spelling and the network; a private checkpoint needs HF_TOKEN."
    )
    return CheckpointNotFound(
        f"The checkpoint {model!r} cannot be loaded: {first}", subject=model, hint=hint
    )


def _looks_local(model: str) -> bool:
    return Path(model).exists() or model.startswith((".", "/", "~")) or model.count("/") != 1


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in {".safetensors", ".bin", ".json", ".jinja", ".txt", ".model"}:
            digest.update(json.dumps([path.name, path.stat().st_size]).encode())
            digest.update(_file_sample(path))
    return digest.hexdigest()[:32]


def _file_sample(path: Path) -> bytes:
    """The whole file, or, above 64 MiB, sixteen slices of it spread evenly from start to end."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _WHOLE_FILE:
            return file.read()
        digest = hashlib.sha256()
        for i in range(_SLICES):
            file.seek((size - _SLICE) * i // (_SLICES - 1))
            digest.update(file.read(_SLICE))
        return digest.digest()
