"""Opening a tuned folder: finding it, and checking what can be checked without a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmlens._files import expanded
from vlmlens.errors import CheckpointError, CheckpointNotFound
from vlmlens.runs.run import Run, is_run
from vlmlens.tuned.folder_files import check_inside, digest_of, read_object
from vlmlens.tuned.hub import downloaded, is_hub_id
from vlmlens.tuned.lora_settings import LoraSettings
from vlmlens.tuned.record import ABOUT, FOLDER, KINDS, Kind, Tuned

_CONFIG = "adapter_config.json"
_LORA = "adapter_model.safetensors"
_REFUSED = ("adapter_model*.bin", "adapter_model*.pt", "non_lora_trainables.bin")
_OF_MODELS = ("config.json", "model*.safetensors", "pytorch_model*.bin")


def open_tuned(
    source: str | os.PathLike[str], *, revision: str | None = None, trust: bool = False
) -> Tuned:
    """Find a tuned folder, and read what is said of it. No weights are read but for the digest.

    Args:
        source: A tuned folder (`tuned.json`); the folder of a run that `vlmlens tune` made; a
            folder with a LoRA of peft (`adapter_config.json`, `adapter_model.safetensors`); or an
            id of one on the Hugging Face hub, also as ID@REVISION.
        revision: Branch, tag or commit on the hub.
        trust: Whether a run that somebody else made may have links to other places.

    Raises:
        CheckpointNotFound: There is no such folder.
        CheckpointGated: Its owner must grant access first.
        CheckpointError: It holds nothing that was tuned, or files that are not opened.
        UntrustedRun: Somebody else made the run, and parts of it are links to other places.
    """
    text = os.fspath(source)
    folder = _folder(text, revision, trust)
    about = read_object(folder / ABOUT) if _has(folder, ABOUT) else {}
    kind = _kind(folder, about)
    files = _files(folder, kind)
    if kind == "lora":
        said = read_object(folder / _CONFIG)
        settings = LoraSettings.of(said, str(folder))
        about = {"base_model_name_or_path": settings.base, **about}
    return Tuned(
        path=folder,
        kind=kind,
        component=_text(about.get("component")),
        base=_mapping(about.get("base")),
        digest=digest_of(files),
        about={k: v for k, v in about.items() if k not in {"kind", "component", "base"}},
    )


def _folder(text: str, revision: str | None, trust: bool) -> Path:
    path = expanded(text)
    if path.is_dir():
        return _of_run(path, trust) if is_run(path) else path
    if path.exists():
        raise CheckpointError(
            f"{text!r} is a file; what was tuned is given as its folder.",
            subject=text,
            hint=f"Name {str(path.parent)!r}.",
        )
    if is_hub_id(text):
        return downloaded(text, revision)
    raise CheckpointNotFound(
        f"There is no folder {text!r}.",
        subject=text,
        hint="--tuned takes a folder that `vlmlens tune` wrote (or its run), a folder of a LoRA of "
        "peft, or an id of one on the hub.",
    )


def _of_run(path: Path, trust: bool) -> Path:
    """The tuned folder of a run."""
    run = Run(path, trust=trust)
    folder = run.path / FOLDER
    if _has(folder, ABOUT):
        return folder
    others = sorted(str(each.parent) for each in run.path.glob(f"results/**/{ABOUT}"))
    raise CheckpointNotFound(
        f"The run {str(path)!r} holds nothing that was tuned at {FOLDER}.",
        subject=str(path),
        hint=f"Name one of its tuned folders: {' or '.join(others[:4])}."
        if others
        else "`vlmlens tune` makes such a run.",
    )


def _kind(folder: Path, about: Mapping[str, Any]) -> Kind:
    if about:
        said = about.get("kind")
        found = next((kind for kind in KINDS if kind == said), None)
        if found is None:
            raise CheckpointError(
                f"The {ABOUT} in {str(folder)!r} says that it holds {said!r}, which is not known.",
                subject=str(folder),
                hint=f"Known: {', '.join(KINDS)}. A newer version of vlmlens may have written it.",
            )
        return found
    refused = _there(folder, _REFUSED)
    if _has(folder, _CONFIG) or refused:
        return "lora"
    models = _there(folder, _OF_MODELS)
    raise CheckpointError(
        f"{str(folder)!r} holds nothing that was tuned: neither {ABOUT} nor {_CONFIG}.",
        subject=str(folder),
        hint="It looks like a whole model: name it with --model."
        if models
        else "Name the folder that `vlmlens tune`, or peft's `save_pretrained`, wrote.",
    )


def _files(folder: Path, kind: Kind) -> list[Path]:
    """The files that determine the numbers, which are there and inside the folder."""
    if kind == "lora":
        found = [folder / _CONFIG, folder / _LORA]
        _check_lora(folder)
    else:
        found = sorted(folder.glob("*.safetensors"))
        if not found:
            raise _lacks(folder, "a file with weights (*.safetensors)")
        found += [folder / ABOUT] if kind == "prompt" else []
    about = folder / ABOUT
    check_inside(folder, [*found, *([about] if about.exists() else [])])
    return found


def _check_lora(folder: Path) -> None:
    refused = _there(folder, _REFUSED)
    if "non_lora_trainables.bin" in refused:
        raise CheckpointError(
            f"{str(folder)!r} holds a LoRA and other weights that were trained with it "
            "(non_lora_trainables.bin), which would be left out.",
            subject=str(folder),
            hint="Merge both into the model with the code that trained them, and name it with "
            "--model.",
        )
    if not _has(folder, _LORA) and refused:
        raise CheckpointError(
            f"The weights of the LoRA in {str(folder)!r} are a pickle ({', '.join(refused)}), "
            "which is not opened: it could run code.",
            subject=str(folder),
            hint="If you trust it, save it again, in Python: "
            f"safetensors.torch.save_file(torch.load({refused[0]!r}, weights_only=True), "
            f"{_LORA!r}).",
        )
    for name in (_CONFIG, _LORA):
        if not _has(folder, name):
            raise _lacks(folder, name)


def _lacks(folder: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"The folder {str(folder)!r} lacks {what}.",
        subject=str(folder),
        hint="Copy it again, with all of its files.",
    )


def _has(folder: Path, name: str) -> bool:
    return (folder / name).exists()


def _there(folder: Path, patterns: tuple[str, ...]) -> list[str]:
    return sorted({path.name for each in patterns for path in folder.glob(each)})


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
