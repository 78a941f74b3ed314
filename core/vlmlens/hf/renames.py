"""Names of upstream's modules and weights, and what they are called here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from vlmlens.sites import Rename


def renames_below(head: str, names: Mapping[str, str], now: str | None = None) -> list[Rename]:
    r"""What modules below one were called, and are called now; it serves for weights, too.

    Args:
        head: The module. `{i}` stands for the number of a block, here and in names.
        names: Old name and new name below it, in the order in which they apply. Old names are
            regular expressions in which a dot is a dot; new ones may refer to groups.
        now: What the module itself is called now, if it is called otherwise.

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
    """What a module or weight of upstream's is called here: the renames applied in order."""
    for rename in renames:
        name = re.sub(rename.pattern, rename.replacement, name)
    return name


def _pattern(path: str) -> str:
    return path.replace(".", r"\.").replace("{i}", "(?P<i>[^.]+)")
