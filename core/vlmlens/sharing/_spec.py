"""The spec of a run as it is sent: without this machine's places."""

from __future__ import annotations

from typing import Any

from vlmlens.sharing._screen import Screen
from vlmlens.spec.model import RunSpec, make_spec

SENT_COLUMNS = "safetensors"
"""The storage of columns that are sent: files that hold numbers only, whatever wrote them."""

_PLACES = ("model", "data", "tuned", "adapter", "extractor")
_OF_THIS_MACHINE = ("storage", "engine", "plugins")
"""Options that are not sent: addresses of stores, clusters and logs."""


def sent_spec(spec: RunSpec, screen: Screen) -> RunSpec:
    """A spec that says what was run, and nothing of where.

    Args:
        spec: The run's own.
        screen: Screens texts.

    Raises:
        SpecError: It holds a credential, or cannot be a spec.
    """
    values: dict[str, Any] = spec.model_dump(mode="json")
    for name in _PLACES:
        if isinstance(values[name], str):
            values[name] = screen.place(values[name])
    values["prompt"] = screen.every(values["prompt"])
    values["edits"] = screen.every(values["edits"], words=True)
    values["analysis"] = {
        screen.place(name): screen.every(options, words=True)
        for name, options in values["analysis"].items()
    }
    for name, options in values["options"].items():
        kept = {} if name in _OF_THIS_MACHINE else screen.every(options, words=True)
        values["options"][name] = kept
    values |= {"out": None, "engine": None, "storage": SENT_COLUMNS}
    return make_spec(values)
