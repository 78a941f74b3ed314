"""What the functions of the Python API share: their keywords, and the spec that these make."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from inspect import cleandoc, signature
from typing import Any, ParamSpec, TypeVar

from vlmlens.runs.run import Run
from vlmlens.spec.model import RunSpec, make_spec

P = ParamSpec("P")
T = TypeVar("T")
StrPath = str | os.PathLike[str]
Analyses = str | Sequence[str | Mapping[str, Any]] | Mapping[str, Mapping[str, Any] | None]
"""Names of analyses, or by name their options."""


def described(function: Callable[P, T]) -> Callable[P, T]:
    """Add to a docstring what the run spec says of each keyword: there is one text for all."""
    fields = RunSpec.model_fields
    known = [name for name in signature(function).parameters if name in fields]
    lines = [f"    {name}: {fields[name].description}" for name in known]
    if function.__doc__:
        text = cleandoc(function.__doc__)
        end = min(place for place in map(text.find, ("Returns:", "Raises:")) if place >= 0)
        function.__doc__ = "\n".join([f"{text[:end]}Args:", *lines, "", text[end:]])
    return function


def with_keywords_of(pattern: Callable[P, Any]) -> Callable[[Callable[..., T]], Callable[P, T]]:
    """Give a function the keywords of another one: for type checkers, `help` and completion."""

    def give(function: Callable[..., T]) -> Callable[P, T]:
        function.__signature__ = signature(pattern)  # type: ignore[attr-defined]
        return function

    return give


def with_workers(settings: Mapping[str, Any], workers: int | str) -> dict[str, Any]:
    """The settings, with the number of workers among the options of the engine."""
    if workers == 1:
        return dict(settings)
    given = dict(settings.get("options") or {})
    given["engine"] = {**given.get("engine", {}), "workers": str(workers)}
    return {**settings, "engine": settings.get("engine") or "processes", "options": given}


def spec_of(settings: Mapping[str, Any]) -> RunSpec:
    """The checked spec of keywords.

    Raises:
        SpecError: A value is of the wrong kind.
    """
    given = {name: place_of(value) for name, value in settings.items()}
    if given.get("options", {}) is None:
        del given["options"]
    return make_spec(given)


def place_of(value: Any) -> Any:
    """The path of a run or a path-like as text; anything else as it is."""
    if isinstance(value, Run):
        return str(value.path)
    return os.fspath(value) if isinstance(value, os.PathLike) else value
