"""Tables of object names for CHAIR: the user's `synonyms.txt`, or the one of COCO's 80 kinds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from vlmlens.errors import DataError, DataNotFound
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.sources import digest
from vlmlens_plugins.object_names import COCO, ObjectNames, coco_names, demo_names, read_names

NAMES = "names"
"""The attribute that says which table a sample's objects are named by; see `keyed`."""
DEMO = "demo"

_ANIMALS = (
    "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe",
    "animal", "cub",
)  # fmt: skip
_AGES = ("baby", "adult")
_VEHICLES = ("jet", "train")
_TWO_WORDS = (
    "motor bike", "motor cycle", "air plane", "traffic light", "street light", "traffic signal",
    "stop light", "fire hydrant", "stop sign", "parking meter", "suit case", "sports ball",
    "baseball bat", "baseball glove", "tennis racket", "wine glass", "hot dog", "cell phone",
    "mobile phone", "teddy bear", "hair drier", "potted plant", "laptop computer", "home plate",
)  # fmt: skip
LATER = {"train track": "train track"}
"""Two words that later copies of the code join, and the original does not."""


def _joined() -> dict[str, str]:
    """Two words that count as one, and what they count as (Rohrbach et al.'s list)."""
    found = {name: name for name in _TWO_WORDS}
    found |= {f"{age} {name}": name for age in _AGES for name in _ANIMALS}
    found |= {f"passenger {name}": name for name in _VEHICLES}
    return found | {"bow tie": "tie", "toilet seat": "toilet", "wine glas": "wine glass"}


JOINED: Mapping[str, str] = _joined()


@dataclass(frozen=True)
class Table:
    """Object names, for the rule of vlmlens and for those of other code.

    Args:
        names: With "baby elephant" and the like, as the strict rule reads texts.
        objects: By word, its object, as other code looks words up: a word that its file spells
            with a blank too many is never found.
        joined: Pairs of words that other code joins, and what they count as.
    """

    names: ObjectNames
    objects: Mapping[str, str]
    joined: Mapping[str, str]


def keyed(path: str | None) -> str:
    """How samples name a table: "coco" without a file or of that name, else "PATH#DIGEST".

    Raises:
        DataNotFound: There is no such file.
        DataError: It holds no table, or the pickle of another program.
    """
    if path is None or path == COCO:
        return COCO
    file = Path(path).expanduser().absolute()
    refuse_pickle(file)
    for name in read_names(str(file)).synonyms:
        if "," in name:
            raise DataError(
                f"The object {name!r} of {file} has a comma in its name.",
                subject=name,
                hint="Name objects without commas.",
            )
    return f"{file}#{digest(file)}"


def refuse_pickle(file: Path) -> None:
    """Refuse the cache that other code writes (`chair.pkl`).

    Raises:
        DataError: It is a pickle, by its suffix.
    """
    if file.suffix.lower() in (".pkl", ".pickle"):
        raise DataError(
            f"{file} is a pickle, which can run code when it is loaded: it is not read.",
            subject=str(file),
            hint="Give the folder with COCO's own files (instances_val2014.json and "
            "captions_val2014.json), from which that cache was made.",
        )


def key_of(sample: Sample) -> str:
    """The name of the table that a sample's objects are named by."""
    return str(sample.attributes.get(NAMES) or COCO)


@lru_cache(maxsize=8)
def table(key: str) -> Table:
    """The table of that name, see `keyed`.

    Raises:
        DataNotFound: Its file is not there any more, or another one.
    """
    if key in (COCO, DEMO):
        names = coco_names() if key == COCO else demo_names()
        own = {} if key == COCO else {name: name for name in names.synonyms if " " in name}
        return Table(names, _words(names.synonyms.items()), {**JOINED, **own})
    path, _, known = key.rpartition("#")
    file = Path(path)
    if not file.is_file() or digest(file) != known:
        raise DataNotFound(
            f"The table of object names {path!r} is not there any more, or it was changed.",
            subject=path,
            hint=f"The run read a file whose SHA-256 begins with {known}: bring it back.",
        )
    return Table(_qualified(read_names(path)), _as_written(file), JOINED)


def _words(rows: Iterable[tuple[str, Sequence[str]]]) -> dict[str, str]:
    return {one: name for name, more in rows for one in (name, *more)}


def _as_written(file: Path) -> dict[str, str]:
    """The words of a `synonyms.txt` as other code has them: parted by comma and one blank."""
    lines = file.read_text(encoding="utf-8-sig").splitlines()
    if any(":" in line or "#" in line for line in lines) or file.suffix.lower() == ".json":
        return _words(read_names(str(file)).synonyms.items())
    rows = [line.strip().split(", ") for line in lines if line.strip()]
    return _words((row[0], row[1:]) for row in rows)


def _qualified(names: ObjectNames) -> ObjectNames:
    """With the pairs of words that mean an object of the table, or none."""
    synonyms = {name: list(more) for name, more in names.synonyms.items()}
    others = list(names.others)
    for pair, word in {**JOINED, **LATER}.items():
        known, name = names.object_of(pair), names.object_of(word)
        if known is None and name is not None:
            synonyms[name].append(pair)
        elif known is None:
            others.append(pair)
    return ObjectNames(synonyms, names.kinds, others)
