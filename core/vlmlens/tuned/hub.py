"""A tuned folder on the Hugging Face hub: its files in the local cache, downloaded if necessary."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlmlens._hub import hub_or_cache
from vlmlens.errors import CheckpointError, CheckpointGated, CheckpointNotFound
from vlmlens.tuned.record import ABOUT

_ID = re.compile(r"[\w.-]+/[\w.-]+")
_CONFIG = "adapter_config.json"


def is_hub_id(text: str) -> bool:
    """Whether a text has the form of an id on the hub, perhaps with `@REVISION`."""
    return _ID.fullmatch(text.partition("@")[0]) is not None and not text.startswith(".")


def downloaded(text: str, revision: str | None = None) -> Path:
    """The local folder of a tuned folder on the hub.

    Args:
        text: ID or ID@REVISION.
        revision: Branch, tag or commit; None: the one in the text, else the main branch.

    Raises:
        CheckpointNotFound: There is none, or it is neither in the cache nor can the hub be asked.
        CheckpointGated: Its owner must grant access first.
        CheckpointError: It is no tuned folder.
    """
    from huggingface_hub import snapshot_download

    name, _, said = text.partition("@")
    which = revision or said or None
    with hub_or_cache() as trouble, _explained(text, trouble):
        known = [file for file in (ABOUT, _CONFIG) if _file(name, file, which)]
        if not known:
            raise CheckpointError(
                f"{text!r} on the hub has neither {ABOUT} nor {_CONFIG}: it is nothing that was "
                "tuned.",
                subject=text,
                hint="Name a whole model with --model, and LoRA of peft with --tuned.",
            )
        weights = "*.safetensors" if ABOUT in known else "adapter_model*"
        wanted = [*known, weights, "non_lora_trainables.bin"]
        return Path(snapshot_download(name, revision=which, allow_patterns=wanted))


def _file(name: str, file: str, revision: str | None) -> str | None:
    """The path of a file in the cache; None if the repository has no such file."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        found: str = hf_hub_download(name, file, revision=revision)
    except LocalEntryNotFoundError:
        others = (
            try_to_load_from_cache(name, each, revision=revision) for each in (ABOUT, _CONFIG)
        )
        if any(isinstance(each, str) for each in others):
            return None
        raise
    except EntryNotFoundError:
        return None
    return found


@contextmanager
def _explained(text: str, trouble: str) -> Iterator[None]:
    """Turn errors of the hub's client into ours."""
    from huggingface_hub.errors import GatedRepoError

    try:
        yield
    except CheckpointError:
        raise
    except GatedRepoError as error:
        raise CheckpointGated(
            f"{text!r} on the hub is gated.",
            subject=text,
            hint=f"Accept its terms at https://huggingface.co/{text.partition('@')[0]}, then set "
            "HF_TOKEN or run `hf auth login`.",
        ) from error
    except (OSError, ValueError) as error:
        raise _not_found(text, error, trouble) from error


def _not_found(text: str, error: Exception, trouble: str) -> CheckpointNotFound:
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    offline = os.environ.get("HF_HUB_OFFLINE", "") in {"1", "true", "TRUE", "ON", "YES"}
    why = f" is not in the local cache, and {trouble}" if trouble else f" cannot be had: {first}"
    hint = "Check the spelling and the network; what is private needs HF_TOKEN."
    if offline:
        hint = "HF_HUB_OFFLINE is set: only what is in the local cache can be used."
    return CheckpointNotFound(
        f"There is no folder {text!r}, and on the Hugging Face hub it{why}.",
        subject=text,
        hint=hint,
    )
