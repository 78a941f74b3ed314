"""Vision towers whose features are taken before they end."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.sites import SiteMap

_STACK = "vision.block"


def blocks_behind(sites: SiteMap, states: int | Sequence[int]) -> tuple[str, ...]:
    """Names of the vision blocks behind the last hidden state that is read.

    Args:
        sites: Of the model.
        states: Numbers of hidden states: 0 is what enters the first block, -1 what the last gives.

    >>> from vlmlens.sites import Axis, SiteTemplate
    >>> template = SiteTemplate("vision.block.{i}", ("layers.{i}",), Axis.VISION)
    >>> tower = SiteMap([template], [f"layers.{i}" for i in range(4)])
    >>> blocks_behind(tower, -2), blocks_behind(tower, [1, 2]), blocks_behind(tower, -1)
    (('vision.block.3',), ('vision.block.2', 'vision.block.3'), ())
    """
    names = [f"{_STACK}.{i}" for i in range(len(sites.canonical))]
    blocks = [name for name in names if name in sites.canonical]
    numbers = [states] if isinstance(states, int) else list(states)
    read = max(state % (len(blocks) + 1) for state in numbers)
    return tuple(blocks[read:])
