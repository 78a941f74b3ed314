"""Renames modules and weights of the original code to our names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from vlmlens.sites import Rename


def renames_below(head: str, names: Mapping[str, str], now: str | None = None) -> list[Rename]:
    r"""Renames of the modules below one module, and of their weights.

    Args:
        head: The module. `{i}` stands for the number of a block, here and in names.
        names: Old and new names below it, in the order of application. Old names are regular
            expressions in which a dot means a dot; new ones may refer to groups.
        now: The new name of the module itself, if it differs.

    >>> rules = renames_below("layers.{i}", {"attn.proj": "self_attn.o_proj"}, "model.layers.{i}")
    >>> native_name("layers.3.attn.proj.weight", rules), native_name("layers.3.attn.projs", rules)
    ('model.layers.3.self_attn.o_proj.weight', 'layers.3.attn.projs')
    """
    where = head if now is None else now
    return [
        Rename(f"^{_pattern(f'{head}.{old}')}(?=\\.|$)", f"{where}.{new}".replace("{i}", r"\g<i>"))
        for old, new in names.items()
    ]


def native_name(name: str, renames: Iterable[Rename]) -> str:
    """Our name of an original module or weight: the renames applied in order."""
    for rename in renames:
        name = re.sub(rename.pattern, rename.replacement, name)
    return name


def _pattern(path: str) -> str:
    return path.replace(".", r"\.").replace("{i}", "(?P<i>[^.]+)")
