"""Leaving out blocks whose output nothing reads.

Some families take an image's features before their vision tower ends, and the blocks behind run all
the same. Where no wanted site needs them, extraction lets them pass on what they
are given, and every wanted activation keeps its bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from vlmlens.passes.model import Model
    from vlmlens.sites import Site, SiteMap


def needless(vlm: Model, sites: Iterable[Site]) -> tuple[str, ...]:
    """Module paths of the blocks in `ModelAdapter.unread` that none of the sites needs.

    A site needs them unless it lies in another axis, or in a block before them. A site outside of
    all canonical ones (a whole tower) is taken to need them.

    Args:
        vlm: The model.
        sites: All that is read.
    """
    canonical = vlm.sites.canonical
    blocks = [canonical[name] for name in vlm.unread]
    wanted = list(sites)
    if not blocks or not all(_without(site, blocks, vlm.sites) for site in wanted):
        return ()
    return tuple(block.path for block in blocks)


@contextmanager
def passing_on(module: torch.nn.Module, paths: Iterable[str]) -> Iterator[None]:
    """Let blocks give the first thing that they are given, without computing anything.

    Args:
        module: The model.
        paths: Of the blocks.
    """
    blocks = [module.get_submodule(path) for path in paths]
    before = [block.__dict__.get("forward") for block in blocks]
    for block in blocks:
        block.__dict__["forward"] = _as_given
    try:
        yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            del block.__dict__["forward"]
            if forward is not None:
                block.__dict__["forward"] = forward


def _as_given(*args: Any, **kwargs: Any) -> Any:
    return args[0] if args else next(iter(kwargs.values()))


def _without(site: Site, blocks: Sequence[Site], sites: SiteMap) -> bool:
    """Whether a site's activation is the same without some blocks that end a stack."""
    owner = sites.owner(site.path)
    if owner is None:
        return False
    first = blocks[0]
    if owner.axis is not first.axis:
        return True
    same_stack = owner.name.rpartition(".")[0] == first.name.rpartition(".")[0]
    return same_stack and owner.index is not None and owner.index < (first.index or 0)
