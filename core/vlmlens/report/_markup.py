"""HTML and SVG from nested calls; texts and attributes are escaped unless they are Markup."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from vlmlens._clean import clean

_VOID = frozenset({"img", "meta", "br", "input", "link"})


class Markup(str):
    """Text that is markup already. Only this module and the page's template make it."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str | float | bool | None) -> Markup:
    """One element.

    Args:
        name: Its name.
        children: Text, which is escaped, or Markup, which is not.
        attributes: A trailing underscore is dropped and other underscores become hyphens; None
            and False leave the attribute out, True gives it no value.

    >>> tag("p", "a < b", class_="x", data_n=1.50)
    '<p class="x" data-n="1.5">a &lt; b</p>'
    """
    head = name + "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{head}>")
    return Markup(f"<{head}>{join(children)}</{name}>")


def join(parts: Iterable[str], separator: str = "") -> Markup:
    """Parts one after another; text is escaped, Markup is not."""
    return Markup(
        separator.join(part if isinstance(part, Markup) else text(part) for part in parts)
    )


def text(value: object) -> Markup:
    """Escaped text."""
    return Markup(escape(clean(value), quote=True))


def _attribute(key: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{text(_number(value) if isinstance(value, float) else value)}"'


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
