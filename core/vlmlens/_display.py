"""How public objects show themselves: in one short line, and in notebooks as HTML or SVG.

Data knows no renderer. `vlmlens.report.notebook` registers its renderers here when it is imported,
as `vlmlens.api` does; without it, a notebook shows the short line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

_LONGEST = 160
_renderers: dict[tuple[str, str], Callable[[Any], str]] = {}


def brief(value: object, name: object, *facts: str) -> str:
    """A repr of one line, however much the object holds.

    >>> brief(3, "three", "odd", "prime")
    "<int 'three': odd, prime>"
    """
    said = f"{type(value).__name__} {name!r}" if name != "" else type(value).__name__
    text = f"{said}: {', '.join(map(_visible, facts))}" if facts else said
    return f"<{text if len(text) <= _LONGEST else text[: _LONGEST - 1] + '…'}>"


def _visible(text: str) -> str:
    """Text from data without control characters, which could steer a terminal."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def count(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "row"), count(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """What differs between two mappings, in words, by key.

    >>> changes({"dtype": "float32", "seed": 0}, {"dtype": "bfloat16", "seed": 0})
    {'dtype': "dtype was 'float32', is 'bfloat16'"}
    """
    differing = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    return {key: f"{key} was {before.get(key)!r}, is {now.get(key)!r}" for key in differing}


def size(number: float) -> str:
    """Bytes for people.

    >>> size(2_500_000), size(10)
    ('2.4 MiB', '10 bytes')
    """
    units = ("bytes", "KiB", "MiB", "GiB", "TiB")
    power = min(int(math.log(number, 1024)), len(units) - 1) if number >= 1 else 0
    return f"{number / 1024**power:.{1 if power else 0}f} {units[power]}"


def shape(array: Any) -> str:
    """The shape of an array or tensor, never its values; "none" for None."""
    return "none" if array is None else f"{list(array.shape)}"


def register(kind: type | str, form: Literal["html", "svg"], render: Callable[[Any], str]) -> None:
    """Say how objects of a class are drawn.

    Args:
        kind: The class; where importing it is slow, its name: "vlmlens.passes.tracing.Trace".
        form: What notebooks ask for.
        render: Gives the markup of an object.
    """
    _renderers[kind if isinstance(kind, str) else _name(kind), form] = render


def rendered(value: object, form: Literal["html", "svg"]) -> str | None:
    """The object drawn; None, which notebooks take for "as text", where nothing draws it."""
    render = _renderers.get((_name(type(value)), form))
    return render(value) if render else None


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


class AsHtml:
    """Shown as HTML in notebooks, once a renderer is registered."""

    __slots__ = ()

    def _repr_html_(self) -> str | None:
        return rendered(self, "html")


class AsSvg:
    """Shown as SVG in notebooks, once a renderer is registered."""

    __slots__ = ()

    def _repr_svg_(self) -> str | None:
        return rendered(self, "svg")
