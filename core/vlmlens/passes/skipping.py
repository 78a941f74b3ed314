"""Skipping blocks whose output nothing reads.

Some families take an image's features before the end of the vision tower, although the last blocks
still run. If no wanted site needs those blocks, extraction replaces them by the identity. All
wanted activations stay the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from vlmlens.passes.forwards import replaced_forward

if TYPE_CHECKING:
    import torch

    from vlmlens.passes.model import Model
    from vlmlens.sites import Site, SiteMap


def needless(vlm: Model, sites: Iterable[Site]) -> tuple[str, ...]:
    """Module paths of the blocks in `ModelAdapter.unread` that none of the sites needs.

    A site does not need them if it lies on another axis or in an earlier block. A site outside
    all canonical sites (such as a whole tower) counts as needing them.

    Args:
        vlm: The model.
        sites: All sites that are read.
    """
    canonical = vlm.sites.canonical
    blocks = [canonical[name] for name in vlm.unread]
    wanted = list(sites)
    if not blocks or not all(_without(site, blocks, vlm.sites) for site in wanted):
        return ()
    return tuple(block.path for block in blocks)


@contextmanager
def passing_on(module: torch.nn.Module, paths: Iterable[str]) -> Iterator[None]:
    """Replace blocks by the identity: they return their first input and compute nothing.

    Args:
        module: The model.
        paths: Module paths of the blocks.
    """
    with ExitStack() as stack:
        for path in paths:
            block = module.get_submodule(path)
            stack.enter_context(replaced_forward(block, lambda forward: _as_given))
        yield


def _as_given(*args: Any, **kwargs: Any) -> Any:
    return args[0] if args else next(iter(kwargs.values()))


def _without(site: Site, blocks: Sequence[Site], sites: SiteMap) -> bool:
    """Whether a site's activation stays the same without these last blocks of a stack."""
    owner = sites.owner(site.path)
    if owner is None:
        return False
    first = blocks[0]
    if owner.axis is not first.axis:
        return True
    same_stack = owner.name.rpartition(".")[0] == first.name.rpartition(".")[0]
    return same_stack and owner.index is not None and owner.index < (first.index or 0)
