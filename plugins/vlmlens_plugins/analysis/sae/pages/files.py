"""Pages as files: a folder with a JSON file for each feature."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from vlmlens._files import write_json
from vlmlens.errors import DataError, DataNotFound
from vlmlens.report.files import plain
from vlmlens.results import FeaturePage

_DAMAGED = (
    OSError, KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError,
)  # fmt: skip
_OWN = re.compile(r"[0-9]+\.json")


def write_pages(folder: Path, pages: Sequence[FeaturePage]) -> list[Path]:
    """Write `FOLDER/NUMBER.json` for each page, whole or not at all; earlier pages are removed.

    Args:
        folder: A folder for the pages of one SAE; made where missing.
        pages: The pages.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = [folder / f"{page.number}.json" for page in pages]
    for path, page in zip(made, pages, strict=True):
        write_json(path, plain(page))
    for path in folder.iterdir():
        if _OWN.fullmatch(path.name) and path not in made:
            path.unlink()
    return made


def read_page(path: Path) -> FeaturePage:
    """The page in a file of `write_pages`.

    Raises:
        DataNotFound: There is no such file.
        DataError: It holds no page.
    """
    try:
        return FeaturePage.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise DataNotFound(f"There is no file {str(path)!r}.", subject=str(path)) from error
    except _DAMAGED as error:
        raise DataError(
            f"{str(path)!r} holds no page of a feature: {error}.",
            subject=str(path),
            hint="Pages are written by the analysis sae.",
        ) from error
