"""The kind "directions": what open runs hold that can steer a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmlens.view.shown_run import ShownRun


def directions(runs: Sequence[ShownRun]) -> list[dict[str, str]]:
    """The directions and features that open runs hold.

    Returns:
        Of each "name", "site" and "edit", in which {strength} stands for a number.
    """
    return []
