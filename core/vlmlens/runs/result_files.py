"""Reading the results that are stored in a run."""

from __future__ import annotations

import json
from pathlib import Path

from vlmlens.errors import RunError
from vlmlens.results import Result


def read_results(folder: Path) -> list[Result]:
    """The results that `write_result` wrote to a folder, by name of the analysis.

    Raises:
        RunError: A file is not a result; names the file.
    """
    return [_read(path) for path in sorted(folder.glob("*.json"))]


def _read(path: Path) -> Result:
    try:
        return Result.from_dict(json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path} holds no result ({type(error).__name__}: {error}).",
            subject=str(path),
            hint="Remove the file and run the analysis again.",
        ) from error
