"""Opening an SAE in whatever format it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vlmlens.errors import SpecError, did_you_mean
from vlmlens_plugins.sae.files.place import Place
from vlmlens_plugins.sae.files.saelens import is_saelens, read_saelens
from vlmlens_plugins.sae.sae import Sae


@dataclass(frozen=True, slots=True)
class Format:
    """A form in which a tool keeps SAEs.

    Args:
        name: As users write it.
        recognised: Whether a place looks like it; reads little, and raises nothing.
        read: The SAE of a place; checks everything.
    """

    name: str
    recognised: Callable[[Place], bool]
    read: Callable[[Place], Sae]


FORMATS = (Format("sae-lens", is_saelens, read_saelens),)


def open_sae(path: str | Path, *, format: str | None = None) -> Sae:  # noqa: A002
    """Read an SAE; nothing in its files is executed.

    Args:
        path: A folder, or a file of weights in it.
        format: "sae-lens", ...; default: what the files look like.

    Returns:
        The SAE, whose codes are those of the tool that wrote it.

    Raises:
        DataNotFound: There is nothing at that path.
        DataError: It is none of the formats, damaged, or cannot be expressed.
        SpecError: There is no format of that name.
    """
    place = Place.at(path)
    if format is not None:
        return _named(format).read(place)
    for each in FORMATS:
        if each.recognised(place):
            return each.read(place)
    raise place.refused("it is of no known format")


def _named(name: str) -> Format:
    for each in FORMATS:
        if each.name == name.lower().replace("_", "-"):
            return each
    names = [each.name for each in FORMATS]
    raise SpecError(
        f"There is no format {name!r} of SAEs.",
        subject="format",
        hint=did_you_mean(name, names) or f"Known are: {', '.join(names)}.",
    )
