"""The kind "directions": what open runs hold that can steer a model. Nothing of it is loaded.

Analyses save directions in `results/` as safetensors files with one vector, whose metadata say
where they belong, and SAEs as folders of SAELens, with a page per shown feature beside them. Only
headers are read.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens.passes.edits import quoted
from vlmlens.runs.trust import is_inside
from vlmlens.view.shown_run import names_of

if TYPE_CHECKING:
    from vlmlens.view.shown_run import ShownRun

_MOST = 500
_MOST_FILES = 5000
_HEADER = 1 << 20
_LENGTH = 8

Direction = dict[str, str]


def directions(runs: Sequence[ShownRun]) -> list[Direction]:
    """The directions and SAE features that open runs hold, at most a few hundred.

    Returns:
        Of each "name", "site" (a column's site and rows) and "edit", in which {strength} stands
        for a number: of a direction a multiple of it, of a feature one of its largest code.
    """
    called = names_of(runs) if len(runs) > 1 else [""] * len(runs)
    named = zip(runs, called, strict=True)
    found = (
        {**each, "name": f"{each['name']}, {name}" if name else each["name"]}
        for run, name in named
        for each in _of_run(run)
    )
    return list(islice(found, _MOST))


def _of_run(run: ShownRun) -> Iterator[Direction]:
    folder = run.run.path / "results"
    try:
        names = sorted(path.name for path in islice(folder.iterdir(), _MOST_FILES))
    except OSError:
        return
    for name in names:
        path = folder / name
        if not is_inside(str(path), run.run.path):
            continue
        with suppress(OSError, ValueError, RecursionError):
            if name.endswith(".safetensors"):
                yield from _of_vector(run, path)
            elif f"{name}.features" in names:
                yield from _of_sae(run, path)


def _of_vector(run: ShownRun, path: Path) -> Iterator[Direction]:
    """A vector, if its file says at which site and rows it was learnt."""
    about = _about(path)
    column = f"{about['site']}/{about['rows']}" if {"site", "rows"} <= about.keys() else ""
    if column:
        towards = about.get("towards") or path.stem
        task = f"{about['task']}: " if about.get("task") else ""
        edit = f"{column} = add({_named(run, path)}, {{strength}})"
        yield _direction(f"{task}{towards} at {column}", column, edit)


def _about(path: Path) -> Mapping[str, Any]:
    """What a safetensors file with one vector says of itself; empty without that."""
    header = _object(json.loads(_header(path)))
    metadata = _object(header.pop("__metadata__", {}))
    shapes = [_object(each).get("shape", []) for each in header.values()]
    if len(shapes) != 1 or len(shapes[0]) != 1:
        return {}
    found = next((text for key, text in metadata.items() if key.startswith("vlmlens ")), "{}")
    return _object(json.loads(found))


def _header(path: Path) -> bytes:
    _check_plain(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        if length > _HEADER:
            raise ValueError("too long a header")
        return file.read(length)


def _of_sae(run: ShownRun, path: Path) -> Iterator[Direction]:
    """The features of an SAE that have pages."""
    config = path / "cfg.json"
    _check_plain(config)
    known = _object(
        _object(_object(json.loads(config.read_bytes())).get("metadata")).get("vlmlens")
    )
    column = str(known.get("column") or "")
    if not column or " + " in column or known.get("target"):
        return
    largest = "largest" in _object(known.get("trained"))
    unit = ", unit=max" if largest else ""
    pages = path.with_name(f"{path.name}.features")
    numbers = (each.stem for each in islice(pages.iterdir(), _MOST_FILES))
    for number in sorted(int(each) for each in numbers if each.isdecimal() and len(each) < _LENGTH):
        name = _name_of(pages / f"{number}.json")
        edit = f"{column} = sae.steer({_named(run, path)}, {number}, {{strength}}{unit})"
        yield _direction(f"feature {number}{name} at {column}", column, edit)


def _name_of(page: Path) -> str:
    _check_plain(page)
    known = _object(json.loads(page.read_bytes()))
    said = str(known.get("name") or known.get("why") or "")
    return f" ({said})" if said else ""


def _check_plain(path: Path) -> None:
    """Raise `ValueError` for what is no file of a moderate size."""
    found = path.lstat()
    small = path.suffix == ".safetensors" or found.st_size <= _HEADER
    if not stat.S_ISREG(found.st_mode) or not small:
        raise ValueError("no file of a moderate size")


def _object(given: Any) -> dict[str, Any]:
    return given if isinstance(given, dict) else {}


def _named(run: ShownRun, path: Path) -> str:
    return quoted(f"runs/{run.number}/results/{path.name}")


def _direction(name: str, column: str, edit: str) -> Direction:
    return {"name": name, "site": column, "edit": edit}
