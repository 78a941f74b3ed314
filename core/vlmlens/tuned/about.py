"""`tuned.json`: what is said of a tuned folder beside its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmlens.tuned.record import ABOUT, Kind


def write_about(folder: Path, kind: Kind, about: Mapping[str, Any]) -> None:
    """Write `tuned.json` into a tuned folder.

    Args:
        folder: The folder, with the weights.
        kind: What the folder holds.
        about: JSON-ready: "component", "base" (what the model says of itself), and how it was
            trained.
    """
    text = json.dumps({**about, "kind": kind}, indent=1, sort_keys=True, allow_nan=False)
    (folder / ABOUT).write_text(f"{text}\n", encoding="utf-8")
