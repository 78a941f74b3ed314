"""Files of a checkpoint, its identity, and clear errors when it cannot be loaded."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import transformers
from transformers.utils.hub import cached_file

from vlmlens.errors import (
    CheckpointError,
    CheckpointGated,
    CheckpointNotFound,
    CompositionError,
    MissingDependency,
    VlmlensError,
)
from vlmlens.hf.load_options import check_attention
from vlmlens.hf.network import hub_or_cache

_ABOUT_ATTENTION = re.compile(r"(?i)attn_implementation|(flex|flash|dot_product)[ _]?attention")
_WHOLE_FILE = 64 * 2**20
_SLICE = 2**20
_SLICES = 16


def read_config_json(model: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's config.json as a dict; no config class is loaded.

    Args:
        model: Hub id or folder.
        arguments: For `from_pretrained`; only the revision is used.

    Raises:
        OSError: There is none.
    """
    revision = arguments.get("revision")
    said, _ = transformers.PreTrainedConfig.get_config_dict(model, revision=revision)
    return dict(said)


def checkpoint_file(
    model: str, file: str, arguments: Mapping[str, Any], *, needed: bool = False
) -> Path | None:
    """The local path of a checkpoint's file; downloaded from the hub if necessary.

    Args:
        model: Hub id or folder.
        file: Its name in the checkpoint.
        arguments: For `from_pretrained`; only the revision is used.
        needed: Whether a missing file is an error.

    Raises:
        OSError: The file is needed and missing.
    """
    path = cached_file(
        model,
        file,
        revision=arguments.get("revision"),
        _raise_exceptions_for_missing_entries=needed,
    )
    return None if path is None else Path(path)


def checkpoint_json(model: str, file: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint's JSON file; empty if there is no such file.

    Args:
        model: Hub id or folder.
        file: Its name in the checkpoint.
        arguments: For `from_pretrained`; only the revision is used.
    """
    path = checkpoint_file(model, file, arguments)
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"The {file} of {model!r} is no JSON: {error}.", subject=model
        ) from error
    if not isinstance(found, dict):
        raise CheckpointError(f"The {file} of {model!r} holds no object.", subject=model)
    return found


@contextmanager
def explained(model: str, attention: str | None = None) -> Iterator[None]:
    """Turn errors of the hub and of transformers about a checkpoint into ours.

    Args:
        model: Hub id or folder.
        attention: What the user asked for.

    Raises:
        SpecError: There is no such attention.
        CompositionError: The model does not support it.
        MissingDependency: A package is not installed.
        CheckpointError: Anything else.
    """
    check_attention(attention)
    with ExitStack() as stack:
        trouble = "" if _looks_local(model) else stack.enter_context(hub_or_cache())
        stack.enter_context(_translated(model, attention, trouble))
        yield


@contextmanager
def _translated(model: str, attention: str | None, trouble: str) -> Iterator[None]:
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
        raise _explain(model, error, trouble) from error
    except OSError as error:
        raise _explain(model, error, trouble) from error


@contextmanager
def damaged(model: str) -> Iterator[None]:
    """Turn what damaged or hostile files of a checkpoint make libraries raise into one error.

    Args:
        model: Hub id or folder.

    Raises:
        CheckpointError: The files cannot be read, or hold more than tensors.
    """
    try:
        yield
    except UnpicklingError as error:
        raise CheckpointError(
            f"The weights of {model!r} are a pickle that holds more than tensors; it is not "
            "opened.",
            subject=model,
            hint="It could run code; use a checkpoint with safetensors.",
        ) from error
    except (VlmlensError, OSError, ValueError, ImportError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        why = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"The files of {model!r} cannot be read ({type(error).__name__}: {why}).",
            subject=model,
            hint="They are damaged, incomplete or of another kind of model: copy them again, or "
            "choose another adapter.",
        ) from error


def check_complete(model: str, missing: Collection[str]) -> None:
    """Raise a `CheckpointError` that lists the weights which a checkpoint lacks, if any."""
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
    """The identity of a checkpoint: its commit on the hub, or a digest of the folder.

    Args:
        model: Hub id or folder.
        config: Its config, which may name the commit; otherwise the hub's cache does.
        revision: The branch, tag or commit that was asked for.
    """
    folder = Path(model)
    if folder.is_dir():
        return {"checkpoint": folder.name, "digest": _folder_digest(folder)}
    commit = getattr(config, "_commit_hash", None) or _cached_commit(model, revision)
    return {"checkpoint": model, "revision": commit}


def _cached_commit(model: str, revision: str | None) -> str | None:
    """The commit of a checkpoint in the hub's cache; the cache's folder is named after it."""
    from huggingface_hub import try_to_load_from_cache
    from transformers.utils.hub import extract_commit_hash

    for name in ("config.json", "params.json"):
        found = try_to_load_from_cache(model, name, revision=revision)
        if isinstance(found, str):
            commit: str | None = extract_commit_hash(found, None)
            return commit
    return None


def _explain(model: str, error: Exception, trouble: str) -> CheckpointError:
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
    if trouble:
        return CheckpointNotFound(
            f"The checkpoint {model!r} is not in the local cache, and {trouble}.",
            subject=model,
            hint="Check the network (HTTPS_PROXY, HF_ENDPOINT), or copy the checkpoint into a "
            "folder and name that.",
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
    """The whole file; above 64 MiB, sixteen slices spread evenly from start to end."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _WHOLE_FILE:
            return file.read()
        digest = hashlib.sha256()
        for i in range(_SLICES):
            file.seek((size - _SLICE) * i // (_SLICES - 1))
            digest.update(file.read(_SLICE))
        return digest.digest()
