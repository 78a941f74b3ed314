"""vlmlens looks inside vision-language models.

It runs a model on images and prompts, keeps the activations of any layer, and answers questions
about them. Importing this package is cheap; torch is imported when a model is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmlens._version import __version__

if TYPE_CHECKING:
    from vlmlens.abc.hookspecs import hookimpl
    from vlmlens.api import (
        Look,
        Run,
        analyze,
        compare,
        export,
        extract,
        load,
        look,
        open,  # noqa: A004
        run,
        tune,
    )
    from vlmlens.errors import VlmlensError
    from vlmlens.samples import Sample
    from vlmlens.sharing import pull, push
    from vlmlens.tokens import Column, Selector

__all__ = [
    "Column",
    "Look",
    "Run",
    "Sample",
    "Selector",
    "VlmlensError",
    "__version__",
    "analyze",
    "compare",
    "export",
    "extract",
    "hookimpl",
    "load",
    "look",
    "open",
    "pull",
    "push",
    "run",
    "tune",
]

_HOMES = {
    "Column": "vlmlens.tokens",
    "Look": "vlmlens.api",
    "Run": "vlmlens.api",
    "Sample": "vlmlens.samples",
    "Selector": "vlmlens.tokens",
    "VlmlensError": "vlmlens.errors",
    "analyze": "vlmlens.api",
    "compare": "vlmlens.api",
    "export": "vlmlens.api",
    "extract": "vlmlens.api",
    "hookimpl": "vlmlens.abc.hookspecs",
    "load": "vlmlens.api",
    "look": "vlmlens.api",
    "open": "vlmlens.api",
    "pull": "vlmlens.sharing",
    "push": "vlmlens.sharing",
    "run": "vlmlens.api",
    "tune": "vlmlens.api",
}


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that `import vlmlens` stays cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vlmlens' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
