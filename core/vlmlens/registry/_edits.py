"""Edits that are written as text: finding the intervention, and giving it its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vlmlens.errors import EditError
from vlmlens.manifest import PluginKind

if TYPE_CHECKING:
    from vlmlens.abc.options import Options
    from vlmlens.manifest import Manifest
    from vlmlens.passes.edits import EdgeCut, Edit, WrittenEdit


def opened_edit(
    text: str,
    find: Callable[[PluginKind, str], Manifest],
    load: Callable[[Manifest], type[Any]],
    options: Callable[[Manifest, Mapping[str, Any]], Options],
) -> Edit | EdgeCut:
    """The edit that a text means.

    Args:
        text: `SITE/SELECTOR = INTERVENTION(arguments)`.
        find: `Registry.find`.
        load: `Registry.load`.
        options: `Registry.options`.

    Raises:
        EditError: It does not parse, or has more arguments than the intervention.
        SelectorError: The selector does not parse.
        PluginError: There is no such intervention.
        SpecError: It has no such option, or the value is of the wrong kind.
    """
    from vlmlens.passes.edits import WrittenEdit
    from vlmlens.tokens import Selector

    written = WrittenEdit.parse(text)
    if written.keys:
        return written.cut
    Selector.parse(written.selector)
    manifest = find(PluginKind.INTERVENTION, written.name)
    plugin = load(manifest)
    values = _values(written, list(plugin.Options.model_fields))
    made: Edit = plugin(options(manifest, values)).at(
        written.site, written.selector, text=written.text
    )
    return made


def _values(written: WrittenEdit, names: list[str]) -> Mapping[str, Any]:
    """The values of options: arguments without a name, in order, and those with one."""
    if len(written.positional) > len(names):
        raise EditError(
            f"{written.text!r} has {len(written.positional)} arguments without a name; "
            f"{written.name} takes {len(names)}.",
            subject=written.text,
            hint=f"Its options: {', '.join(names) or 'none'}.",
        )
    values: dict[str, Any] = dict(zip(names, written.positional, strict=False))
    twice = sorted(values.keys() & written.named.keys())
    if twice:
        raise EditError(
            f"{written.text!r} gives {twice[0]!r} twice: by its place and by its name.",
            subject=written.text,
            hint=f"The order of the options: {', '.join(names)}.",
        )
    return values | dict(written.named)
