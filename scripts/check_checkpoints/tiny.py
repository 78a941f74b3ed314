"""Tiny checkpoints with random weights, laid out as on the Hub, one per architecture.

They are those of the adapters' own conformance kits. A suite says with `stands_for` which listed
checkpoint has its architecture; of a family in which no suite says it, the first suite stands for
the first listed checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.check_checkpoints.listed import Listed
from scripts.check_checkpoints.places import TINY, find
from vlmlens._files import replacing, write_json
from vlmlens.errors import SpecError

if TYPE_CHECKING:
    from vlmlens.manifest import Manifest


def write_tiny(folder: Path, checkpoints: Sequence[Listed]) -> Iterator[str]:
    """Write tiny copies of the given checkpoints, of one per architecture, into `FOLDER/ORG/NAME`.

    One that is there already stays as it is.

    Args:
        folder: The folder that `--models` names later.
        checkpoints: Which ones.

    Yields:
        The id of each, when it is there.

    Raises:
        SpecError: A checkpoint that is no tiny copy lies in its place.
    """
    wanted = {one.id for one in checkpoints}
    for adapter in {one.adapter.name: one.adapter for one in checkpoints}.values():
        for checkpoint, suite in suites(adapter):
            if checkpoint in wanted:
                _check_free(folder, checkpoint)
                _write(folder / checkpoint, checkpoint, suite)
                yield checkpoint


def suites(adapter: Manifest) -> list[tuple[str, Any]]:
    """Listed checkpoints, each with the suite whose tiny checkpoint has the same architecture."""
    module, _, attribute = str(adapter.checks).partition(":")
    classes: Sequence[Any] = getattr(import_module(module), attribute)
    named = [(vars(each)["stands_for"], each) for each in classes if "stands_for" in vars(each)]
    return named or [(adapter.checkpoints[0].id, classes[0])]


def _check_free(folder: Path, checkpoint: str) -> None:
    """Raise an error where a checkpoint would be lost, or no longer be found."""
    known = find(folder, checkpoint)
    if known is not None and not (known.folder / TINY).exists():
        raise SpecError(
            f"{str(known.folder)!r} holds {checkpoint}, and no tiny copy of it.",
            subject=str(known.folder),
            hint="Give tiny copies a folder of their own.",
        )


def _write(place: Path, checkpoint: str, suite: Any) -> None:
    if (place / TINY).exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with replacing(place) as folder:
        folder.mkdir()
        suite().build(folder)
        write_json(folder / TINY, {"tiny copy of": checkpoint, "weights": "random"})
