"""Opening an SAE in whatever format it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vlmlens.errors import DataError, SpecError, did_you_mean
from vlmlens_plugins.sae.files.dictionary_learning import (
    is_dictionary_learning,
    read_dictionary_learning,
)
from vlmlens_plugins.sae.files.openai import is_openai, read_openai
from vlmlens_plugins.sae.files.place import Place
from vlmlens_plugins.sae.files.prisma import is_prisma, read_prisma
from vlmlens_plugins.sae.files.saelens import is_saelens, read_saelens
from vlmlens_plugins.sae.files.saev import is_saev, read_saev
from vlmlens_plugins.sae.files.sparsify import is_sparsify, read_sparsify
from vlmlens_plugins.sae.files.tensors import of_torch
from vlmlens_plugins.sae.sae import Sae

_DEEPEST = 3
_MOST_FOLDERS = 500
_LISTED = 10


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


FORMATS = (
    Format("sae-lens", is_saelens, read_saelens),
    Format("sparsify", is_sparsify, read_sparsify),
    Format("dictionary-learning", is_dictionary_learning, read_dictionary_learning),
    Format("saev", is_saev, read_saev),
    Format("prisma", is_prisma, read_prisma),
    Format("openai", is_openai, read_openai),
)


def open_sae(path: str | Path, *, format: str | None = None) -> Sae:  # noqa: A002
    """Read an SAE; nothing in its files is executed.

    Args:
        path: A folder, or a file of weights in it.
        format: "sae-lens", "sparsify", "dictionary-learning", "saev", "prisma" or "openai";
            default: what the files look like.

    Returns:
        The SAE, whose codes are those of the tool that wrote it. `about.source` is the format;
        `about.notes` says what the format does not.

    Raises:
        DataNotFound: There is nothing at that path.
        DataError: It is none of the formats, damaged, or cannot be expressed.
        SpecError: There is no format of that name.
    """
    place = Place.at(path)
    try:
        chosen = _recognised(place) if format is None else _named(format)
        return chosen.read(place)
    except OSError as error:
        raise place.refused(f"a file cannot be read ({error.strerror})") from error
    except DataError as error:
        if error.subject == place.given:
            raise
        raise place.refused(error.message.rstrip("."), error.hint) from error


def _recognised(place: Place) -> Format:
    """The one format that the files look like."""
    found = [each for each in FORMATS if each.recognised(place)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(each.name for each in found)
        raise place.refused(f"it looks like several formats: {names}", "Name one: format=...")
    raise _unknown(place)


def _unknown(place: Place) -> DataError:
    """Why nothing was recognised."""
    if place.weights.endswith((".pt", ".pth", ".pkl")):
        found = of_torch(place, place.weights)
        names = ", ".join(map(repr, sorted(map(str, found))[:6]))
        return place.refused(
            f"no known format has the tensors {names}",
            "dictionary_learning and Prisma keep config.json beside their weights: copy it too.",
        )
    inside = [] if place.weights else _inside(place)
    if inside:
        more = ", and more" if len(inside) > _LISTED else ""
        shown = ", ".join(map(repr, inside[:_LISTED])) + more
        return place.refused(f"SAEs are inside it: {shown}", "Name one of them.")
    return place.refused(
        "it is of no known format", f"Known are: {', '.join(each.name for each in FORMATS)}."
    )


def _inside(place: Place) -> list[str]:
    """Paths of SAEs in folders below, shortest first; not all of many."""
    found: list[str] = []
    folders, seen = [place.folder], 0
    while folders and seen < _MOST_FOLDERS and len(found) <= _LISTED:
        folder = folders.pop(0)
        seen += 1
        for each in sorted(folder.iterdir()):
            depth = len(each.relative_to(place.folder).parts)
            if each.is_symlink() or depth > _DEEPEST:
                continue
            if each.is_dir():
                folders.append(each)
            elif folder == place.folder and each.suffix == ".pt":
                found.append(each.name)
        if folder != place.folder and _looks_like_one(folder):
            found.append(str(folder.relative_to(place.folder)))
    return found


def _looks_like_one(folder: Path) -> bool:
    try:
        return any(each.recognised(Place(str(folder), folder)) for each in FORMATS)
    except (DataError, OSError):
        return False


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
