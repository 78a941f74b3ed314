"""Reading edits that are written as text, which takes the installed interventions.

The registry of plugins stands above the interfaces, so it announces itself here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vlmlens.errors import CompositionError

if TYPE_CHECKING:
    from vlmlens.passes.edits import EdgeCut, Edit

_readers: list[Callable[[str], Edit | EdgeCut]] = []


def announce(reader: Callable[[str], Edit | EdgeCut]) -> None:
    """Make a function known that reads edits; the last one counts."""
    _readers.append(reader)


def read_edit(text: str) -> Edit | EdgeCut:
    """The edit that a text means.

    Raises:
        EditError: It does not parse.
        PluginError: There is no such intervention.
        CompositionError: The registry of plugins was never imported.
    """
    if not _readers:
        raise CompositionError(
            f"{text!r} names an intervention, and the registry of plugins is not loaded.",
            subject=text,
            hint="Load the model with vlmlens.load, or import vlmlens.registry.",
        )
    return _readers[-1](text)
