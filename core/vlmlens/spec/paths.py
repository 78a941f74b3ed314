"""Paths as people write them: with `~`, as on Windows, relative to a run file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmlens._files import expanded
from vlmlens.errors import SpecError

_WINDOWS = re.compile(r"[A-Za-z]:[\\/].*|.*\\.*", re.DOTALL)
_OF_DATASET = re.compile(r"[\w-]{2,}:")
_TOLD = ("data", "model", "tuned")


def path_of(value: str) -> str:
    """The value of a setting that can be a path, with `~` expanded.

    Raises:
        ValueError: It is a path of another system, or no text.

    >>> path_of("runs/x"), path_of("~nobody-of-that-name/x")
    ('runs/x', '~nobody-of-that-name/x')
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError("it holds bytes that are no UTF-8; give the file another name") from error
    if os.name == "posix" and _WINDOWS.fullmatch(value) and not Path(value).exists():
        raise ValueError(
            "this is a path of Windows, and there is no such path on this machine; write it with "
            "/, and without a drive letter (in WSL, C:\\ is /mnt/c/)"
        )
    return str(expanded(value)) if value.startswith("~") else value


def check_beside(config: str, values: Mapping[str, Any]) -> None:
    """Explain a path of a run file that is meant from the file's folder.

    Args:
        config: The run file.
        values: What it holds.

    Raises:
        SpecError: A path is not in the working folder, but beside the file.
    """
    folder = expanded(config).parent
    for key in _TOLD:
        value = values.get(key)
        if not isinstance(value, str) or not value:
            continue
        path = Path(_OF_DATASET.sub("", value, count=1))
        if not expanded(path).exists() and (folder / path).exists():
            raise SpecError(
                f"The run file {config} names {key}: {value}, which is not in the working folder "
                f"{str(Path.cwd())!r}, but beside the file.",
                subject=key,
                hint=f"Paths are read from the working folder. Write {folder / path}, or change "
                f"to the folder {str(folder)!r} first.",
            )
