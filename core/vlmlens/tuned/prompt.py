"""Virtual tokens in a tuned folder: checked against a model, and put into it.

`prompt.safetensors` holds one tensor, `vectors` `[tokens, width]`; `tuned.json` says where they
stand (`place`) and how many they are (`tokens`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens.errors import CheckpointError, SpecError
from vlmlens.passes.soft_prompt import SoftPrompt, check_model, check_place, check_width, placed
from vlmlens.tuned.folder_files import shapes_in

if TYPE_CHECKING:
    import torch

    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.tuned.record import Tuned

FILE = "prompt.safetensors"
NAME = "vectors"


def check_fits(vlm: ModelAdapter, tuned: Tuned, *, merge: bool = False) -> None:
    """Check virtual tokens against a model or its skeleton; no tensor is read.

    Args:
        vlm: The model.
        tuned: The folder.
        merge: Ignored: there is nothing to merge.

    Raises:
        CheckpointError: The file is missing, damaged, or not as `tuned.json` says.
        CompositionError: The model reads no prompts, has virtual tokens already, or another width.
    """
    del merge
    tokens, width = _shape(tuned)
    _check_said(tuned, tokens)
    check_model(vlm)
    check_width(width, vlm)


def put_in(vlm: ModelAdapter, tuned: Tuned, *, merge: bool = False) -> None:
    """Have the virtual tokens of a folder in every prompt of a model, from now on.

    Args:
        vlm: The model.
        tuned: The folder.
        merge: Ignored.

    Raises:
        CheckpointError, CompositionError: See `check_fits`; or the vectors are not finite.
    """
    check_fits(vlm, tuned, merge=merge)
    vlm.soft_prompt = read_prompt(tuned)


def read_prompt(tuned: Tuned) -> SoftPrompt:
    """The virtual tokens of a folder, in float32 on the CPU.

    Raises:
        CheckpointError: The file is missing, damaged, or not as `tuned.json` says.
    """
    tokens, _ = _shape(tuned)
    place = _check_said(tuned, tokens)
    try:
        read = SoftPrompt(_vectors(tuned.path / FILE), placed(place))
    except SpecError as error:
        raise _wrong(tuned, f"holds vectors that cannot be used. {error.message}") from error
    return SoftPrompt(read.vectors.float(), read.place)


def about_prompt(prompt: SoftPrompt) -> Mapping[str, Any]:
    """What `tuned.json` must say of virtual tokens."""
    return {"place": prompt.place, "tokens": len(prompt)}


def _check_said(tuned: Tuned, tokens: int) -> str:
    """The place that `tuned.json` names."""
    place, said = tuned.about.get("place"), tuned.about.get("tokens")
    try:
        check_place(place)
    except SpecError as error:
        raise _wrong(tuned, f"has no known place of its virtual tokens: {place!r}") from error
    if said != tokens:
        raise _wrong(tuned, f"says {said!r} virtual tokens, and the file holds {tokens}")
    return str(place)


def _shape(tuned: Tuned) -> tuple[int, int]:
    """Tokens and width of the vectors in the file."""
    shapes = shapes_in(tuned.path / FILE)
    shape = shapes.get(NAME, ())
    if set(shapes) != {NAME} or len(shape) != 2 or 0 in shape:
        given = ", ".join(f"{name} {list(each)}" for name, each in shapes.items())[:80]
        raise _wrong(tuned, f"has a {FILE} with {given}; expected is {NAME} [tokens, width]")
    return shape[0], shape[1]


def _vectors(path: Path) -> torch.Tensor:
    from safetensors.torch import load_file

    return load_file(path)[NAME]


def _wrong(tuned: Tuned, what: str) -> CheckpointError:
    return CheckpointError(
        f"The tuned folder {str(tuned.path)!r} {what}.",
        subject=str(tuned.path),
        hint="It is damaged or incomplete: copy it again, or train it again.",
    )
